"""Pub/Sub: who is told what, and when, however slow the nodes are.

The home of plain channels is node 0; the shard channels b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import gc

import pytest

from rproxy.config import Clients
from rproxy.probe import Probe
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.engine.subscribers import line, message, subscribed
from tests.fakes import NODES, FakeProxy, array, bulk


def test_first_subscriber_waits_for_the_node() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(pack([b"SUBSCRIBE", b"x", b"y"]) + pack([b"PING"]))
    assert client.hear() == b""
    feed = proxy.feed(0)
    assert proxy.confirm(0) == [[b"SUBSCRIBE", b"x"], [b"SUBSCRIBE", b"y"]]
    pong = array([b"pong", b""])
    assert client.hear() == line(b"subscribe", b"x", 1) + line(b"subscribe", b"y", 2) + pong
    feed.stream.feed(message(b"x", b"1"))
    assert client.hear() == message(b"x", b"1")


def test_next_subscriber_is_told_at_once() -> None:
    proxy = FakeProxy()
    subscribed(proxy, b"x")
    client = proxy.client()
    assert client.ask(b"SUBSCRIBE", b"x") == line(b"subscribe", b"x", 1)
    assert proxy.feed(0).stream.take() == b""


def test_nothing_is_heard_before_the_confirmation() -> None:
    """One of two channels is subscribed already: its messages wait for nobody."""
    proxy = FakeProxy()
    first, second = subscribed(proxy, b"x"), proxy.client()
    second.say(b"SUBSCRIBE", b"x", b"y")
    proxy.feed(0).stream.feed(message(b"x", b"1"))
    assert (first.hear(), second.hear()) == (message(b"x", b"1"), b"")
    proxy.confirm(0)
    assert second.hear() == line(b"subscribe", b"x", 1) + line(b"subscribe", b"y", 2)


def test_confirmation_comes_after_earlier_replies() -> None:
    proxy = FakeProxy()
    subscribed(proxy, b"x")
    client = proxy.client()
    client.send(pack([b"GET", b"b"]) + pack([b"SUBSCRIBE", b"x"]) + pack([b"PING"]))
    assert client.hear() == b""
    proxy.feed(0).stream.feed(message(b"x", b"too early"))
    proxy.cluster.answer(0, bulk(b"v"))
    proxy.run()
    expected = bulk(b"v") + line(b"subscribe", b"x", 1) + array([b"pong", b""])
    assert client.hear() + client.hear() == expected


@pytest.mark.parametrize("size", [1, 16383, 16384, 100_000])
def test_message_goes_to_all_in_their_versions(size: int) -> None:
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(4)]
    for number, client in enumerate(clients):
        client.say(b"HELLO", b"%d" % (2 + number % 2))
        client.hear()
        client.say(b"SUBSCRIBE", b"x")
    proxy.confirm(0)
    for client in clients:
        client.hear()
    frame = message(b"x", b"m" * size)
    proxy.feed(0).stream.feed(frame + frame)
    for number, client in enumerate(clients):
        mine = frame if number % 2 == 0 else b">" + frame[1:]
        assert client.hear() == mine + mine


def test_frames_in_any_pieces() -> None:
    """Messages of all kinds, cut at every byte."""
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    for words in ((b"PSUBSCRIBE", b"p*"), (b"SSUBSCRIBE", b"b")):
        client.say(*words)
        proxy.confirm(0)
    client.hear()
    frames = message(b"x", b"1") + array([b"pmessage", b"p*", b"pp", b"2"])
    frames += array([b"smessage", b"b", b"3"])
    for cut in range(1, len(frames)):
        proxy.feed(0).stream.feed(frames[:cut])
        proxy.feed(0).stream.feed(frames[cut:])
        assert client.hear() == frames


def test_client_that_leaves_is_forgotten() -> None:
    proxy = FakeProxy()
    there, waiting = subscribed(proxy, b"x"), proxy.client()
    waiting.say(b"SUBSCRIBE", b"x", b"y")
    for client in (there, waiting):
        client.session.close("test")
    assert proxy.confirm(0) == [
        [b"SUBSCRIBE", b"y"],
        [b"UNSUBSCRIBE", b"x"],
        [b"UNSUBSCRIBE", b"y"],
    ]
    assert proxy.engine.hub.pubsub.topics == ({}, {}, {}, {})


def test_refusal_is_told() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"SUBSCRIBE", b"x")
    proxy.feed(0).stream.feed(b"-NOPERM no\r\n")
    assert client.hear() == b"-NOPERM no\r\n"
    assert client.ask(b"PING") == b"+PONG\r\n"
    assert proxy.engine.hub.pubsub.topics[0] == {}


def test_straight_path_is_closed_to_subscribers_of_resp2() -> None:
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    assert client.ask(b"GET", b"b").startswith(b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE")
    client.say(b"UNSUBSCRIBE")
    proxy.confirm(0)
    client.hear()
    client.say(b"GET", b"b")
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]


def test_lost_feed_is_opened_again() -> None:
    noted: list[tuple[object, ...]] = []

    class Noting(Probe):
        def subscriptions_lost(self, node: str, topics: int, reason: str) -> None:
            noted.append(("lost", node, topics))

        def subscriptions_back(self, topics: int, seconds: float) -> None:
            noted.append(("back", topics, seconds))

    proxy = FakeProxy()
    client = subscribed(proxy, b"x", b"y")
    proxy.cluster.probe = Noting()
    proxy.feed(0).close_for("test")
    late = proxy.client()
    late.say(b"SUBSCRIBE", b"x")
    assert late.hear() == b""
    proxy.cluster.loop.advance(2.0)
    proxy.confirm(0)
    assert late.hear() == line(b"subscribe", b"x", 1)
    assert client.hear() == b""
    assert noted == [("lost", str(NODES[0]), 2), ("back", 2, 2.0)]


def test_unreachable_home_is_left() -> None:
    """Another master takes its place; the old feed's messages count until the new one confirms."""
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    hub = proxy.engine.hub.pubsub
    hub.stations[NODES[0]].failing = True
    hub.failed(hub.stations[NODES[0]])
    old, new = proxy.feed(0), proxy.feed(1)
    old.stream.feed(message(b"x", b"1"))
    new.stream.feed(message(b"x", b"none"))
    assert client.hear() == message(b"x", b"1")
    assert proxy.confirm(1) == [[b"SUBSCRIBE", b"x"]]
    old.stream.feed(message(b"x", b"none"))
    new.stream.feed(message(b"x", b"2"))
    assert client.hear() == message(b"x", b"2")
    assert proxy.confirm(0) == [[b"UNSUBSCRIBE", b"x"]]


def test_events_are_subscribed_everywhere_and_heard_once() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"PSUBSCRIBE", b"*")
    proxy.confirm(0)
    assert client.hear() == b""
    for index in (1, 2):
        assert proxy.confirm(index) == [[b"PSUBSCRIBE", b"*"]]
    assert client.hear() == line(b"psubscribe", b"*", 1)
    event = array([b"pmessage", b"*", b"__keyspace@0__:k", b"set"])
    plain = array([b"pmessage", b"*", b"__keyspace", b"set"])
    for index in range(3):
        proxy.feed(index).stream.feed(event + plain)
    assert client.hear() == event + plain + event + event


def test_shard_channel_follows_its_slot() -> None:
    """The node ends the subscription and names the new owner; the client sees nothing of it."""
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"SSUBSCRIBE", b"b")
    proxy.confirm(0)
    client.hear()
    proxy.feed(0).stream.feed(line(b"sunsubscribe", b"b", 0))
    assert proxy.feed(0).stream.take() == pack([b"SSUBSCRIBE", b"b"])
    proxy.feed(0).stream.feed(b"-MOVED %d node-c:3\r\n" % slot_of(b"b"))
    proxy.cluster.loop.advance(0.0)
    assert proxy.confirm(2) == [[b"SSUBSCRIBE", b"b"]]
    proxy.feed(2).stream.feed(array([b"smessage", b"b", b"1"]))
    assert client.hear() == array([b"smessage", b"b", b"1"])
    proxy.confirm(0)
    client.say(b"SUNSUBSCRIBE", b"b")
    assert proxy.confirm(2) == [[b"SUNSUBSCRIBE", b"b"]]
    assert client.hear() == line(b"sunsubscribe", b"b", 0)


def test_publisher_is_told_how_many_heard_it() -> None:
    """The node counts the worker once for the channel and once for each pattern."""
    proxy = FakeProxy()
    clients = [subscribed(proxy, b"x") for _ in range(3)]
    for client in clients[:2]:
        client.say(b"PSUBSCRIBE", b"?")
        proxy.confirm(0)
        client.hear()
    publisher = proxy.client()
    publisher.send(pack([b"PUBLISH", b"x", b"1"]) + pack([b"PUBLISH", b"none", b"1"]))
    assert len(proxy.cluster.sent(0)) == 2
    proxy.cluster.answer(0, b":3\r\n:0\r\n")
    assert publisher.hear() == b""
    assert proxy.confirm(0) == [[b"PING"]]
    assert publisher.hear() == b":6\r\n:0\r\n"


def test_out_of_step_feed_is_closed() -> None:
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    feed = proxy.feed(0)
    feed.stream.feed(line(b"subscribe", b"never asked for", 1))
    assert feed.is_closed
    assert proxy.feed(0) is not feed
    proxy.confirm(0)
    proxy.feed(0).stream.feed(message(b"x", b"1"))
    assert client.hear() == message(b"x", b"1")


# -- limits --


def test_slow_subscriber_is_dropped_alone() -> None:
    proxy = FakeProxy(Clients(subscriber_limit=100_000, subscriber_soft_limit=100_000))  # type: ignore[arg-type]
    slow, quick = subscribed(proxy, b"x"), subscribed(proxy, b"x")
    for _ in range(6):
        proxy.feed(0).stream.feed(message(b"x", b"m" * 20_000))
        quick.hear()
    assert slow.reasons == ["does not read its messages fast enough"]
    assert quick.reasons == []
    quick.say(b"PING")
    assert quick.hear() == array([b"pong", b""])


def test_soft_limit_counts_from_when_it_is_passed() -> None:
    limits = Clients(subscriber_soft_limit=50_000, subscriber_soft_time=0)  # type: ignore[arg-type]
    proxy = FakeProxy(limits)
    client = subscribed(proxy, b"x")
    for _ in range(3):
        proxy.feed(0).stream.feed(message(b"x", b"m" * 20_000))
    assert client.reasons == []
    client.hear()
    for _ in range(4):
        assert client.reasons == []
        proxy.feed(0).stream.feed(message(b"x", b"m" * 20_000))
    assert client.reasons == ["does not read its messages fast enough"]


def test_subscriptions_are_limited() -> None:
    proxy = FakeProxy(Clients(max_subscriptions=2, subscription_bytes=100))  # type: ignore[arg-type]
    client = subscribed(proxy, b"x", b"y")
    assert b"clients.max_subscriptions" in client.ask(b"PSUBSCRIBE", b"z")
    client.say(b"UNSUBSCRIBE", b"x")
    proxy.confirm(0)
    client.hear()
    assert b"clients.subscription_bytes" in client.ask(b"SUBSCRIBE", b"x" * 100)
    assert client.ask(b"SUBSCRIBE", b"y") == line(b"subscribe", b"y", 1)


def test_nothing_keeps_a_client_that_has_left() -> None:
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    client.session.close("test")
    proxy.confirm(0)
    del client
    gc.collect()
    assert not proxy.engine.clients
    proxy.feed(0).stream.feed(message(b"x", b"1"))


# -- MONITOR --


def test_monitor_merges_all_masters() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(pack([b"MONITOR"]) + pack([b"GET", b"b"]))
    way = proxy.engine.hub.monitors
    for index in range(3):
        assert client.hear() == b""
        assert proxy.confirm(index, way) == [[b"MONITOR"]]
    assert client.hear() == b"+OK\r\n-ERR Replica can't interact with the keyspace\r\n"
    for index in range(3):
        proxy.feed(index, way).stream.feed(b'+1.5 [0 1:1] "GET" "%d"\r\n' % index)
    assert client.hear().count(b"\r\n") == 3
    feed = proxy.feed(0, way)
    feed.stream.feed(b'+1.5 [0 1:1] "CLIENT" "SETNAME" "rproxy"\r\n')
    feed.stream.feed(b'+1.5 [0 1:1] "CLIENT" "SETNAME" "somebody"\r\n')
    assert client.hear() == b'+1.5 [0 1:1] "CLIENT" "SETNAME" "somebody"\r\n'
    client.say(b"RESET")
    assert client.hear() == b"+RESET\r\n"
    assert feed.is_closed
