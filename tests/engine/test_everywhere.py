"""CLIENT subcommands and INFO, where other workers have clients, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rproxy.engine.everywhere import COUNT, FORGET, TRACK, answer_worker
from rproxy.engine.replies import encode
from tests.fakes import FakeClient, FakeProxy, bulk, on_a_loop

NONE_SUCH = b"-ERR No such client\r\n"


class FakeBus:
    """Other workers that give these answers."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[list[bytes]] = []

    async def ask(self, words: Sequence[bytes]) -> list[bytes]:
        self.asked.append(list(words))
        return self.answers


def one_of_several(*answers: bytes) -> tuple[FakeProxy, FakeBus]:
    """A worker whose fellows answer so."""
    proxy, bus = FakeProxy(), FakeBus(*answers)
    proxy.engine.bus = bus  # type: ignore[assignment]
    return proxy, bus


async def reply(client: FakeClient, command: str) -> bytes:
    client.say(*command.encode().split())
    for _ in range(3):
        await asyncio.sleep(0)
    return client.hear()


@on_a_loop
async def test_lists_are_joined_by_id() -> None:
    proxy, bus = one_of_several(bulk(b"id=9 other\nid=12 other\n"), bulk(b"id=10 third\n"))
    client = proxy.client()
    heard = await reply(client, "CLIENT LIST")
    words = heard.split()[1:]
    assert [word for word in words if word.startswith(b"id=")] == [
        b"id=1",
        b"id=9",
        b"id=10",
        b"id=12",
    ]
    assert bus.asked == [[b"CLIENT", b"LIST"]]
    assert await reply(client, "PING") == b"+PONG\r\n"


CASES: dict[str, tuple[list[bytes], bytes]] = {
    "CLIENT KILL ID 7": ([b":1\r\n", b":0\r\n"], b":1\r\n"),
    "CLIENT KILL 127.0.0.1:99": ([NONE_SUCH, b"+OK\r\n"], b"+OK\r\n"),
    "CLIENT KILL 127.0.0.1:98": ([NONE_SUCH, NONE_SUCH], NONE_SUCH),
    "CLIENT UNBLOCK 7": ([b":0\r\n", b":1\r\n"], b":1\r\n"),
    "CLIENT PAUSE 0": ([b"+OK\r\n", b"+OK\r\n"], b"+OK\r\n"),
    "CLIENT UNPAUSE": ([], b"+OK\r\n"),
}


@pytest.mark.parametrize("command", CASES)
def test_replies_become_one(command: str) -> None:
    answers, expected = CASES[command]

    @on_a_loop
    async def run() -> None:
        proxy, bus = one_of_several(*answers)
        assert await reply(proxy.client(), command) == expected
        assert bus.asked == [command.encode().split()]

    run()


@on_a_loop
async def test_a_mistake_is_answered_at_once() -> None:
    proxy, bus = one_of_several()
    assert proxy.client().ask(b"CLIENT", b"UNBLOCK", b"x").startswith(b"-ERR value is not")
    assert bus.asked == []


@on_a_loop
async def test_info_counts_all_clients() -> None:
    proxy, bus = one_of_several(encode([4, 0, 1, 2, 3, 4]), encode([5, 2, 0, 1, 1, 0]))
    client = proxy.client()
    client.say(b"INFO", b"clients")
    client.say(b"PING")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for index in range(3):
        text = b"# Clients\r\nconnected_clients:100\r\nblocked_clients:7\r\ntracking_clients:9\r\n"
        proxy.cluster.answer(index, bulk(text))
    heard = client.hear()
    assert b"connected_clients:10\r\nblocked_clients:2\r\ntracking_clients:1\r\n" in heard
    assert heard.endswith(b"+PONG\r\n")
    assert bus.asked == [[COUNT]]


def test_what_other_workers_ask() -> None:
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(2)]

    def tell(*words: bytes) -> bytes:
        return answer_worker(proxy.engine, list(words))

    assert tell(COUNT) == encode([2, 0, 0, 0, 0, 0])
    assert tell(TRACK, b"7") == b"+OK\r\n"
    assert proxy.engine.tracking.table.max_keys == 7
    proxy.cluster.scripts.remember(b"return 1")
    assert tell(FORGET) == b"+OK\r\n"
    assert len(proxy.cluster.scripts) == 0
    assert tell(b"CLIENT", b"LIST").count(b"id=") == 2
    assert tell(b"CLIENT", b"KILL", b"ID", b"2") == b":1\r\n"
    assert clients[1].reasons == ["CLIENT KILL"]
    assert tell(b"CLIENT", b"KILL", b"127.0.0.1:77") == NONE_SUCH
