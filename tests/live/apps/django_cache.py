"""Django's cache by django-redis on its defaults: many keys at once, counters, locks, patterns."""

from __future__ import annotations

import sys

import django
from django.conf import settings
from django.core.cache import cache


def main(port: int) -> None:
    backend = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{port}/0",
    }
    settings.configure(CACHES={"default": backend})
    django.setup()
    cache.set_many({f"key{number}": number for number in range(20)}, timeout=100)
    assert cache.get_many([f"key{number}" for number in range(20)]) == {
        f"key{number}": number for number in range(20)
    }
    assert cache.get_or_set("made", lambda: {"a": [1, 2]}) == {"a": [1, 2]}
    assert cache.add("key1", 5) is False
    assert cache.incr("key1", 4) == 5
    assert cache.ttl("key1") > 0
    assert sorted(cache.keys("key1*")) == sorted(
        f"key{number}" for number in range(20) if str(number).startswith("1")
    )
    with cache.lock("lock", timeout=5):
        assert cache.delete_pattern("key*") == 20
    assert list(cache.iter_keys("key*")) == []
    cache.delete("made")
    cache.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]))
