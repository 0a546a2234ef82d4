"""No job is lost and none is done twice: queues behind rproxy, while everything around them dies.

Producers put 1,000 jobs into each queue. Workers take a job with BLMOVE into a list of their own
and finish it with a script that removes it there and counts it, so that a job whose reply got lost
can be finished again without being counted twice. Whoever loses its connection begins anew, and
first gives back what it had. Meanwhile processes of rproxy are killed, workers vanish in the middle
of a job, and the queues' slot moves from node to node. All keys of a queue are pinned to one slot,
or no script could touch two of them.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis
from redis.exceptions import ConnectionError, ResponseError

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from rproxy.routing.slots import slot_of
from tests.conftest import ClusterMaker
from tests.live.proxies import Proxy, running
from tests.live.test_changes import other
from tests.live.test_operation import children

JOBS, QUEUES, WORKERS = 1000, 2, 4
PATIENCE = 120.0
"""Seconds for all jobs; they take a few."""
STEP = 40
"""Jobs between two disturbances."""

ADD = "if redis.call('SADD', KEYS[2], ARGV[1]) == 1 then redis.call('RPUSH', KEYS[1], ARGV[1]) end"
FINISH = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[2], ARGV[1], 1) end
"""


@pytest.fixture(scope="module")
def own(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """A cluster whose slots are moved."""
    with new_cluster(masters=3, replicas=0) as cluster:
        yield cluster


class Vanished(Exception):
    """A worker's end in the middle of a job."""


class Jobs:
    """The queues, and the threads that fill and empty them."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.trouble: list[BaseException] = []
        self.over = threading.Event()
        self.vanishing = threading.Semaphore(0)
        roles: list[Callable[[redis.Redis], None]] = [
            *(self._producer(queue) for queue in range(QUEUES)),
            *(self._worker(queue, name) for queue in range(QUEUES) for name in range(WORKERS)),
        ]
        self.threads = [threading.Thread(target=self._live, args=(role,)) for role in roles]

    def _live(self, role: Callable[[redis.Redis], None]) -> None:
        """One life after the other, until the work is done."""
        try:
            while not self.over.is_set():
                with self.proxy.client(retry=None) as client, suppress(Vanished):
                    try:
                        role(client)
                        return
                    except ConnectionError:
                        pass
                    except ResponseError as error:
                        if "may have been executed" not in str(error):
                            raise
        except BaseException as error:
            self.trouble.append(error)

    def _producer(self, queue: int) -> Callable[[redis.Redis], None]:
        left = [f"job{number}" for number in range(JOBS)]

        def produce(client: redis.Redis) -> None:
            add = client.register_script(ADD)
            while left:
                add([f"jobs:{queue}:todo", f"jobs:{queue}:all"], [left[-1]])
                left.pop()

        return produce

    def _worker(self, queue: int, name: int) -> Callable[[redis.Redis], None]:
        todo, doing = f"jobs:{queue}:todo", f"jobs:{queue}:doing:{name}"

        def work(client: redis.Redis) -> None:
            finish = client.register_script(FINISH)
            while client.lmove(doing, todo, "LEFT", "RIGHT") is not None:
                pass
            while not self.over.is_set():
                job = client.blmove(todo, doing, 1, "LEFT", "RIGHT")
                if self.vanishing.acquire(blocking=False):
                    raise Vanished
                if job is not None:
                    finish([doing, f"jobs:{queue}:done"], [job])
                elif client.exists(doing):
                    raise Vanished  # something of an earlier life came late

        return work


def test_no_job_is_lost_and_none_is_done_twice(own: LocalCluster) -> None:
    dice = random.Random(5)
    slot = slot_of(b"{jobs:}")
    with running(own, "--workers", "2", config='[[pin]]\nprefix = "jobs:"\n') as proxy:
        jobs = Jobs(proxy)
        disturbances: list[Callable[[], object]] = [
            lambda: own.migrate_slot(slot, other(own, slot).port),
            jobs.vanishing.release,
            lambda: os.kill(dice.choice(sorted(children(proxy.process.pid))), signal.SIGKILL),
        ]

        def wait_for(count: int) -> None:
            def are_done() -> bool:
                node = own.slot_owner(slot)
                names = [f"{{jobs:}}jobs:{queue}:done" for queue in range(QUEUES)]
                return bool(jobs.trouble) or sum(node.call("HLEN", name) for name in names) >= count

            wait_until(are_done, PATIENCE, f"{count} jobs")
            assert not jobs.trouble

        for thread in jobs.threads:
            thread.start()
        try:
            for turn, due in enumerate(range(STEP, JOBS * QUEUES, STEP)):
                wait_for(due)
                disturbances[turn % len(disturbances)]()
            wait_for(JOBS * QUEUES)
            with proxy.client() as client:
                for queue in range(QUEUES):
                    assert client.hvals(f"jobs:{queue}:done") == [b"1"] * JOBS
                    assert client.exists(f"jobs:{queue}:todo") == 0
        finally:
            jobs.over.set()
            for thread in jobs.threads:
                thread.join(PATIENCE)
