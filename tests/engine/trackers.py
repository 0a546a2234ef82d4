"""Clients that track changes, and nodes that tell of them, for tests of client-side caching.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

from rproxy.engine.replies import encode
from rproxy.upstream.link import Link
from tests.fakes import NODES, FakeClient, FakeProxy, serve

OK = b"+OK\r\n"


def feed(proxy: FakeProxy, index: int) -> Link:
    """The node's feed of invalidations; it is up from now on."""
    found = proxy.engine.tracking.invalidations.feeds[NODES[index]]
    if found.link is None:
        found.opened(Link(proxy.cluster.tick, None, found))
    assert found.link is not None
    return found.link


def tracker(
    proxy: FakeProxy, *options: bytes, protocol: int = 3, feeds: tuple[int, ...] = (0, 1, 2)
) -> FakeClient:
    """A client with CLIENT TRACKING ON; the nodes `feeds` tell of changes, the others cannot."""
    client = proxy.client()
    client.say(b"HELLO", b"%d" % protocol)
    client.hear()
    client.say(b"CLIENT", b"TRACKING", b"ON", *options)
    invalidations = proxy.engine.tracking.invalidations
    for index, address in enumerate(NODES):
        if index in feeds:
            feed(proxy, index)
        else:
            invalidations.feeds[address]._failed("down")
    assert client.hear() == OK
    return client


def changed(proxy: FakeProxy, index: int, *keys: bytes) -> None:
    """The node tells that the keys have changed; none: all of its keys."""
    proxy.run()
    feed(proxy, index).stream.feed(news(*keys))
    proxy.run()


def news(*keys: bytes) -> bytes:
    """An invalidation as a client of RESP3 gets it."""
    return b">2\r\n$10\r\ninvalidate\r\n" + encode(list(keys) or None, 3)


def message(*keys: bytes) -> bytes:
    """The same, for a client of RESP2 to which it is redirected."""
    head = encode([b"message", b"__redis__:invalidate", b""])[: -len(b"$0\r\n\r\n")]
    return head + encode(list(keys) or None)


def read(client: FakeClient, *words: bytes) -> bytes:
    """What the client gets for a command that the nodes answer."""
    client.say(*words)
    serve(client.proxy.cluster, protocol=client.session.protocol)
    return client.hear()
