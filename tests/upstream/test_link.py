"""Link: replies belong to requests by order alone; what a lost link means for each of them."""

from __future__ import annotations

import pytest

from rproxy.transport.stream import Tick
from rproxy.upstream.link import Link
from rproxy.wire.frames import Request
from tests.fakes import FakeCluster, Replies, unpack

MAY_HAVE_RUN = b"-ERR upstream connection lost; the command may have been executed\r\n"


def test_replies_come_in_order() -> None:
    cluster, replies = FakeCluster(), Replies()
    for number in range(3):
        cluster.link(0).take(replies.request(number, b"GET", b"k%d" % number))
    assert cluster.sent(0) == [[b"GET", b"k0"], [b"GET", b"k1"], [b"GET", b"k2"]]
    cluster.answer(0, b"$1\r\na\r\n$-1\r\n")
    assert replies.got == [b"$1\r\na\r\n", b"$-1\r\n"]
    cluster.answer(0, b"*1\r\n:1\r\n")
    assert replies.got[2:] == [b"*1\r\n:1\r\n"]
    assert len(cluster.link(0)) == cluster.tick.under_way == 0


def test_reply_split_at_every_byte() -> None:
    wire = b"$5\r\nhello\r\n-ERR wrong\r\n*2\r\n:1\r\n$-1\r\n"
    for at in range(len(wire)):
        cluster, replies = FakeCluster(), Replies()
        for _ in range(3):
            cluster.link(0).take(replies.request(0, b"GET", b"k"))
        cluster.answer(0, wire[:at])
        cluster.answer(0, wire[at:])
        assert replies.got == [b"$5\r\nhello\r\n", b"-ERR wrong\r\n", b"*2\r\n:1\r\n$-1\r\n"]


def test_large_frames_both_ways() -> None:
    cluster, replies = FakeCluster(), Replies()
    value = b"v" * 300_000
    cluster.link(0).take(replies.request(0, b"SET", b"k", value))
    cluster.link(0).take(replies.request(0, b"GET", b"k"))
    assert cluster.sent(0) == [[b"SET", b"k", value], [b"GET", b"k"]]
    reply = b"$300000\r\n" + value + b"\r\n"
    cluster.answer(0, b"+OK\r\n" + reply)
    assert replies.got == [b"+OK\r\n", reply]


def test_asking_is_adjacent_and_its_reply_is_dropped() -> None:
    cluster, replies = FakeCluster(), Replies()
    link = cluster.link(0)
    link.take(replies.request(0, b"GET", b"before"))
    link.send_asking(replies.request(0, b"GET", b"asked"))
    link.take(replies.request(0, b"GET", b"after"))
    assert cluster.sent(0) == [
        [b"GET", b"before"],
        [b"ASKING"],
        [b"GET", b"asked"],
        [b"GET", b"after"],
    ]
    cluster.answer(0, b"+1\r\n+OK\r\n+2\r\n+3\r\n")
    assert replies.got == [b"+1\r\n", b"+2\r\n", b"+3\r\n"]


@pytest.mark.parametrize(
    "surplus",
    [b"+nobody asked\r\n", b">2\r\n+a\r\n+b\r\n", b"?\r\n"],
    ids=["reply", "push", "garbage"],
)
def test_out_of_step_ends_the_link(surplus: bytes) -> None:
    cluster, replies = FakeCluster(), Replies()
    link = cluster.link(0)
    link.take(replies.request(0, b"SET", b"k", b"v"))
    link.stream.take()
    cluster.answer(0, b"+OK\r\n" if surplus.startswith(b"+") else b"")
    cluster.answer(0, surplus)
    assert link.stream.is_closed
    assert replies.got[-1:] == ([b"+OK\r\n"] if surplus.startswith(b"+") else [MAY_HAVE_RUN])


def test_lost_link_answers_what_may_have_run() -> None:
    cluster, replies = FakeCluster(), Replies()
    link = cluster.link(0)
    link.take(replies.request(0, b"INCR", b"k"))
    link.stream.take()  # written
    link.take(replies.request(0, b"INCR", b"unwritten"))
    link.close("cut")
    assert replies.got == [MAY_HAVE_RUN]
    again = cluster.connect(cluster.lane.pools[next(iter(cluster.lane.pools))].address)
    assert unpack(again.stream.take()) == [[b"INCR", b"unwritten"]]


def test_lost_link_without_a_lane_answers_everything() -> None:
    replies = Replies()
    link = Link(Tick())
    link.take(replies.request(0, b"GET", b"k"))
    link.close("cut")
    assert replies.got == [MAY_HAVE_RUN]


def test_deadline_leaves_a_ghost() -> None:
    """The late reply is dropped, and the next one still belongs to the next request."""
    cluster, replies = FakeCluster(), Replies()
    link = cluster.link(0)
    late = replies.request(0, b"GET", b"late")
    late.deadline = 10.0
    link.take(late)
    link.take(replies.request(0, b"GET", b"next"))
    assert link.expire(9.0) == 0
    assert link.expire(10.0) == 1
    assert link.expire(11.0) == 0
    assert replies.got == [
        b"-ERR no reply within upstream.command_timeout; the command was not executed\r\n"
    ]
    cluster.answer(0, b"+late\r\n+next\r\n")
    assert replies.got[1:] == [b"+next\r\n"]


def test_deadline_tells_what_was_written() -> None:
    cluster, replies = FakeCluster(), Replies()
    late = replies.request(0, b"GET", b"late")
    late.deadline = 10.0
    cluster.link(0).take(late)
    cluster.sent(0)
    cluster.link(0).expire(10.0)
    assert b"may have been executed" in replies.got[0]


def test_heartbeat() -> None:
    cluster = FakeCluster()
    cluster.link(0).ping()
    assert cluster.sent(0) == [[b"PING"]]
    cluster.answer(0, b"+PONG\r\n")
    assert len(cluster.link(0)) == 0


def test_repr_tells_the_state() -> None:
    cluster = FakeCluster()
    assert repr(cluster.link(0)) == "<Link node-a:1 ready, 0 under way>"
    assert repr(Request(b"*1\r\n$1\r\na\r\n")) == "<Request 11 bytes, slot -1, flags 0, hops 0>"
