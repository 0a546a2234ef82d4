"""Commands whose keys only a server finds: it is asked, then they go on in their place.

The keys b, c and a belong to the nodes 0, 1 and 2. M.OWN count key ... is the module's command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy import errors
from rproxy.config import PinRule
from rproxy.engine.asked import ranges
from rproxy.engine.multi import of
from rproxy.routing.slots import slot_of
from rproxy.upstream.cluster import parse_reply
from rproxy.wire.frames import pack
from tests.engine.trackers import changed, news, tracker
from tests.fakes import FakeClient, FakeProxy, on_a_loop

OK, QUEUED, PONG = b"+OK\r\n", b"+QUEUED\r\n", b"+PONG\r\n"
Words = list[bytes]


def counted(words: Words) -> Any:
    """What the module says of M.OWN."""
    count = int(words[1]) if words[1:] and words[1].isdigit() else 0
    if not 0 < count <= len(words) - 2:
        return hiredis.ReplyError("ERR Invalid arguments specified for command")
    return words[2 : 2 + count]


def started(
    getkeys: Callable[[Words], Any] = counted, *flags: bytes, **options: Any
) -> tuple[FakeProxy, FakeClient]:
    proxy = FakeProxy(**options)
    proxy.engine._learnt([[b"m.own", -2, [b"write", b"movablekeys", *flags], 1, 1, 1, []]])
    proxy.cluster.getkeys = getkeys
    return proxy, proxy.client()


def wire(*commands: str) -> bytes:
    return b"".join(pack(command.encode().split()) for command in commands)


async def settle(proxy: FakeProxy) -> None:
    for _ in range(8):
        await asyncio.sleep(0)
        proxy.run()


def sent(proxy: FakeProxy) -> list[str]:
    """What the nodes were sent since the last look."""
    found = [words for index in range(3) for words in proxy.cluster.sent(index)]
    return [b" ".join(words).decode() for words in found]


@on_a_loop
async def test_order_is_kept() -> None:
    proxy, client = started()
    client.send(wire("GET b", "M.OWN 2 a {a}2 b", "PING", "GET b"))
    assert sent(proxy) == ["GET b"]
    await settle(proxy)
    assert proxy.cluster.asked == [(b"COMMAND", b"GETKEYS", *b"M.OWN 2 a {a}2 b".split())]
    assert proxy.cluster.sent(2) == [b"M.OWN 2 a {a}2 b".split()]
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]
    proxy.cluster.answer(0, b"+1\r\n+4\r\n")
    proxy.cluster.answer(2, b"+2\r\n")
    assert client.hear() == b"+1\r\n+2\r\n" + PONG + b"+4\r\n"


@on_a_loop
async def test_keys_of_several_slots() -> None:
    proxy, client = started()
    client.send(wire("M.OWN 2 a b", "PING"))
    await settle(proxy)
    assert client.hear() == errors.CROSS_SLOT + PONG
    assert sent(proxy) == []


@pytest.mark.parametrize("text", ["ERR Invalid arguments specified", "ERR The command has no key"])
def test_server_that_sees_no_key_answers_the_command_itself(text: str) -> None:
    @on_a_loop
    async def run() -> None:
        proxy, client = started(lambda words: hiredis.ReplyError(f"{text} arguments"))
        client.send(wire("M.OWN x"))
        await settle(proxy)
        assert sent(proxy) == ["M.OWN x"]

    run()


@on_a_loop
async def test_nobody_tells() -> None:
    refused = hiredis.ReplyError("NOPERM no right to 'command|getkeys'")
    proxy, client = started(lambda words: refused)
    client.send(wire("M.OWN 1 a", "PING"))
    await settle(proxy)
    assert client.hear() == (
        b"-NOPERM no right to 'command|getkeys' "
        b"(asked where the command's keys are; it was not executed)\r\n" + PONG
    )
    assert sent(proxy) == []


@on_a_loop
async def test_client_leaves_meanwhile() -> None:
    answer: asyncio.Future[Words] = asyncio.get_running_loop().create_future()
    proxy, client = started(lambda words: answer)
    client.send(wire("M.OWN 1 a"))
    await settle(proxy)
    client.session.close("gone")
    answer.set_result([b"a"])
    await settle(proxy)
    assert sent(proxy) == []


@on_a_loop
async def test_command_that_may_wait_is_not_served() -> None:
    _, client = started(counted, b"blocking")
    assert client.ask(b"M.OWN", b"1", b"a").startswith(b"-ERR rproxy does not serve 'm.own'")


@on_a_loop
async def test_keys_at_too_many_places() -> None:
    places = [at * at for at in range(1, 20)]
    words = [b"{a}%d" % at if at in places else b"x" for at in range(1, 400)]
    proxy, client = started(lambda asked: [word for word in asked if word.startswith(b"{a}")])
    client.send(pack([b"M.OWN", *words]))
    await settle(proxy)
    assert client.hear() == errors.SCATTERED_KEYS
    assert sent(proxy) == []


@given(st.sets(st.integers(1, 60)))
def test_ranges(places: set[int]) -> None:
    found = ranges(sorted(places))
    assert [at for part in found for at in part] == sorted(places)
    assert all(part[-1] < 61 for part in found)


# -- pinned keys --

PIN = (PinRule((b"p:",), b"p"),)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("M.OWN 2 p:1 p:2 v", "M.OWN 2 {p}p:1 {p}p:2 v"),
        ("M.OWN 1 p:1 p:1", "M.OWN 1 {p}p:1 p:1"),
        ("M.OWN 2 p:1 p:1 v", "M.OWN 2 {p}p:1 {p}p:1 v"),
        ("M.OWN 1 {p}x p:1 p:1", "M.OWN 1 {p}x p:1 p:1"),
        ("M.OWN 3 p:1 p:2 p:1 p:1 p:2", "M.OWN 3 {p}p:1 {p}p:2 {p}p:1 p:1 p:2"),
    ],
)
def test_tags_are_put_before_keys_only(command: str, expected: str) -> None:
    @on_a_loop
    async def run() -> None:
        proxy, client = started(pin=PIN)
        client.send(wire(command))
        await settle(proxy)
        assert sent(proxy) == [expected]

    run()


def test_value_that_cannot_be_told_from_a_pinned_key() -> None:
    """The module finds its keys by what the arguments say, so no try with other bytes helps."""

    def fickle(words: Words) -> Words:
        return [b"p:1"] if words[1:] == [b"p:1", b"p:1"] else []

    @on_a_loop
    async def run() -> None:
        proxy, client = started(fickle, pin=PIN)
        client.send(wire("M.OWN p:1 p:1"))
        await settle(proxy)
        assert client.hear() == errors.NO_PLACES
        assert sent(proxy) == []

    run()


# -- transactions --


async def played(proxy: FakeProxy, link: Any) -> list[str]:
    """Have the leased link's node answer until nothing more comes; what it was sent."""
    heard: list[str] = []
    depth, idle = 0, 0
    while idle < 3:
        await settle(proxy)
        written = proxy.cluster.written(link)
        idle = 0 if written else idle + 1
        for words in written:
            if words[0] in (b"MULTI", b"DISCARD"):
                depth = 0
                link.stream.feed(OK)
            elif words[0] == b"EXEC":
                link.stream.feed(b"*%d\r\n" % depth + b":1\r\n" * depth)
            else:
                depth += 1
                link.stream.feed(QUEUED)
            heard.append(b" ".join(words).decode())
    return heard


@on_a_loop
async def test_first_command_of_a_transaction() -> None:
    proxy, client = started()
    client.send(wire("MULTI", "M.OWN 1 a", "SET a 1", "EXEC"))
    await settle(proxy)
    link = proxy.cluster.lease(2)
    assert await played(proxy, link) == ["MULTI", "M.OWN 1 a", "SET a 1", "EXEC"]
    assert client.hear() == OK + QUEUED * 2 + b"*2\r\n:1\r\n:1\r\n"


@on_a_loop
async def test_transaction_in_one_pipeline() -> None:
    """What goes before is answered first; what follows the command keeps its place."""
    proxy, client = started()
    inside = ["SET a 1", "M.OWN 1 a", "GET a", "M.OWN 1 {a}", "SET a 2"]
    client.send(wire("GET b", "MULTI", *inside, "EXEC", "PING"))
    await settle(proxy)
    assert proxy.cluster.asked == []
    proxy.cluster.answer(0, b"+0\r\n")
    await settle(proxy)
    link = proxy.cluster.lease(2)
    assert await played(proxy, link) == ["MULTI", *inside, "EXEC"]
    assert client.hear() == b"+0\r\n" + OK + QUEUED * 5 + b"*5\r\n" + b":1\r\n" * 5 + PONG


@on_a_loop
async def test_command_in_another_slot_spoils_the_transaction() -> None:
    proxy, client = started()
    client.send(wire("MULTI", "SET a 1", "M.OWN 1 b", "GET a", "EXEC", "PING"))
    await settle(proxy)
    assert "M.OWN 1 b" not in await played(proxy, proxy.cluster.lease(2))
    assert client.hear() == (OK + QUEUED + errors.CROSS_SLOT + QUEUED + errors.EXEC_ABORTED + PONG)


@on_a_loop
async def test_spoiled_transaction_asks_nobody() -> None:
    proxy, client = started()
    client.send(wire("MULTI", "NOSUCH", "M.OWN 1 a", "EXEC"))
    await settle(proxy)
    assert client.hear().endswith(QUEUED + errors.EXEC_ABORTED)
    assert proxy.cluster.asked == [("COMMAND", "INFO", b"nosuch")]


@on_a_loop
async def test_link_is_lost_while_a_server_is_asked() -> None:
    answer: asyncio.Future[Words] = asyncio.get_running_loop().create_future()
    proxy, client = started(lambda words: answer)
    client.send(wire("MULTI", "SET a 1", "M.OWN 1 a", "GET a", "EXEC"))
    await settle(proxy)
    link = proxy.cluster.lease(2)
    assert await played(proxy, link) == ["MULTI", "SET a 1"]
    link.close("lost")
    await settle(proxy)
    assert client.hear() == OK + QUEUED
    answer.set_result([b"a"])
    await settle(proxy)
    again = proxy.cluster.lease(2)
    assert await played(proxy, again) == ["MULTI", "SET a 1", "M.OWN 1 a", "GET a", "EXEC"]
    assert client.hear() == QUEUED * 2 + b"*3\r\n:1\r\n:1\r\n:1\r\n"


@on_a_loop
async def test_client_that_goes_on_sending_meanwhile_is_not_read() -> None:
    proxy, client = started()
    client.send(wire("MULTI", "SET a 1", "M.OWN 1 a"))
    await settle(proxy)
    link = proxy.cluster.lease(2)
    for _ in range(50):
        client.send(wire("GET a"))
        await settle(proxy)
    transaction = of(client.session)
    assert transaction is not None
    assert len(transaction.early or []) <= 2
    assert client.session.is_held
    assert (await played(proxy, link)).count("GET a") == 50
    assert client.hear() == OK + QUEUED * 52


@on_a_loop
async def test_command_without_arguments() -> None:
    proxy, client = started()
    proxy.engine._learnt([[b"m.bare", -1, [b"movablekeys"], 0, 0, 0, []]])
    client.send(wire("M.BARE"))
    await settle(proxy)
    assert proxy.cluster.asked == []
    assert sent(proxy) == ["M.BARE"]


@on_a_loop
async def test_node_sends_away_what_goes_before() -> None:
    """The command waits until the transaction has found its node."""
    proxy, client = started()
    client.send(wire("MULTI", "SET a 1"))
    await settle(proxy)
    link = proxy.cluster.lease(2)
    assert [words[0] for words in proxy.cluster.written(link)] == [b"MULTI", b"SET"]
    client.send(wire("M.OWN 1 a", "GET a", "EXEC"))
    await settle(proxy)
    link.stream.feed(OK + b"-MOVED %d node-a:1\r\n" % slot_of(b"a"))
    await settle(proxy)
    proxy.cluster.written(link)
    link.stream.feed(OK)
    await settle(proxy)
    assert proxy.cluster.asked == []
    again = proxy.cluster.lease(0)
    assert await played(proxy, again) == ["MULTI", "SET a 1", "M.OWN 1 a", "GET a", "EXEC"]
    assert client.hear() == OK + QUEUED * 3 + b"*3\r\n:1\r\n:1\r\n:1\r\n"


# -- client-side caching --


@pytest.mark.parametrize("in_multi", [False, True])
def test_keys_are_remembered_for_who_tracks_them(in_multi: bool) -> None:
    @on_a_loop
    async def run() -> None:
        proxy, _ = started()
        proxy.engine._learnt([[b"m.read", -2, [b"readonly", b"movablekeys"], 1, 1, 1, []]])
        client = tracker(proxy)
        before, after = (["MULTI"], ["EXEC"]) if in_multi else ([], [])
        client.send(wire(*before, "M.READ 1 b", *after))
        await settle(proxy)
        if in_multi:
            await played(proxy, proxy.cluster.lease(0, 3))
        else:
            proxy.cluster.answer(0, b"+1\r\n", 3)
        await settle(proxy)
        assert client.hear()
        changed(proxy, 0, b"b")
        assert client.hear() == news(b"b")

    run()


# -- PROXY --


def test_explain_asks_as_well() -> None:
    def about(told: Any) -> dict[bytes, Any]:
        answers: list[bytes] = []

        @on_a_loop
        async def run() -> None:
            proxy, client = started(lambda words: told)
            client.send(wire("PROXY EXPLAIN M.OWN 1 a", "PING"))
            await settle(proxy)
            answers.append(client.hear())
            assert sent(proxy) == []

        run()
        assert answers[0].endswith(PONG)
        found = parse_reply(answers[0].removesuffix(PONG))
        return dict(zip(found[::2], found[1::2], strict=True))

    found = about([b"a"])
    assert (found[b"treatment"], found[b"key_count"]) == (b"slot", 1)
    assert about([b"a", b"1"])[b"treatment"] == b"crossslot"
    failed = about(hiredis.ReplyError("CLUSTERDOWN no node"))
    assert failed[b"treatment"] == b"asked"
    assert failed[b"error"].startswith(b"CLUSTERDOWN no node (asked where")


@on_a_loop
async def test_commands_tells_that_a_server_is_asked() -> None:
    _, client = started()
    found = parse_reply(client.ask(b"PROXY", b"COMMANDS", b"m.own"))
    about = dict(zip(found[::2], found[1::2], strict=True))
    assert about[b"treatment"] == b"asked"
    assert b"GETKEYS" in about[b"keys"]
