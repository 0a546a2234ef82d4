"""Processes that share the port: start, watch, replace, stop.

Strategy. The parent opens every listening socket, one set a worker with SO_REUSEPORT, before it
forks; so a taken port is found out at once, the kernel spreads the clients, and a worker that
dies leaves its socket, with the clients that wait in it, to its successor. The parent runs no
event loop: it waits for signals and children. A single worker is the process itself.

Signals. SIGTERM and SIGINT drain: finish what is under way, then close; a second one stops at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from rproxy.config import Config
from rproxy.observability.logs import LogProbe, set_up
from rproxy.proxy.listen import addresses, close_all, open_listeners, remove_files
from rproxy.proxy.server import Server
from rproxy.transport.bus import Bus, open_pairs
from rproxy.upstream import tls

log = logging.getLogger("rproxy")

RESPAWN_PAUSE = 1.0
"""Seconds before a worker that died soon after its start is replaced."""
FILES_KEPT = 256
"""Open files beside clients: links, listeners, libraries."""
STOPPING = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> int:
    """Serve until told to stop; the process's exit code."""
    logger = set_up(config.log.level)
    tls.context(config.upstream.tls)  # files that cannot be used are found out before any fork
    allow_files(config.clients.max_clients + FILES_KEPT)
    shares = open_listeners(config)
    probe = LogProbe(logger)
    for where, address in zip(config.listen, addresses(shares[0]), strict=True):
        probe.listening(address, not where.is_loopback and not config.clients.password)
    try:
        if config.workers == 1:
            return work(config, shares[0], 0)
        return Parent(config, shares, probe).run()
    finally:
        close_all(shares)
        remove_files(config)


def allow_files(wanted: int) -> None:
    """Raise the process's limit of open files to `wanted` where the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if most < wanted:
        log.warning("%d open files are allowed, clients.max_clients needs %d", most, wanted)


def work(config: Config, sockets: list[socket.socket], serial: int, bus: Bus | None = None) -> int:
    """Be a worker until told to stop."""
    logger = set_up(config.log.level, serial)
    gc.freeze()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(config, sockets, serial, LogProbe(logger), bus))
    return 0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop where it is installed, else the standard one."""
    try:
        import uvloop
    except ImportError:
        log.info("uvloop is not installed: the standard event loop serves, more slowly")
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _serve(
    config: Config,
    sockets: list[socket.socket],
    serial: int,
    probe: LogProbe,
    bus: Bus | None,
) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    again = asyncio.Event()
    for number in STOPPING:
        loop.add_signal_handler(number, lambda: (again if told.is_set() else told).set())
    server = Server(config, sockets, probe, serial, bus)
    await server.start()
    await told.wait()
    probe.draining("told to", len(server.clients))
    drained = loop.create_task(server.drain())
    stopped = loop.create_task(again.wait())
    await asyncio.wait({drained, stopped}, return_when=asyncio.FIRST_COMPLETED)
    drained.cancel()
    stopped.cancel()
    abandoned = await server.close()
    probe.stopped(abandoned)
    probe.close()


class Parent:
    """Forks the workers and keeps their number."""

    def __init__(self, config: Config, shares: list[list[socket.socket]], probe: LogProbe) -> None:
        self.config = config
        self.probe = probe
        self.shares = shares
        self.pairs = open_pairs(config.workers)
        self.children: dict[int, int] = {}  # process id -> index of its share
        self.born: dict[int, float] = {}
        self.serial = 0
        self.stopping = False

    def run(self) -> int:
        """Keep the workers running until told to stop."""
        for number in STOPPING:
            signal.signal(number, self._stop)
        for index in range(self.config.workers):
            self._fork(index)
        while self.children:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            self._replace(pid, status)
        return 0

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True
        for pid in self.children:
            os.kill(pid, signal.SIGTERM)
        # While the workers drain, whoever connects is to be refused, not to wait in vain.
        close_all(self.shares)

    def _fork(self, index: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        serial, self.serial = self.serial, self.serial + 1
        pid = os.fork()
        if pid == 0:
            for number in STOPPING:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            self._be_worker(index, serial)
        self.children[pid] = index
        self.born[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _be_worker(self, index: int, serial: int) -> None:
        """In the child: serve, and never return to the parent's code."""
        code = 1
        try:
            close_all(self.shares[:index] + self.shares[index + 1 :])
            bus = Bus(self.pairs, index, serial << 32)
            code = work(self.config, self.shares[index], serial, bus)
        except BaseException:
            log.exception("worker %d ends", serial)
        finally:
            logging.shutdown()
            os._exit(code)

    def _replace(self, pid: int, status: int) -> None:
        index = self.children.pop(pid, None)
        age = time.monotonic() - self.born.pop(pid, 0.0)
        if index is None or self.stopping:
            return
        self.probe.worker_ended(index, f"process {pid}, status {os.waitstatus_to_exitcode(status)}")
        if age < RESPAWN_PAUSE:
            time.sleep(RESPAWN_PAUSE - age)
        if not self.stopping:
            self._fork(index)
