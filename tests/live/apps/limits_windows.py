"""limits on its defaults: fixed, moving and sliding windows, which are Lua scripts."""

from __future__ import annotations

import sys

import limits
from limits import strategies


def main(port: int) -> None:
    store = limits.storage.storage_from_string(f"redis://127.0.0.1:{port}")
    assert store.check()
    for strategy in (
        strategies.FixedWindowRateLimiter,
        strategies.MovingWindowRateLimiter,
        strategies.SlidingWindowCounterRateLimiter,
    ):
        limiter = strategy(store)
        limit = limits.parse("5/hour")
        hits = [limiter.hit(limit, strategy.__name__, "user") for _ in range(7)]
        assert hits == [True] * 5 + [False] * 2
        assert limiter.get_window_stats(limit, strategy.__name__, "user").remaining == 0
        limiter.clear(limit, strategy.__name__, "user")
        assert limiter.test(limit, strategy.__name__, "user")
    store.reset()


if __name__ == "__main__":
    main(int(sys.argv[1]))
