"""dramatiq with its Redis broker on defaults: results, delays, retries, groups, pipelines."""

from __future__ import annotations

import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from dramatiq.worker import Worker


def main(port: int) -> None:
    broker = RedisBroker(host="127.0.0.1", port=port)
    broker.add_middleware(Results(backend=RedisBackend(host="127.0.0.1", port=port)))
    dramatiq.set_broker(broker)
    tries = []

    @dramatiq.actor(store_results=True)
    def add(left: int, right: int) -> int:
        return left + right

    @dramatiq.actor(store_results=True, max_retries=3, min_backoff=10, max_backoff=20)
    def again() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("on purpose")
        return len(tries)

    worker = Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        messages = [add.send(number, 1) for number in range(40)]
        results = [message.get_result(block=True, timeout=30_000) for message in messages]
        assert results == [number + 1 for number in range(40)]
        assert (
            add.send_with_options(args=(1, 1), delay=50).get_result(block=True, timeout=30_000) == 2
        )
        assert again.send().get_result(block=True, timeout=30_000) == 3
        group = dramatiq.group([add.message(number, number) for number in range(5)]).run()
        assert list(group.get_results(block=True, timeout=30_000)) == [0, 2, 4, 6, 8]
        pipeline = add.message(1, 1) | add.message(2)
        assert pipeline.run().get_result(block=True, timeout=30_000) == 4
        broker.join("default")
    finally:
        worker.stop()
        broker.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
