"""Transactions and blocking commands: bundles, leased links, replay, and what may never be repeated.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from rproxy.config import Clients, Upstream
from rproxy.routing.slots import slot_of
from rproxy.upstream.link import Link
from rproxy.wire.frames import pack
from tests.fakes import NODES, FakeClient, FakeProxy

QUEUED = b"+QUEUED\r\n"
OK = b"+OK\r\n"
MAYBE = b"-ERR upstream connection lost; the command may have been executed\r\n"
ABORTED = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
NIL = b"*-1\r\n"
MULTI, EXEC, DISCARD = [b"MULTI"], [b"EXEC"], [b"DISCARD"]
SET = [b"SET", b"a", b"1"]
MOVED = b"-MOVED %d node-a:1\r\n" % slot_of(b"a")
ASK = b"-ASK %d node-a:1\r\n" % slot_of(b"a")
DONE = b"*1\r\n" + OK


def wire(*commands: list[bytes]) -> bytes:
    return b"".join(map(pack, commands))


def start(**options: int) -> tuple[FakeProxy, FakeClient]:
    proxy = FakeProxy(upstream=Upstream(**options))  # type: ignore[arg-type]
    return proxy, proxy.client()


def opened(proxy: FakeProxy, client: FakeClient, *commands: list[bytes]) -> Link:
    """MULTI and commands, each by itself, on a leased link; QUEUED was heard."""
    client.say(*MULTI)
    assert client.hear() == OK
    for command in commands:
        client.say(*command)
    link = proxy.cluster.lease(2)
    assert proxy.cluster.written(link) == [MULTI, *commands]
    link.stream.feed(OK + QUEUED * len(commands))
    assert client.hear() == QUEUED * len(commands)
    return link


# -- bundles --


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


# -- leased --


def test_transaction_by_single_commands() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    assert " flags=x " in client.identity.line(0.0)
    assert " multi=1 " in client.identity.line(0.0)
    client.say(*EXEC)
    assert proxy.cluster.written(link) == [EXEC]
    link.stream.feed(DONE)
    assert client.hear() == DONE
    assert " multi=-1 " in client.identity.line(0.0)
    client.send(wire(MULTI) + wire(SET))
    assert proxy.cluster.written(link) == [MULTI, SET]  # the same link, at once


def test_nothing_else_is_sent_before_exec_is_answered() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.send(wire(EXEC, [b"GET", b"a"], [b"GET", b"b"]))
    assert proxy.cluster.sent(2) == proxy.cluster.sent(0) == []
    link.stream.feed(DONE)
    assert client.hear() == DONE
    assert proxy.cluster.sent(2) == [[b"GET", b"a"]]
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]


def test_transaction_waits_for_earlier_commands() -> None:
    proxy, client = start()
    client.send(wire([b"GET", b"a"], MULTI, SET))
    assert not proxy.cluster.lane.leases.making
    proxy.cluster.answer(2, b"$1\r\n0\r\n")
    assert client.hear() == b"$1\r\n0\r\n" + OK
    link = proxy.cluster.lease(2)
    assert proxy.cluster.written(link) == [MULTI, SET]


def test_commands_without_a_key_wait_for_the_first_key() -> None:
    proxy, client = start()
    client.send(wire(MULTI, [b"PING"]))
    assert client.hear() == OK + QUEUED
    client.say(*SET)
    link = proxy.cluster.lease(2)
    assert proxy.cluster.written(link) == [MULTI, [b"PING"], SET]
    link.stream.feed(OK + QUEUED * 2)
    assert client.hear() == QUEUED


def test_another_slot_spoils_it() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.send(wire([b"GET", b"b"], EXEC))
    assert client.hear() == CROSS_SLOT + ABORTED
    assert proxy.cluster.written(link) == [DISCARD]


def test_discard() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.say(*DISCARD)
    assert client.hear() == OK
    assert proxy.cluster.written(link) == [DISCARD]
    assert repr(proxy.cluster.lane.leases) == "<Leases 0 held, 1 warm, 0 being made>"


def test_client_that_leaves_cleans_the_link() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.session.close("gone")
    assert proxy.cluster.written(link) == [DISCARD]
    assert repr(proxy.cluster.lane.leases) == "<Leases 0 held, 1 warm, 0 being made>"


def test_too_many_leases() -> None:
    proxy, client = start(max_leased=1)
    opened(proxy, client, SET)
    other = proxy.client()
    other.send(wire(MULTI, SET))
    assert other.hear().startswith(OK + b"-ERR max number of links")
    assert other.ask(*EXEC) == ABORTED


# -- replay --


def test_moved_while_queueing() -> None:
    """The client sees QUEUED; everything runs at the new owner."""
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.say(*SET)
    link.stream.feed(MOVED)
    assert proxy.cluster.written(link) == [SET, DISCARD]
    assert client.hear() == b""
    target = proxy.cluster.lease(0)
    assert proxy.cluster.written(target) == [MULTI, SET, SET]
    target.stream.feed(OK + QUEUED * 2)
    assert client.hear() == QUEUED
    client.say(*EXEC)
    target.stream.feed(b"*2\r\n" + OK * 2)
    assert client.hear() == b"*2\r\n" + OK * 2


@pytest.mark.parametrize("error", [MOVED, ASK])
def test_redirected_at_exec(error: bytes) -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.say(*EXEC)
    link.stream.feed(error)
    target = proxy.cluster.lease(0)
    asking = [[b"ASKING"]] if error is ASK else []
    assert proxy.cluster.written(target) == [*asking, MULTI, SET, EXEC]
    target.stream.feed(OK * len(asking) + OK + QUEUED + DONE)
    assert client.hear() == DONE
    assert client.session.pin is None
    assert not client.session.is_held


def test_patience() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.say(*EXEC)
    link.stream.feed(b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n")
    proxy.cluster.written(link)
    assert client.hear() == b""
    proxy.cluster.loop.advance(1.0)
    assert proxy.cluster.written(link) == [MULTI, SET, EXEC]  # given back, and taken again
    link.stream.feed(OK + QUEUED + DONE)
    assert client.hear() == DONE


def test_patience_ends_with_the_servers_error() -> None:
    proxy, client = start(hold_time=1)
    link = opened(proxy, client, SET)
    error = b"-CLUSTERDOWN The cluster is down\r\n"
    client.say(*EXEC)
    proxy.cluster.written(link)
    link.stream.feed(error)
    for _ in range(20):
        proxy.cluster.loop.advance(0.6)
        if proxy.cluster.written(link) == [MULTI, SET, EXEC]:
            link.stream.feed(OK + QUEUED + error)
    assert client.hear() == error
    assert client.session.pin is None


def test_link_lost_while_queueing() -> None:
    proxy, client = start()
    opened(proxy, client, SET).close("reset")
    client.say(*SET)
    link = proxy.cluster.lease(2)
    assert proxy.cluster.written(link) == [MULTI, SET, SET]


def test_link_lost_with_exec() -> None:
    """It may have been executed: never again."""
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.say(*EXEC)
    proxy.cluster.written(link)
    link.close("reset")
    assert client.hear() == MAYBE
    assert not proxy.cluster.lane.leases.making


def test_link_lost_before_exec_was_written() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    client.say(*EXEC)
    link.close("reset")
    proxy.cluster.loop.advance(1.0)
    assert proxy.cluster.written(proxy.cluster.lease(2)) == [MULTI, SET, EXEC]


def test_idle_transaction_gives_its_link_back() -> None:
    proxy, client = start(idle_transaction_timeout=10)
    link = opened(proxy, client, SET)
    leases = proxy.cluster.lane.leases
    leases.sweep(client.session.active_at + 9)
    assert proxy.cluster.written(link) == []
    leases.sweep(client.session.active_at + 11)
    assert proxy.cluster.written(link) == [DISCARD]
    client.say(*EXEC)
    assert proxy.cluster.written(link) == [MULTI, SET, EXEC]


# -- WATCH --


def watched(proxy: FakeProxy, client: FakeClient) -> Link:
    client.say(b"WATCH", b"a")
    link = proxy.cluster.lease(2)
    assert proxy.cluster.written(link) == [[b"WATCH", b"a"]]
    link.stream.feed(OK)
    assert client.hear() == OK
    return link


def test_watch_and_exec_share_a_link() -> None:
    proxy, client = start()
    link = watched(proxy, client)
    client.say(b"GET", b"a")
    assert proxy.cluster.sent(2) == [[b"GET", b"a"]]
    proxy.cluster.answer(2, b"$-1\r\n")
    client.send(wire(MULTI, SET, EXEC))
    assert proxy.cluster.written(link) == [MULTI, SET, EXEC]
    link.stream.feed(OK + QUEUED + NIL)
    assert client.hear() == b"$-1\r\n" + OK + QUEUED + NIL


def test_watch_of_another_slot() -> None:
    proxy, client = start()
    watched(proxy, client)
    assert client.ask(b"WATCH", b"b") == CROSS_SLOT
    client.send(wire(MULTI, [b"SET", b"b", b"1"], EXEC))
    assert client.hear() == OK + CROSS_SLOT + ABORTED


def test_lost_watch_makes_exec_nil() -> None:
    proxy, client = start()
    watched(proxy, client).close("reset")
    client.send(wire(MULTI, SET, EXEC))
    assert client.hear() == OK + QUEUED + NIL


@pytest.mark.parametrize("error", [MOVED, ABORTED.replace(b"EXECABORT", b"CLUSTERDOWN")])
def test_redirect_with_watch_makes_exec_nil(error: bytes) -> None:
    proxy, client = start()
    link = watched(proxy, client)
    client.send(wire(MULTI, SET))
    link.stream.feed(OK + error + OK)
    assert client.hear() == OK + QUEUED
    assert client.ask(*EXEC) == NIL


def test_unwatch_cleans_the_link() -> None:
    proxy, client = start()
    link = watched(proxy, client)
    assert client.ask(b"UNWATCH") == OK
    assert proxy.cluster.written(link) == [[b"UNWATCH"]]
    assert client.session.pin is None


# -- blocking commands --

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
    link.stream.feed(
        b"-UNBLOCKED force unblock from blocking operation, instance state changed\r\n"
    )
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
