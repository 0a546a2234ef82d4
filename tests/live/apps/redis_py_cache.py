"""redis-py with its client-side cache: what others change, delete or let expire is seen again.

redis-py asks for a server of 7.4; older ones tell of changes in the same way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import redis
import redis.connection
from redis.cache import CacheConfig

PATIENCE = 10.0
COUNTERS, ROUNDS = 5, 200


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def use_kinds(cached: redis.Redis, writer: redis.Redis) -> None:
    """Values of each kind: read into the cache, changed by another client, seen."""
    kinds: tuple[tuple[Callable[[int], object], Callable[[], object], Callable[[int], object]], ...]
    kinds = (
        (
            lambda n: writer.set("product:1", n),
            lambda: cached.get("product:1"),
            lambda n: b"%d" % n,
        ),
        (
            lambda n: writer.hset("product:2", "price", str(n)),
            lambda: cached.hgetall("product:2"),
            lambda n: {b"price": b"%d" % n},
        ),
        (
            lambda n: writer.mset({"product:1": n, "product:3": n}),
            lambda: cached.mget("product:1", "product:3"),
            lambda n: [b"%d" % n] * 2,
        ),
        (
            lambda n: writer.zadd("product:rank", {"x": n}),
            lambda: cached.zrange("product:rank", 0, -1, withscores=True),
            lambda n: [[b"x", float(n)]],
        ),
    )
    for write, read, expected in kinds:
        for number in range(10):
            write(number)
            wait_until(lambda: read() == expected(number), f"{expected(number)!r}")  # noqa: B023


def use_ends(cached: redis.Redis, writer: redis.Redis) -> None:
    """Keys that are deleted, expire, or go with all others."""
    for key in ("product:1", "product:2", "product:3"):
        writer.delete(key)
        writer.set(key, "there")
        wait_until(lambda: cached.get(key) == b"there", "the value")  # noqa: B023
    writer.delete("product:1")
    writer.pexpire("product:2", 20)
    for key in ("product:1", "product:2"):
        wait_until(lambda: cached.get(key) is None, f"{key} to be gone")  # noqa: B023
    assert cached.get("product:3") == b"there"
    writer.flushall()
    wait_until(lambda: cached.get("product:3") is None, "everything to be gone")


def use_cache(cached: redis.Redis, writer: redis.Redis) -> None:
    """What is read again and again comes to lie in the cache, and leaves it when it ends."""
    cache = cached.get_cache()
    writer.mset({f"page:{number}": number for number in range(50)})

    def all_cached() -> bool:
        for number in range(50):
            assert cached.get(f"page:{number}") == b"%d" % number
        return len([key for key in cache.collection if key.command == "GET"]) >= 50

    wait_until(all_cached, "all pages to be cached")
    writer.delete(*(f"page:{number}" for number in range(50)))
    for number in range(50):
        wait_until(lambda: cached.get(f"page:{number}") is None, "the end")  # noqa: B023


def use_counters(cached: redis.Redis, writer: redis.Redis) -> None:
    """Values that grow: what is read never goes back, and ends at the last."""
    last = dict.fromkeys((f"counter:{number}" for number in range(COUNTERS)), 0)
    for _ in range(ROUNDS):
        for key, before in last.items():
            writer.incr(key)
            last[key] = int(cached.get(key))
            assert last[key] >= before
    for key in last:
        wait_until(lambda: cached.get(key) == b"%d" % ROUNDS, "the last value")  # noqa: B023


def main(port: int) -> None:
    redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION = "6.2.0"
    with (
        redis.Redis(port=port) as writer,
        redis.Redis(port=port, protocol=3, cache_config=CacheConfig()) as cached,
    ):
        writer.flushall()
        use_kinds(cached, writer)
        use_ends(cached, writer)
        use_cache(cached, writer)
        use_counters(cached, writer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
