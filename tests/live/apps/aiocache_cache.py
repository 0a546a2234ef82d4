"""aiocache with its Redis cache on defaults: many keys at once, counters, expiry, a namespace."""

from __future__ import annotations

import asyncio
import sys

from aiocache import RedisCache


async def main(port: int) -> None:
    async with RedisCache(endpoint="127.0.0.1", port=port, namespace="aio:") as store:
        await store.multi_set([(f"key{number}", str(number)) for number in range(20)], ttl=100)
        assert await store.multi_get([f"key{number}" for number in range(20)]) == [
            str(number) for number in range(20)
        ]
        assert await store.add("fresh", "1")
        assert await store.increment("count", 5) == 5
        assert await store.exists("fresh")
        assert await store.expire("fresh", 5)
        assert await store.delete("fresh") == 1
        assert await store.clear(namespace="aio:")
        assert await store.get("key1") is None


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
