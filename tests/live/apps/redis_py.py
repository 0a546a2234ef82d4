"""redis-py on its defaults: transactions, WATCH, locks, Pub/Sub, scripts, asyncio."""

from __future__ import annotations

import asyncio
import sys

import redis
import redis.asyncio


def use_sync(client: redis.Redis) -> None:
    """The client that waits."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("account:{1}:balance", 10).incrby("account:{1}:balance", 5).get(
            "account:{1}:balance"
        )
        assert pipeline.execute() == [True, 15, b"15"]

    def take(pipeline: redis.client.Pipeline) -> None:
        left = int(pipeline.get("account:{1}:balance"))
        pipeline.multi()
        pipeline.set("account:{1}:balance", left - 5)

    assert client.transaction(take, "account:{1}:balance") == [True]
    with client.lock("lock", timeout=5, blocking_timeout=5) as lock:
        assert lock.owned()
        assert not client.lock("lock", timeout=5).acquire(blocking=False)
        lock.extend(5)
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("channel")
        pubsub.psubscribe("chan*")
        assert [pubsub.get_message(timeout=5) for _ in range(2)] == [None, None], "subscribed"
        heard: list[str] = []
        assert client.publish("channel", "hello") == 2
        while len(heard) < 2:
            message = pubsub.get_message(timeout=5)
            heard += [message["type"]] if message else []
        assert sorted(heard) == ["message", "pmessage"]
    client.rpush("list", "a", "b")
    assert list(client.blpop("list", timeout=1) or ()) == [b"list", b"a"]
    script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert [script(["counter"], [2]), script(["counter"], [3])] == [2, 5]
    client.mset({f"key:{number}": number for number in range(100)})
    assert client.mget([f"key:{number}" for number in range(100)]) == [
        str(number).encode() for number in range(100)
    ]
    assert len(list(client.scan_iter("key:*", count=7))) == 100
    assert client.delete(*(f"key:{number}" for number in range(100))) == 100


async def use_async(port: int) -> None:
    """The client of asyncio."""
    async with redis.asyncio.Redis(port=port) as client:
        await asyncio.gather(*(client.set(f"async:{number}", number) for number in range(100)))
        async with client.pipeline(transaction=True) as pipeline:
            found = await pipeline.get("async:1").execute()
        assert found == [b"1"]
        async with client.lock("async:lock", timeout=5):
            assert await client.exists("async:lock")
        async with client.pubsub() as pubsub:
            await pubsub.subscribe("async")
            await pubsub.get_message(timeout=5)
            await client.publish("async", "x")
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            assert message is not None
            assert message["data"] == b"x"
        assert await client.delete(*(f"async:{number}" for number in range(100))) == 100


def main(port: int) -> None:
    with redis.Redis(port=port) as client:
        use_sync(client)
    asyncio.run(use_async(port))


if __name__ == "__main__":
    main(int(sys.argv[1]))
