"""Transactions on leased links: replay, WATCH, and what may never be repeated.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from rproxy.config import Bytes, Clients, Upstream
from rproxy.routing.slots import slot_of
from rproxy.upstream.link import Link
from rproxy.wire.frames import pack
from tests.fakes import FakeClient, FakeProxy

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


# -- limits --


@pytest.mark.parametrize("value", [b"v" * 3000, b"v"])
def test_a_transaction_is_as_large_as_it_may_be(value: bytes) -> None:
    """Many small commands are large, too."""
    proxy = FakeProxy(Clients(transaction_limit=Bytes(4000)))
    client = proxy.client()
    client.say(*MULTI)
    client.say(b"SET", b"a", b"1")
    link = proxy.cluster.lease(2)
    sent = 0
    while client.session.pin is not None and client.session.pin.depth == sent + 1:
        sent += 1
        client.say(b"SET", b"a", value)
    assert 1 <= sent < 16
    link.stream.feed(OK + QUEUED * sent)
    refused = b"-ERR the transaction is too large (clients.transaction_limit)\r\n"
    assert client.hear() == OK + QUEUED * sent + refused
    proxy.cluster.written(link)
    assert client.ask(*EXEC).startswith(b"-EXECABORT")
    assert proxy.cluster.written(link) == [[b"DISCARD"]]
    assert client.session.pin is None


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


def test_second_watch_that_is_sent_away_leaves_a_clean_link() -> None:
    """Whoever has it next must not find the first watch there."""
    proxy, client = start()
    link = watched(proxy, client)
    client.say(b"WATCH", b"{a}2")
    assert proxy.cluster.written(link) == [[b"WATCH", b"{a}2"]]
    link.stream.feed(MOVED)
    assert proxy.cluster.written(link) == [[b"UNWATCH"]]
    assert client.hear() == OK
    assert client.ask(*MULTI) == OK
    assert client.ask(*EXEC) == NIL


def test_unwatch_cleans_the_link() -> None:
    proxy, client = start()
    link = watched(proxy, client)
    assert client.ask(b"UNWATCH") == OK
    assert proxy.cluster.written(link) == [[b"UNWATCH"]]
    assert client.session.pin is None
