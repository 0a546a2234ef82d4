"""Commands for all masters: every node is asked, and one reply comes of it."""

from __future__ import annotations

import asyncio

import pytest

from rproxy.config import Seconds, Upstream
from rproxy.engine.broadcast import combine, is_error
from rproxy.errors import unreachable_reply
from tests.fakes import NODES, FakeClient, FakeProxy, bulk, even_map

OK = b"+OK\r\n"
NAMES = [str(node) for node in NODES]


def asked(proxy: FakeProxy, client: FakeClient, *words: bytes) -> None:
    """Send a command; every master must have got it, as it was."""
    client.say(*words)
    assert [proxy.cluster.sent(index) for index in range(3)] == [[list(words)]] * 3


def reply(words: bytes, replies: list[bytes]) -> bytes:
    """What a client hears when the nodes answer so."""
    proxy = FakeProxy()
    client = proxy.client()
    asked(proxy, client, *words.split())
    for index, raw in enumerate(replies):
        assert client.hear() == b""
        proxy.cluster.answer(index, raw)
    return client.hear()


@pytest.mark.parametrize(
    ("command", "replies", "expected"),
    [
        (b"DBSIZE", [b":1\r\n", b":0\r\n", b":41\r\n"], b":42\r\n"),
        (b"FLUSHALL ASYNC", [OK, OK, OK], OK),
        (b"FLUSHDB", [OK, OK, OK], OK),
        (
            b"KEYS *",
            [b"*1\r\n" + bulk(b"a\r\n"), b"*0\r\n", b"*2\r\n" + bulk(b"b") * 2],
            b"*3\r\n" + bulk(b"a\r\n") + bulk(b"b") * 2,
        ),
        (b"SCRIPT FLUSH", [OK, OK, OK], OK),
        (b"FUNCTION DELETE l", [OK, OK, OK], OK),
        (b"SCRIPT FLUSH x", [b"-ERR syntax\r\n"] * 3, b"-ERR syntax\r\n"),
        (
            b"FLUSHALL",
            [OK, b"-OOM full\r\n", OK],
            b"-OOM full (at %b; 2 of 3 nodes succeeded)\r\n" % NAMES[1].encode(),
        ),
        (b"DBSIZE", [b":1\r\n", OK, b":1\r\n"], b"-ERR the nodes' replies do not fit together\r\n"),
    ],
)
def test_replies(command: bytes, replies: list[bytes], expected: bytes) -> None:
    assert reply(command, replies) == expected


NOT_BUSY = b"-NOTBUSY none\r\n"
UNKILLABLE = b"-UNKILLABLE it wrote\r\n"


@pytest.mark.parametrize("command", [b"SCRIPT KILL", b"FUNCTION KILL"])
@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([NOT_BUSY, OK, NOT_BUSY], OK),
        ([NOT_BUSY] * 3, NOT_BUSY),
        ([NOT_BUSY, UNKILLABLE, NOT_BUSY], UNKILLABLE),
    ],
)
def test_killing_waits_behind_nothing(
    command: bytes, replies: list[bytes], expected: bytes
) -> None:
    """The script that is to be killed blocks the links that clients share."""
    proxy = FakeProxy()
    runner, client = proxy.client(), proxy.client()
    runner.say(b"EVAL", b"while true do end", b"1", b"b")
    client.say(*command.split())
    for index, raw in enumerate(replies):
        assert client.hear() == b""
        link = proxy.cluster.lease(index)
        assert proxy.cluster.written(link) == [command.split()]
        link.stream.feed(raw)
    assert client.hear() == expected
    assert repr(proxy.cluster.lane.leases) == "<Leases 0 held, 3 warm, 0 being made>"


def test_killing_at_a_node_that_cannot_be_reached() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"SCRIPT", b"KILL")
    leases = proxy.cluster.lane.leases
    leases.failed(next(iter(leases.making)), "refused")
    for index in (1, 2):
        proxy.cluster.lease(index).stream.feed(NOT_BUSY)
    assert client.hear() == unreachable_reply(NAMES[0])


def test_order_among_other_commands() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    for words in ([b"GET", b"b"], [b"DBSIZE"], [b"PING"], [b"GET", b"c"]):
        client.say(*words)
    assert proxy.cluster.sent(0) == [[b"GET", b"b"], [b"DBSIZE"]]
    assert proxy.cluster.sent(1) == [[b"DBSIZE"], [b"GET", b"c"]]
    proxy.cluster.answer(1, b":1\r\n$1\r\nc\r\n")
    proxy.cluster.answer(2, b":1\r\n")
    assert client.hear() == b""
    proxy.cluster.answer(0, b"$1\r\nb\r\n:1\r\n")
    assert client.hear() == b"$1\r\nb\r\n:3\r\n+PONG\r\n$1\r\nc\r\n"


def test_node_that_is_away_is_asked_when_it_is_back() -> None:
    """And nobody else in its place, though the command changes nothing."""
    proxy = FakeProxy()
    client = proxy.client()
    proxy.cluster.link(1).close("cut")
    client.say(b"DBSIZE")
    proxy.cluster.answer(0, b":1\r\n")
    proxy.cluster.answer(2, b":1\r\n")
    assert client.hear() == b""
    proxy.cluster.connect(NODES[1])
    assert proxy.cluster.sent(1) == [[b"DBSIZE"]]
    proxy.cluster.answer(1, b":5\r\n")
    assert client.hear() == b":7\r\n"


def test_link_lost_on_the_way_is_no_reason_to_ask_another_node() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"DBSIZE")
    proxy.cluster.sent(1)
    proxy.cluster.link(1).close("cut")
    for index in (0, 2):
        assert proxy.cluster.sent(index) == [[b"DBSIZE"]]
        proxy.cluster.answer(index, b":1\r\n")
    assert client.hear().startswith(b"-ERR upstream connection lost")


def test_client_that_leaves() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    asked(proxy, client, b"DBSIZE")
    client.session.close("gone")
    for index in range(3):
        proxy.cluster.answer(index, b":1\r\n")
    assert proxy.cluster.tick.under_way == 0


def test_no_cluster_yet() -> None:
    """It waits for the map, and what the client says later waits behind it."""
    known = even_map()

    async def converse() -> None:
        proxy = FakeProxy()
        proxy.cluster.slotmap = known.empty()
        client = proxy.client()
        client.say(b"DBSIZE")
        client.say(b"PING")
        assert client.hear() == b""
        proxy.cluster.adopt(known)
        proxy.cluster.mapped.set()
        await asyncio.gather(*proxy.engine._tasks)
        proxy.run()
        for index in range(3):
            proxy.cluster.answer(index, b":1\r\n")
        assert client.hear() == b":3\r\n+PONG\r\n"

    asyncio.run(converse())


def test_no_cluster_at_all() -> None:
    async def converse() -> None:
        proxy = FakeProxy(upstream=Upstream(hold_time=Seconds(0.01)))
        proxy.cluster.slotmap = even_map().empty()
        client = proxy.client()
        client.say(b"DBSIZE")
        await asyncio.gather(*proxy.engine._tasks)
        assert client.hear().startswith(b"-CLUSTERDOWN")

    asyncio.run(converse())


def test_scripts_are_remembered_and_forgotten() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"EVAL", b"return 1", b"1", b"b")
    client.say(b"SCRIPT", b"LOAD", b"return 2")
    assert len(proxy.cluster.scripts) == 2
    client.say(b"SCRIPT", b"FLUSH")
    assert len(proxy.cluster.scripts) == 0


def test_function_stats_of_a_node_that_runs_one() -> None:
    idle = b"*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*0\r\n"
    busy = b"*4\r\n$14\r\nrunning_script\r\n*0\r\n$7\r\nengines\r\n*0\r\n"
    assert reply(b"FUNCTION STATS", [idle, busy, idle]) == busy


def test_errors_of_both_versions() -> None:
    assert is_error(b"-ERR x\r\n")
    assert is_error(b"!5\r\nERR x\r\n")
    assert not is_error(b"+OK\r\n")
    assert combine([b"?"], lambda replies, protocol: replies[9], 2).startswith(b"-ERR")
