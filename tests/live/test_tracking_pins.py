"""Client-side caching of pinned keys: what a plain server tells its clients of them.

The conversations of test_tracking.py, and more, with keys that the proxy pins: the replies and the
news must be those of a plain server, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from rproxy.routing.slots import slot_of
from tests.live.plain import Plain
from tests.live.proxies import Proxy, running
from tests.live.test_pins import pinning
from tests.live.test_tracking import CONVERSATIONS, PATIENCE, cached, hold, masters, sees
from tests.live.test_tracking import _any_version as _any_version

PINNED = {
    "prefixes": """
        a HELLO 3
        b MSET k-1 1 k-22 2
        a CLIENT TRACKING ON BCAST PREFIX k-1 PREFIX k-2
        b MSET k-1 1 k-22 2 k-3 3
        a 2
        b SET k-3 4
        a CLIENT TRACKINGINFO
        a CLIENT TRACKING ON BCAST PREFIX k
        a CLIENT TRACKING ON BCAST PREFIX {k
        b SET k-2 3
        a 3
    """,
    "a shorter prefix": """
        a HELLO 3
        a CLIENT TRACKING ON BCAST PREFIX k
        b MSET k-1 1 k-2 2
        a 1
        b SET kx 1
        a 2
        b SET xk 1
        b SET {k-}x 1
        a CLIENT TRACKINGINFO
        b SET k- 2
        a 3
    """,
    "no prefix": """
        a HELLO 3
        a CLIENT TRACKING ON BCAST NOLOOP
        b SET k-1 1
        a 1
        a SET k-1 2
        a MSET k-2 1 k-3 2
        a DEL k-1
        b SET x 1
        a 2
        b RENAME k-2 k-4
        a 3
    """,
    "keys of several slots": """
        a HELLO 3
        b RPUSH k-l 3 1 2
        b SADD k-s 1 2
        a CLIENT TRACKING ON
        a LRANGE k-l 0 -1
        a SINTER k-s k-t
        a 0
        b SORT k-l STORE k-m
        b SINTERSTORE k-t k-s k-s
        b SUNIONSTORE k-t k-s
        a 1
        a LRANGE k-m 0 -1
        a EVAL "return redis.call('lrange', KEYS[1], 0, -1)" 1 k-m
        b LMOVE k-m k-n LEFT RIGHT
        a 2
    """,
    "streams": """
        a HELLO 3
        b XADD k-s 1-1 f v
        b XADD k-t 1-1 f v
        a CLIENT TRACKING ON
        a XREAD STREAMS k-s k-t 0 0
        b XADD k-s 2-1 f v
        a 1
        b XADD k-t 2-1 f v
        a 2
        a XREAD STREAMS k-s 2-1
        b DEL k-s
        a 3
    """,
    "transactions on many keys": """
        a HELLO 3
        a CLIENT TRACKING ON
        a WATCH k-1 k-2
        a MULTI
        a MGET k-1 k-2
        a SET k-3 1
        a EXEC
        b SET k-1 x
        a 1
        b SET k-2 x
        a 2
        b SET k-3 x
        a WATCH k-1
        b SET k-1 y
        a MULTI
        a GET k-1
        a EXEC
    """,
    "optin of many keys": """
        a HELLO 3
        a CLIENT TRACKING ON OPTIN
        a GET k-1
        a CLIENT CACHING YES
        a MGET k-2 k-3
        b MSET k-1 3 k-2 4
        a 1
        a CLIENT TRACKINGINFO
    """,
    "redirected prefixes": """
        t SUBSCRIBE __redis__:invalidate
        a CLIENT TRACKING ON REDIRECT THERE BCAST PREFIX k PREFIX x
        b MSET k-1 1 k-2 2
        t 1
        b SET x 1
        t 2
        a CLIENT TRACKINGINFO
        a CLIENT TRACKING OFF
        a CLIENT TRACKING ON REDIRECT THERE OPTOUT
        a GET k-1
        b SET k-1 2
        t 3
    """,
}
"""As in test_tracking.py."""

ALL = {f"as before: {name}": text.replace("{k}", "k-") for name, text in CONVERSATIONS.items()}
ALL |= PINNED
"""With keys of which those with the prefix `k-` share a slot."""


@pytest.fixture(scope="module")
def pinned(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that pins the keys that begin with `k-`."""
    with running(cluster, config=pinning("k-")) as started:
        yield started


@pytest.fixture(scope="module")
def all_pinned(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that pins every key to one slot."""
    with running(cluster, config=pinning("", tag="p")) as started:
        yield started


@pytest.mark.parametrize("name", ALL)
def test_as_a_plain_server(pinned: Proxy, plain: Plain, name: str) -> None:
    found, expected = (hold(port, ALL[name]) for port in (pinned.port, plain.port))
    if name == "as before: several slots":  # the nodes tell of it one by one
        for _, news in (*found.values(), *expected.values()):
            news.sort()
    assert found == expected


@pytest.mark.parametrize("name", CONVERSATIONS | PINNED)
def test_every_key_pinned(all_pinned: Proxy, plain: Plain, name: str) -> None:
    conversation = (CONVERSATIONS | PINNED)[name]
    found, expected = (hold(port, conversation) for port in (all_pinned.port, plain.port))
    assert found == expected


def test_redis_py_reads_from_its_cache(pinned: Proxy) -> None:
    writer = pinned.client()
    with cached(pinned) as client:
        cache: Any = client.get_cache()
        for number in range(20):
            key = f"k-{number}"
            for value in (b"old", b"new"):
                writer.set(key, value)
                wait_until(sees(client, key, value), PATIENCE, "the value")
        assert {key.redis_keys for key in cache.collection} <= {(f"k-{n}",) for n in range(20)}


def test_cache_while_the_slot_moves(own: LocalCluster) -> None:
    slot = slot_of(b"{k-}")
    with running(own, config=pinning("k-")) as front, cached(front) as client:
        writer = front.client()
        for number in range(2):
            writer.set("k-moving", b"old %d" % number)
            wait_until(sees(client, "k-moving", b"old %d" % number), PATIENCE, "the old value")
            owner = own.slot_owner(slot)
            own.migrate_slot(slot, next(n for n in masters(own) if n is not owner).port)
            writer.set("k-moving", b"new %d" % number)
            wait_until(sees(client, "k-moving", b"new %d" % number), PATIENCE, "the new value")
