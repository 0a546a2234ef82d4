"""Celery with Redis as broker and result backend, on its defaults.

Tasks, retries, groups, chords, chains, countdowns, priorities, remote control.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker

app = Celery("apps")


@app.task(name="apps.add")
def add(left: int, right: int) -> int:
    return left + right


@app.task(name="apps.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, name="apps.again", max_retries=3)
def again(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.01)
    retries: int = self.request.retries
    return retries


@app.task(name="apps.fail")
def fail() -> None:
    raise ValueError("on purpose")


def main(port: int) -> None:
    address = f"redis://127.0.0.1:{port}/0"
    app.conf.update(broker_url=address, result_backend=address)
    with start_worker(app, perform_ping_check=False, concurrency=2, pool="threads"):
        results = [add.delay(number, 1) for number in range(40)]
        assert [result.get(30) for result in results] == [number + 1 for number in range(40)]
        assert group(add.s(number, number) for number in range(10))().get(timeout=30) == [
            2 * number for number in range(10)
        ]
        assert chord((add.s(number, 1) for number in range(10)), total.s())().get(timeout=30) == 55
        assert chain(add.s(1, 1), add.s(2))().get(timeout=30) == 4
        assert again.delay().get(timeout=30) == 2
        assert isinstance(fail.apply_async().get(timeout=30, propagate=False), ValueError)
        assert add.apply_async((1, 1), countdown=0.2).get(timeout=30) == 2
        assert add.apply_async((1, 2), priority=6).get(timeout=30) == 3
        assert app.control.ping(timeout=5)
        results[0].forget()
    assert app.control.purge() == 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
