"""Scripts are remembered, forgotten, and taught to nodes that lack them."""

from __future__ import annotations

import asyncio
from hashlib import sha1

from tests.fakes import FakeClient, FakeProxy, bulk, on_a_loop

BODY = b"return 1"
SHA = sha1(BODY).hexdigest().encode()
NO, YES = b"*1\r\n:0\r\n", b"*1\r\n:1\r\n"


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def exists(proxy: FakeProxy, *replies: bytes) -> FakeClient:
    """A client that asks for the script, and what the nodes say of it."""
    client = proxy.client()
    client.say(b"SCRIPT", b"EXISTS", SHA)
    await settle()
    for index, raw in enumerate(replies):
        assert proxy.cluster.sent(index) == [[b"SCRIPT", b"EXISTS", SHA]]
        proxy.cluster.answer(index, raw)
    await settle()
    return client


@on_a_loop
async def test_script_that_all_have() -> None:
    client = await exists(FakeProxy(), YES, YES, YES)
    assert client.hear() == YES
    assert not client.session.is_held


@on_a_loop
async def test_script_that_nobody_remembers() -> None:
    assert (await exists(FakeProxy(), YES, NO, YES)).hear() == NO


@on_a_loop
async def test_who_lacks_a_script_is_taught_it_before_it_is_said_to_exist() -> None:
    proxy = FakeProxy()
    proxy.cluster.scripts.remember(BODY)
    client = await exists(proxy, YES, NO, NO)
    for index, expected in enumerate(
        ([], [[b"SCRIPT", b"LOAD", BODY]], [[b"SCRIPT", b"LOAD", BODY]])
    ):
        assert proxy.cluster.sent(index) == expected
    assert client.hear() == b""
    for index in (1, 2):
        proxy.cluster.answer(index, bulk(SHA))
    await settle()
    assert client.hear() == YES


@on_a_loop
async def test_script_that_cannot_be_taught_does_not_exist() -> None:
    """EVAL brings mistakes, too, and they are remembered."""
    proxy = FakeProxy()
    proxy.cluster.scripts.remember(BODY)
    client = await exists(proxy, YES, NO, YES)
    proxy.cluster.answer(1, b"-ERR Error compiling script\r\n")
    await settle()
    assert client.hear() == NO


@on_a_loop
async def test_an_error_of_a_node_is_the_answer() -> None:
    client = await exists(FakeProxy(), YES, b"-NOPERM no\r\n", YES)
    assert client.hear() == b"-NOPERM no\r\n"


def test_scripts_that_clients_bring_are_remembered() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"EVAL", b"one", b"0")
    client.say(b"SCRIPT", b"LOAD", b"two")
    other = proxy.client()
    other.say(b"MULTI")
    other.say(b"EVAL", b"three", b"1", b"b")
    assert len(proxy.cluster.scripts) == 3
    client.say(b"SCRIPT", b"FLUSH")
    assert len(proxy.cluster.scripts) == 0


@on_a_loop
async def test_other_workers_forget_as_well() -> None:
    told: list[list[bytes]] = []

    class Bus:
        async def ask(self, words: list[bytes]) -> list[bytes]:
            told.append(words)
            return []

    proxy = FakeProxy()
    proxy.engine.bus = Bus()  # type: ignore[assignment]
    proxy.client().say(b"SCRIPT", b"FLUSH")
    await settle()
    assert told == [[b"forget the scripts"]]
