"""Client-side caching: what a plain server tells its clients, they are told through the proxy, too.

Conversations of several connections go to a plain server and through the proxy. The replies of each
connection must be the same, and so must the news of changes that it hears. Then redis-py's own
cache in a cluster whose slots move and whose nodes die.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis
import redis.connection
from redis.cache import CacheConfig

from rproxy.demo import LocalCluster
from rproxy.demo_servers import NodeProcess, wait_until
from rproxy.routing.slots import slot_of
from rproxy.wire.inline import split_words
from tests.conftest import ClusterMaker
from tests.live.plain import Plain
from tests.live.proxies import Proxy, Wire, running

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""

SETTLE = 0.01
"""Seconds between two commands: news of one may come a moment after its reply."""

NEWS = (b">2\r\n", b"*3\r\n$7\r\nmessage\r\n")
"""How news begin, and nothing else in these conversations."""

# Each line is "connection command"; "a 2" waits until a has heard two pieces of news. THERE in a
# command is the id of the connection t.
CONVERSATIONS = {
    "default": """
        a HELLO 3
        b MSET {k}1 1 {k}2 2
        a CLIENT TRACKING ON
        a GET {k}1
        a MGET {k}1 {k}2
        b SET {k}1 x
        a 1
        b SET {k}1 y
        b DEL {k}2
        a 2
        a GET {k}1
        a CLIENT TRACKING OFF
        b SET {k}1 z
    """,
    "own writes": """
        a HELLO 3
        a CLIENT TRACKING ON
        a GET {k}1
        a SET {k}1 2
        a 1
        a HSET {k}h f 1
        a HGET {k}h f
        a HDEL {k}h f
        a 2
    """,
    "several slots": """
        a HELLO 3
        a CLIENT TRACKING ON
        a MGET x y z
        b MSET x 1 y 2 z 3 v 4
        a 3
        b DEL x y z
    """,
    "optin": """
        a HELLO 3
        a CLIENT TRACKING ON OPTIN
        a GET {k}1
        a CLIENT CACHING YES
        a GET {k}2
        b MSET {k}1 3 {k}2 4
        a 1
        a CLIENT TRACKINGINFO
        a CLIENT CACHING NO
        a CLIENT TRACKING ON OPTOUT
    """,
    "optout": """
        a HELLO 3
        a CLIENT TRACKING ON OPTOUT
        a GET {k}1
        a CLIENT CACHING NO
        a GET {k}2
        b MSET {k}1 3 {k}2 4
        a 1
        a CLIENT CACHING YES
        a CLIENT TRACKINGINFO
    """,
    "noloop": """
        a HELLO 3
        a CLIENT TRACKING ON NOLOOP
        a MGET {k}1 {k}2
        a SET {k}1 9
        b SET {k}2 8
        a 1
        a CLIENT TRACKINGINFO
    """,
    "bcast": """
        a HELLO 3
        a CLIENT TRACKING ON BCAST PREFIX {k}1 PREFIX {k}2
        b SET {k}11 1
        a 1
        b SET {k}3 1
        b SET {k}22 1
        a 2
        a SET {k}1 1
        a 3
        a CLIENT TRACKING ON BCAST PREFIX {k}22
        a CLIENT TRACKING ON BCAST PREFIX {k}4
        b MSET {k}41 1 {k}42 2 {k}5 3
        a 4
        a CLIENT TRACKINGINFO
        a CLIENT TRACKING ON
    """,
    "bcast noloop": """
        a HELLO 3
        a CLIENT TRACKING ON BCAST NOLOOP
        a SET {k}1 1
        b SET {k}2 1
        a 1
        a SET {k}2 2
        a DEL {k}2
        a MSET {k}3 3 {k}4 4
        b SET {k}1 2
        a 2
    """,
    "expiry": """
        a HELLO 3
        b SET {k}1 1
        a CLIENT TRACKING ON
        a GET {k}1
        b PEXPIRE {k}1 100
        a 1
        a GET {k}1
        a 2
        a GET {k}1
    """,
    "transactions": """
        a HELLO 3
        b MSET {k}1 1 {k}2 2
        a CLIENT TRACKING ON
        a MULTI
        a GET {k}1
        a GET {k}2
        a EXEC
        b INCR {k}1
        a 1
        a MULTI
        a INCR {k}2
        a GET {k}1
        a EXEC
        a 2
        b INCR {k}1
        a 3
    """,
    "scripts": """
        a HELLO 3
        b SET {k}1 1
        a CLIENT TRACKING ON
        a EVAL "return redis.call('get', KEYS[1])" 1 {k}1
        b SET {k}1 2
        a 1
        b EVAL "return redis.call('set', KEYS[1], 3)" 1 {k}1
        a GET {k}1
        b EVAL "return redis.call('set', KEYS[1], 3)" 1 {k}1
        a 2
    """,
    "everything": """
        a HELLO 3
        a CLIENT TRACKING ON
        a GET {k}1
        b FLUSHALL
        a 1
        a GET {k}1
        b FLUSHDB
        a 2
    """,
    "redirected": """
        t SUBSCRIBE __redis__:invalidate
        b SET {k}1 1
        a CLIENT TRACKING ON REDIRECT THERE
        a CLIENT GETREDIR
        a GET {k}1
        b SET {k}1 2
        t 1
        a GET {k}1
        b FLUSHALL
        t 2
        a CLIENT TRACKING ON REDIRECT THERE BCAST
        a CLIENT TRACKING OFF
        a CLIENT TRACKING ON REDIRECT THERE BCAST PREFIX {k}
        b MSET {k}1 1 x{k} 2
        t 3
        a CLIENT TRACKINGINFO
    """,
    "redirected to RESP3": """
        t HELLO 3
        a CLIENT TRACKING ON REDIRECT THERE
        a GET {k}1
        b SET {k}1 2
        t 1
        a HELLO 3
        a GET {k}1
        b SET {k}1 3
        t 2
    """,
    "target gone": """
        a HELLO 3
        a CLIENT TRACKING ON REDIRECT THERE
        a GET {k}1
        t QUIT
        b SET {k}1 2
        a 1
        a CLIENT TRACKINGINFO
        a CLIENT TRACKING ON REDIRECT THERE
    """,
    "reset": """
        a HELLO 3
        a CLIENT TRACKING ON
        a GET {k}1
        a RESET
        a HELLO 3
        b SET {k}1 2
        a CLIENT TRACKINGINFO
    """,
}


class Talk:
    """One connection of a conversation: its replies in order, and the news that it hears."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.replies: list[bytes] = []
        self.news: list[bytes] = []
        wire.send(b"CLIENT", b"ID")
        self.id = wire.reply()[1:-2]

    def read(self) -> bool:
        """Take the next frame; whether it is a reply."""
        frame = self.wire.reply()
        is_news = frame.startswith(NEWS)
        (self.news if is_news else self.replies).append(frame)
        return not is_news

    def ask(self, words: list[bytes]) -> None:
        """Send a request and read up to its reply; what HELLO tells, two servers tell apart."""
        self.wire.send(*words)
        while not self.read():
            pass
        if words[0] == b"HELLO":
            self.replies.pop()

    def wait(self, count: int) -> None:
        """Read until so many news have come."""
        while len(self.news) < count:
            self.read()


def hold(port: int, conversation: str) -> dict[str, tuple[list[bytes], ...]]:
    """What each connection hears: its replies, and the news."""
    with ExitStack() as stack:
        talks = {who: Talk(stack.enter_context(Wire(port))) for who in "abt"}
        there = talks["t"].id
        talks["b"].ask([b"FLUSHALL"])
        for line in filter(None, map(str.strip, conversation.splitlines())):
            talk, words = talks[line[0]], split_words(line[2:].encode())
            assert words is not None
            if words[0].isdigit():
                talk.wait(int(words[0]))
            else:
                talk.ask([there if word == b"THERE" else word for word in words])
            time.sleep(SETTLE)
        with suppress(EOFError):
            for who in "abt":
                talks[who].ask([b"PING"])
        here, plainly = b":%b\r\n" % there, b":THERE\r\n"
        return {
            who: tuple([f.replace(here, plainly) for f in part] for part in (t.replies, t.news))
            for who, t in talks.items()
        }


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_as_a_plain_server(proxy: Proxy, plain: Plain, name: str) -> None:
    found, expected = (hold(port, CONVERSATIONS[name]) for port in (proxy.port, plain.port))
    if name == "several slots":  # the nodes tell of it one by one
        for _, news in (*found.values(), *expected.values()):
            news.sort()
    assert found == expected


# -- redis-py's own cache --


@pytest.fixture(autouse=True)
def _any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py uses its cache with servers of 7.4 and newer only, by what HELLO says; older ones
    tell of changes in the same way.
    """
    monkeypatch.setattr(redis.connection.CacheProxyConnection, "MIN_ALLOWED_VERSION", "6.2.0")


@contextmanager
def cached(proxy: Proxy) -> Iterator[redis.Redis]:
    """A client of redis-py with a cache of its own, as its documentation shows it."""
    client = proxy.client(protocol=3, cache_config=CacheConfig())
    with client:
        yield client


def sees(client: redis.Redis, key: str, value: bytes) -> Callable[[], bool]:
    """Whether the client reads the value now."""
    return lambda: client.get(key) == value


def test_redis_py_reads_from_its_cache(proxy: Proxy) -> None:
    writer = proxy.client()
    with cached(proxy) as client:
        cache: Any = client.get_cache()
        for number in range(20):
            key, value = f"cached:{number}", b"%d" % number
            writer.set(key, value)
            wait_until(sees(client, key, value), PATIENCE, "the value")
        wait_until(lambda: _all_cached(client, cache), PATIENCE, "all values to be cached")
        for number in range(20):
            writer.set(f"cached:{number}", b"new")
        for number in range(20):
            wait_until(sees(client, f"cached:{number}", b"new"), PATIENCE, "the new value")


def _all_cached(client: redis.Redis, cache: Any) -> bool:
    for number in range(20):
        client.get(f"cached:{number}")
    return len(cache.collection) == 20


def masters(cluster: LocalCluster) -> list[NodeProcess]:
    return [n for n in cluster.nodes if n.alive and n.call("ROLE")[0] == b"master"]


def test_cache_while_a_slot_moves(own: LocalCluster, front: Proxy) -> None:
    writer, slot = front.client(), slot_of(b"moving")
    with cached(front) as client:
        for number in range(4):
            writer.set("moving", b"old %d" % number)
            wait_until(sees(client, "moving", b"old %d" % number), PATIENCE, "the old value")
            owner = own.slot_owner(slot)
            own.migrate_slot(slot, next(n for n in masters(own) if n is not owner).port)
            writer.set("moving", b"new %d" % number)
            wait_until(sees(client, "moving", b"new %d" % number), PATIENCE, "the new value")


def test_cache_while_a_node_dies(new_cluster: ClusterMaker) -> None:
    with new_cluster(masters=3, replicas=1) as cluster, running(cluster) as front:
        writer = front.client()
        with cached(front) as client:
            writer.set("dying", b"old")
            wait_until(sees(client, "dying", b"old"), PATIENCE, "the old value")
            cluster.slot_owner(slot_of(b"dying")).kill()
            wait_until(lambda: _written(writer), PATIENCE, "the new master")
            wait_until(sees(client, "dying", b"new"), PATIENCE, "the new value")


def _written(writer: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(writer.set("dying", b"new"))
    return False
