"""A transaction that arrives whole is one request with several replies.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from tests.engine.test_pinned import (
    ABORTED,
    ASK,
    DONE,
    EXEC,
    MAYBE,
    MOVED,
    MULTI,
    OK,
    QUEUED,
    SET,
    start,
    wire,
)
from tests.fakes import NODES


def test_whole_transaction_is_one_write_on_the_shared_link() -> None:
    proxy, client = start()
    client.send(wire([b"GET", b"a"], MULTI, SET, SET, EXEC, [b"GET", b"a"]))
    assert proxy.cluster.sent(2) == [
        [b"GET", b"a"], MULTI, SET, SET, EXEC, [b"GET", b"a"]
    ]  # fmt: skip
    proxy.cluster.answer(2, b"$1\r\n0\r\n" + OK + QUEUED)
    assert client.hear() == b"$1\r\n0\r\n"
    proxy.cluster.answer(2, QUEUED + b"*2\r\n" + OK + OK + b"$1\r\n1\r\n")
    assert client.hear() == OK + QUEUED * 2 + b"*2\r\n" + OK + OK + b"$1\r\n1\r\n"
    assert proxy.cluster.tick.under_way == 0


def test_bundle_is_moved_as_a_whole() -> None:
    proxy, client = start()
    client.send(wire(MULTI, SET, EXEC, [b"APPEND", b"a", b"2"]))
    proxy.cluster.sent(2)
    proxy.cluster.answer(2, OK + MOVED + MOVED + MOVED)
    assert proxy.cluster.sent(0) == [MULTI, SET, EXEC, [b"APPEND", b"a", b"2"]]
    proxy.cluster.answer(0, OK + QUEUED + DONE + b":2\r\n")
    assert client.hear() == OK + QUEUED + DONE + b":2\r\n"


def test_bundle_follows_ask() -> None:
    proxy, client = start()
    client.send(wire(MULTI, SET, EXEC))
    proxy.cluster.sent(2)
    proxy.cluster.answer(2, OK + ASK + ABORTED)
    assert proxy.cluster.sent(0) == [[b"ASKING"], MULTI, SET, EXEC]
    proxy.cluster.answer(0, OK + OK + QUEUED + DONE)
    assert client.hear() == OK + QUEUED + DONE


def test_errors_in_a_bundle_keep_their_place() -> None:
    proxy, client = start()
    client.send(wire(MULTI, SET, SET, EXEC))
    replies = OK + b"-OOM no memory\r\n" + QUEUED + ABORTED
    proxy.cluster.answer(2, replies)
    assert client.hear() == replies


@pytest.mark.parametrize("came", [b"", OK, OK + QUEUED])
def test_bundle_on_a_lost_link(came: bytes) -> None:
    proxy, client = start()
    client.send(wire(MULTI, SET, EXEC))
    proxy.cluster.sent(2)
    proxy.cluster.answer(2, came)
    proxy.cluster.link(2).close("reset")
    assert client.hear() == OK + QUEUED + MAYBE


def test_bundle_that_was_not_written_is_sent_again() -> None:
    proxy, client = start()
    client.send(wire(MULTI, SET, EXEC))
    proxy.cluster.link(2).close("reset")
    link = proxy.cluster.connect(NODES[2])
    assert proxy.cluster.written(link) == [MULTI, SET, EXEC]
    link.stream.feed(OK + QUEUED + DONE)
    assert client.hear() == OK + QUEUED + DONE


@pytest.mark.parametrize("cut", range(1, len(wire(MULTI, SET, EXEC))))
def test_transaction_in_two_reads(cut: int) -> None:
    proxy, client = start()
    whole = wire(MULTI, SET, EXEC)
    client.send(whole[:cut])
    client.send(whole[cut:])
    if proxy.cluster.lane.leases.making:
        link = proxy.cluster.lease(2)
        client.hear()
        written = proxy.cluster.written(link)
    else:
        link, written = proxy.cluster.link(2), proxy.cluster.sent(2)
    assert written == [MULTI, SET, EXEC]
    link.stream.feed(OK + QUEUED + DONE)
    assert client.session.under_way == 0
    assert client.session.pin is None
