"""Client-side caching: BCAST, NOLOOP and REDIRECT, and clients that come and go.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from rproxy.wire.frames import pack
from tests.engine.trackers import OK, changed, feed, message, news, read, tracker
from tests.fakes import FakeClient, FakeProxy, bulk, serve

# -- BCAST --


def test_prefixes() -> None:
    proxy = FakeProxy()
    some = tracker(proxy, b"BCAST", b"PREFIX", b"x:", b"PREFIX", b"y:")
    every = tracker(proxy, b"BCAST")
    changed(proxy, 0, b"x:1", b"x:2", b"y:1", b"z:1")
    changed(proxy, 1, b"z:2")
    assert some.hear() == news(b"x:1", b"x:2") + news(b"y:1")
    assert every.hear() == news(b"x:1", b"x:2", b"y:1", b"z:1") + news(b"z:2")
    every.ask(b"CLIENT", b"TRACKING", b"OFF")
    assert len(proxy.engine.tracking.prefixes) == 2
    some.session.close("test")
    assert not proxy.engine.tracking.prefixes


def test_keys_read_before_bcast_are_told_as_all_others() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    read(client, b"GET", b"b")
    client.ask(b"CLIENT", b"TRACKING", b"OFF")
    client.ask(b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"x")
    changed(proxy, 0, b"b")
    assert client.hear() == b""


# -- NOLOOP --


@pytest.mark.parametrize("options", [(), (b"BCAST",)])
@pytest.mark.parametrize(("now", "told"), [(b"1", False), (b"2", True)])
def test_own_write_is_told_only_if_it_was_not_the_last(
    options: tuple[bytes, ...], now: bytes, told: bool
) -> None:
    proxy = FakeProxy()
    client = tracker(proxy, b"NOLOOP", *options)
    read(client, b"GET", b"b")
    client.say(b"SET", b"b", b"1")
    changed(proxy, 0, b"b")
    serve(proxy.cluster, protocol=3)
    assert client.hear() == OK
    feed(proxy, 0).stream.feed(bulk(now))
    assert client.hear() == (news(b"b") if told else b"")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")


def test_own_write_that_cannot_be_looked_after_is_told() -> None:
    proxy = FakeProxy()
    client = tracker(proxy, b"NOLOOP", b"BCAST")
    client.say(b"SET", b"b", b"1")
    changed(proxy, 0, b"b")
    serve(proxy.cluster, protocol=3)
    assert client.hear() == OK
    feed(proxy, 0).close("test")
    assert client.hear() == news(b"b") + news()


def test_other_writes_of_a_transaction_are_told() -> None:
    proxy = FakeProxy()
    client = tracker(proxy, b"NOLOOP", b"BCAST")
    client.send(pack([b"MULTI"]) + pack([b"SET", b"b", b"1"]) + pack([b"INCR", b"{b}n"]))
    link = proxy.cluster.lease(0, 3)
    client.say(b"EXEC")
    link.stream.feed(OK + b"+QUEUED\r\n" * 2)
    changed(proxy, 0, b"b", b"{b}n")
    link.stream.feed(b"*2\r\n+OK\r\n:1\r\n")
    feed(proxy, 0).stream.feed(bulk(b"1"))
    assert client.hear() == OK + b"+QUEUED\r\n" * 2 + b"*2\r\n+OK\r\n:1\r\n" + news(b"{b}n")


def test_others_hear_of_it() -> None:
    proxy = FakeProxy()
    writer, other = tracker(proxy, b"NOLOOP"), tracker(proxy, b"NOLOOP")
    for client in (writer, other):
        read(client, b"GET", b"b")
    read(writer, b"SET", b"b", b"1")
    changed(proxy, 0, b"b")
    feed(proxy, 0).stream.feed(bulk(b"1"))
    assert (writer.hear(), other.hear()) == (b"", news(b"b"))


# -- REDIRECT --


def redirected(proxy: FakeProxy, protocol: int, target: FakeClient) -> FakeClient:
    """A client of that version whose news go to the target."""
    return tracker(proxy, b"REDIRECT", b"%d" % target.identity.id, protocol=protocol)


def test_resp2_client_is_told_by_a_message() -> None:
    proxy = FakeProxy()
    target = proxy.client()
    target.say(b"SUBSCRIBE", b"__redis__:invalidate")
    proxy.confirm(0)
    target.hear()
    client = redirected(proxy, 2, target)
    read(client, b"GET", b"b")
    client.say(b"GET", b"a")
    changed(proxy, 0, b"b")
    assert target.hear() == b""
    serve(proxy.cluster)
    assert (client.hear(), target.hear()) == (bulk(b"of a"), message(b"b"))
    changed(proxy, 0)
    assert (client.hear(), target.hear()) == (b"", message())


@pytest.mark.parametrize("protocol", [2, 3])
def test_target_of_resp3_gets_a_push(protocol: int) -> None:
    proxy = FakeProxy()
    target = proxy.client()
    target.ask(b"HELLO", b"3")
    client = redirected(proxy, protocol, target)
    read(client, b"GET", b"b")
    changed(proxy, 0, b"b")
    assert (client.hear(), target.hear()) == (b"", news(b"b"))


def test_resp2_target_that_is_not_subscribed_hears_nothing() -> None:
    proxy = FakeProxy()
    target = proxy.client()
    client = redirected(proxy, 2, target)
    read(client, b"GET", b"b")
    changed(proxy, 0, b"b")
    assert (client.hear(), target.hear()) == (b"", b"")


@pytest.mark.parametrize("protocol", [2, 3])
def test_target_that_has_gone(protocol: int) -> None:
    proxy = FakeProxy()
    target = proxy.client()
    client = redirected(proxy, protocol, target)
    read(client, b"GET", b"b")
    target.session.close("test")
    assert client.identity.flags == "t"
    changed(proxy, 0, b"b")
    broken = b">2\r\n" + bulk(b"tracking-redir-broken") + b":%d\r\n" % target.identity.id
    assert client.hear() == (broken if protocol == 3 else b"")
    assert client.identity.flags == "tR"


# -- coming and going --


def test_client_that_leaves_or_resets_is_forgotten() -> None:
    proxy = FakeProxy()
    gone, reset = tracker(proxy), tracker(proxy)
    for client in (gone, reset):
        read(client, b"GET", b"b")
    gone.session.close("test")
    assert reset.ask(b"RESET").endswith(b"+RESET\r\n")
    assert gone.identity.tracker is not None
    assert gone.identity.tracker.session is None
    assert not proxy.engine.tracking.trackers
    assert reset.identity.redirect == -1
    assert not reset.session.is_tracking
    changed(proxy, 0, b"b")
    assert reset.hear() == b""


def test_feeds_end_when_nobody_tracks() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    read(client, b"GET", b"b")
    link = feed(proxy, 0)
    proxy.cluster.loop.advance(1.0)
    client.session.close("test")
    for _ in range(12):
        proxy.cluster.loop.advance(1.0)
    assert link.stream.is_closed
    assert proxy.engine.tracking.table.keys == 0
    assert not proxy.engine.tracking.invalidations.feeds


def test_first_client_waits_for_the_feeds_but_not_for_ever() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.ask(b"HELLO", b"3")
    client.send(pack([b"CLIENT", b"TRACKING", b"ON"]) + pack([b"PING"]))
    feed(proxy, 0)
    assert client.hear() == b""
    proxy.cluster.loop.advance(10.0)
    assert client.hear() + client.hear() == OK + b"+PONG\r\n"
