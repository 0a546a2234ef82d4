"""WAIT: every master is asked on a link of the client's own, and the least counts."""

from __future__ import annotations

from rproxy.upstream.link import Link
from tests.fakes import FakeClient, FakeProxy

WAIT = [b"WAIT", b"1", b"3000"]
REPLICA = b"-ERR WAIT cannot be used with replica instances.\r\n"


def begin(proxy: FakeProxy, *words: bytes) -> tuple[FakeClient, list[Link]]:
    """A client that waits, and its links to the three masters, which have got its command."""
    client = proxy.client()
    client.say(*words)
    links = [proxy.cluster.lease(index) for index in range(3)]
    for link in links:
        assert proxy.cluster.written(link) == [[b"PING"], list(words)]
    return client, links


def answer(links: list[Link], *replies: bytes) -> None:
    for link, reply in zip(links, replies, strict=True):
        link.stream.feed(b"+PONG\r\n" + reply)


def test_the_least_of_all_masters_counts() -> None:
    client, links = begin(FakeProxy(), *WAIT)
    answer(links, b":2\r\n", b":1\r\n", b":3\r\n")
    assert client.hear() == b":1\r\n"
    assert not client.session.is_held


def test_an_error_is_the_answer() -> None:
    client, links = begin(FakeProxy(), b"WAIT", b"1", b"x")
    answer(links, *[b"-ERR timeout is not an integer or out of range\r\n"] * 3)
    assert client.hear() == b"-ERR timeout is not an integer or out of range\r\n"


def test_a_replica_has_the_masters_asked_again_for_the_time_that_is_left() -> None:
    proxy = FakeProxy()
    client, links = begin(proxy, *WAIT)
    proxy.cluster.loop.advance(1.0)
    answer(links, b":2\r\n", REPLICA, b":2\r\n")
    assert client.hear() == b""
    assert proxy.cluster.reasons[-1].startswith("a node that was asked to wait for replicas")
    proxy.cluster.loop.advance(0.5)
    for link in links:
        assert proxy.cluster.written(link) == [[b"PING"], [b"WAIT", b"1", b"2000"]]
    answer(links, b":1\r\n", b":1\r\n", b":1\r\n")
    assert client.hear() == b":1\r\n"


def test_it_is_not_tried_for_ever() -> None:
    proxy = FakeProxy()
    client, links = begin(proxy, *WAIT)
    proxy.cluster.loop.advance(proxy.engine.config.upstream.hold_time + 1)
    answer(links, REPLICA, REPLICA, REPLICA)
    assert client.hear() == REPLICA


def test_a_client_that_leaves_is_not_asked_for_again() -> None:
    proxy = FakeProxy()
    client, links = begin(proxy, *WAIT)
    answer(links, REPLICA, REPLICA, REPLICA)
    client.session.close("it left")
    proxy.cluster.loop.advance(1.0)
    assert [proxy.cluster.written(link) for link in links] == [[], [], []]
    assert not proxy.engine.blocked


def test_unblocking_ends_it_at_every_master() -> None:
    proxy = FakeProxy()
    client, links = begin(proxy, *WAIT)
    other = proxy.client()
    assert other.ask(b"CLIENT", b"UNBLOCK", b"%d" % client.identity.id) == b":1\r\n"
    for index in range(3):
        assert proxy.cluster.sent(index) == [[b"CLIENT", b"UNBLOCK", b"77", b"TIMEOUT"]]
    answer(links, b":0\r\n", b":0\r\n", b":1\r\n")
    assert client.hear() == b":0\r\n"
