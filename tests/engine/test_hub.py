"""The Hub: nobody is counted who has left, and nobody waits for a node for long."""

from __future__ import annotations

import pytest

from rproxy.wire.frames import pack
from tests.engine.subscribers import HOLD, line, subscribed
from tests.fakes import FakeProxy


def test_last_one_to_leave_waits_for_the_node() -> None:
    proxy = FakeProxy()
    first, last = subscribed(proxy, b"x"), subscribed(proxy, b"x")
    assert first.ask(b"UNSUBSCRIBE", b"x") == line(b"unsubscribe", b"x", 0)
    assert last.ask(b"UNSUBSCRIBE", b"x") == b""
    assert proxy.confirm(0) == [[b"UNSUBSCRIBE", b"x"]]
    assert last.hear() == line(b"unsubscribe", b"x", 0)


@pytest.mark.parametrize(
    ("begin", "end", "publish"),
    [
        (b"SUBSCRIBE b", b"UNSUBSCRIBE", b"PUBLISH b m"),
        (b"PSUBSCRIBE b*", b"PUNSUBSCRIBE", b"PUBLISH bb m"),
        (b"SSUBSCRIBE b", b"SUNSUBSCRIBE", b"SPUBLISH b m"),
    ],
)
def test_who_publishes_to_what_is_just_left_waits_for_the_node(
    begin: bytes, end: bytes, publish: bytes
) -> None:
    proxy = FakeProxy()
    listener, publisher = proxy.client(), proxy.client()
    listener.say(*begin.split())
    proxy.confirm(0)
    listener.say(end)
    publisher.send(pack(publish.split()) + pack([b"PING"]))
    other = proxy.client()
    other.say(b"PUBLISH", b"x", b"m")
    assert proxy.cluster.sent(0) == [[b"PUBLISH", b"x", b"m"]]
    proxy.confirm(0)
    assert proxy.cluster.sent(0) == [publish.split()]
    proxy.cluster.answer(0, b":0\r\n:0\r\n")
    assert publisher.hear() == b":0\r\n+PONG\r\n"


def test_who_asks_for_numbers_waits_until_nobody_leaves() -> None:
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    client.say(b"UNSUBSCRIBE")
    asker = proxy.client()
    asker.say(b"PUBSUB", b"NUMSUB", b"y")
    assert [proxy.cluster.sent(index) for index in range(3)] == [[]] * 3
    proxy.confirm(0)
    assert all(proxy.cluster.sent(index) for index in range(3))


def test_a_node_that_does_not_confirm_keeps_publishers_for_a_while() -> None:
    proxy = FakeProxy()
    subscribed(proxy, b"x").say(b"UNSUBSCRIBE")
    publisher = proxy.client()
    publisher.say(b"PUBLISH", b"x", b"m")
    assert proxy.cluster.sent(0) == []
    proxy.cluster.loop.advance(HOLD)
    assert proxy.cluster.sent(0) == [[b"PUBLISH", b"x", b"m"]]
    proxy.confirm(0)


def test_silent_node_keeps_nobody_for_long() -> None:
    proxy = FakeProxy()
    client = subscribed(proxy, b"x")
    assert client.ask(b"UNSUBSCRIBE", b"x") == b""
    proxy.cluster.loop.advance(HOLD)
    assert client.hear() == line(b"unsubscribe", b"x", 0)
    client.say(b"SUBSCRIBE", b"y")
    proxy.cluster.loop.advance(HOLD)
    assert client.hear().startswith(b"-CLUSTERDOWN no node has confirmed")
    assert client.ask(b"PING") == b"+PONG\r\n"
    assert [words[0] for words in proxy.confirm(0)] == [
        *[b"UNSUBSCRIBE", b"SUBSCRIBE", b"UNSUBSCRIBE"]
    ]
