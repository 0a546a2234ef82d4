"""RQ with its defaults: jobs, dependencies, failures, retries, registries, several queues."""

from __future__ import annotations

import sys
from datetime import timedelta

from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry


def add(left: int, right: int) -> int:
    return left + right


def fail() -> None:
    raise ValueError("on purpose")


def main(port: int) -> None:
    connection = Redis(host="127.0.0.1", port=port)
    high, low = Queue("high", connection=connection), Queue("low", connection=connection)
    jobs = [(high if number % 2 else low).enqueue(add, number, 1) for number in range(40)]
    after = low.enqueue(add, 1, 1, depends_on=jobs[:3])
    failing = low.enqueue(fail, retry=Retry(max=2))
    later = low.enqueue_in(timedelta(hours=1), add, 1, 2)
    many = low.enqueue_many([Queue.prepare_data(add, (number, number)) for number in range(5)])
    assert len(low) + len(high) == 40 + 1 + 5
    worker = SimpleWorker([high, low], connection=connection)
    assert worker.work(burst=True, logging_level="ERROR", with_scheduler=False)
    assert [job.return_value(refresh=True) for job in jobs] == [number + 1 for number in range(40)]
    assert after.return_value(refresh=True) == 2
    assert [job.return_value(refresh=True) for job in many] == [0, 2, 4, 6, 8]
    assert failing.get_status(refresh=True) == "failed"
    assert failing.id in FailedJobRegistry(queue=low)
    assert later.id in ScheduledJobRegistry(queue=low)
    assert len(FinishedJobRegistry(queue=high)) == 20
    assert failing.requeue().id == failing.id
    assert set(Queue.all(connection=connection)) == {high, low}
    assert Job.exists(later.id, connection=connection)
    for job in (*jobs, *many, after, failing, later):
        job.delete()
    assert len(low) + len(high) == 0


if __name__ == "__main__":
    import rq_jobs  # workers do not take functions of __main__

    rq_jobs.main(int(sys.argv[1]))
