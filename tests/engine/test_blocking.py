"""Blocking commands on leased links: what is sent again, what never, and who is let go.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from rproxy.config import Clients
from rproxy.upstream.link import Link
from tests.engine.test_pinned import ASK, CROSS_SLOT, MAYBE, MOVED, start, wire
from tests.fakes import FakeClient, FakeProxy

BLPOP = [b"BLPOP", b"a", b"10"]
POPPED = b"*2\r\n$1\r\na\r\n$1\r\n1\r\n"


def blocked(proxy: FakeProxy, client: FakeClient, command: list[bytes] = BLPOP) -> Link:
    client.say(*command)
    link = proxy.cluster.lease(2)
    assert proxy.cluster.written(link)[-1] == command
    return link


def test_later_commands_wait_behind_a_blocking_one() -> None:
    proxy, client = start()
    link = blocked(proxy, client)
    assert " flags=b " in client.identity.line(0.0)
    client.send(wire([b"GET", b"b"]))
    assert proxy.cluster.sent(0) == []
    link.stream.feed(POPPED)
    assert client.hear() == POPPED
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]
    assert proxy.engine.blocked == set()


def test_blocking_command_waits_for_earlier_ones() -> None:
    proxy, client = start()
    client.send(wire([b"RPUSH", b"a", b"1"], BLPOP))
    assert not proxy.cluster.lane.leases.making
    proxy.cluster.answer(2, b":1\r\n")
    client.hear()
    assert proxy.cluster.written(proxy.cluster.lease(2)) == [BLPOP]


def test_client_that_leaves_closes_the_link() -> None:
    proxy, client = start()
    link = blocked(proxy, client)
    client.stream.peer_ended()
    assert link.stream.is_closed
    assert proxy.engine.blocked == set()


def test_client_that_leaves_before_there_is_a_link() -> None:
    proxy, client = start()
    client.say(*BLPOP)
    client.stream.peer_ended()
    assert proxy.cluster.written(proxy.cluster.lease(2)) == []


@pytest.mark.parametrize("error", [MOVED, ASK])
def test_owner_moves_while_blocked(error: bytes) -> None:
    proxy, client = start()
    link = blocked(proxy, client)
    proxy.cluster.loop.now += 4
    link.stream.feed(error)
    written = proxy.cluster.written(proxy.cluster.lease(0))
    assert written == [*([[b"ASKING"]] if error is ASK else []), [b"BLPOP", b"a", b"6.000"]]


def test_node_loses_its_role_while_blocked() -> None:
    proxy, client = start()
    link = blocked(proxy, client)
    link.stream.feed(b"-UNBLOCKED force unblock from blocking operation, ...\r\n")
    proxy.cluster.loop.advance(2.0)
    assert proxy.cluster.written(link)[0][:2] == [b"BLPOP", b"a"]


def test_unblocked_by_a_client_is_passed_on() -> None:
    proxy, client = start()
    link = blocked(proxy, client)
    error = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
    link.stream.feed(error)
    assert client.hear() == error


def test_lost_pop_is_never_repeated() -> None:
    proxy, client = start()
    blocked(proxy, client).close("reset")
    assert client.hear() == MAYBE
    proxy.cluster.loop.advance(2.0)
    assert not proxy.cluster.lane.leases.making


def test_lost_xread_goes_on_where_the_stream_ended() -> None:
    proxy, client = start()
    command = [b"XREAD", b"BLOCK", b"9000", b"STREAMS", b"a", b"{a}2", b"$", b"7-0"]
    link = blocked(proxy, client, command)
    link.stream.feed(b"*1\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n")
    proxy.cluster.loop.now += 4
    link.close("reset")
    proxy.cluster.loop.advance(1.0)
    written = proxy.cluster.written(proxy.cluster.lease(2))
    assert written == [[*command[:2], b"5000", *command[3:6], b"5-1", b"7-0"]]


def test_errors_before_blocking_are_the_servers() -> None:
    proxy, client = start()
    link = blocked(proxy, client, [b"BLPOP", b"a", b"soon"])
    error = b"-ERR timeout is not a float or out of range\r\n"
    link.stream.feed(error)
    assert client.hear() == error


def test_too_many_blocked_clients() -> None:
    proxy = FakeProxy(Clients(max_blocked=1))
    proxy.client().say(*BLPOP)
    assert proxy.client().ask(*BLPOP).startswith(b"-ERR max number of blocked clients reached")


def test_keys_of_several_slots() -> None:
    _, client = start()
    assert client.ask(b"BLPOP", b"a", b"b", b"0") == CROSS_SLOT
