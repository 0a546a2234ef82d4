"""arq with its defaults: jobs, results, a deferred and a unique job, retries."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from arq import Retry, create_pool
from arq.connections import RedisSettings
from arq.jobs import Job, JobStatus
from arq.worker import Worker


async def add(ctx: dict[str, Any], left: int, right: int) -> int:
    return left + right


async def twice(ctx: dict[str, Any]) -> int:
    if ctx["job_try"] < 2:
        raise Retry(defer=0.01)
    tries: int = ctx["job_try"]
    return tries


async def main(port: int) -> None:
    pool = await create_pool(RedisSettings(port=port))
    jobs = [await pool.enqueue_job("add", number, 1) for number in range(40)]
    unique = await pool.enqueue_job("add", 1, 2, _job_id="only")
    assert unique is not None
    assert await pool.enqueue_job("add", 1, 2, _job_id="only") is None
    later = await pool.enqueue_job("add", 1, 1, _defer_by=3600)
    again = await pool.enqueue_job("twice")
    assert later is not None
    assert again is not None
    assert len(await pool.queued_jobs()) == 43
    await pool.zrem("arq:queue", later.job_id)
    worker = Worker(
        [add, twice], redis_pool=pool, burst=True, poll_delay=0.01, handle_signals=False
    )
    await worker.main()
    assert worker.jobs_complete == 42
    assert [await job.result() for job in jobs if job] == [number + 1 for number in range(40)]
    assert await again.result() == 2
    assert await unique.status() == JobStatus.complete
    assert await later.status() == JobStatus.not_found
    assert await Job("none", pool).status() == JobStatus.not_found
    assert len(await pool.all_job_results()) == 42
    assert sorted(await pool.keys("arq:result:o*")) == [b"arq:result:only"]
    await worker.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
