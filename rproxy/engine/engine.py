"""The engine of one worker: what all sessions share, the clients that are there, the command table.

The command table starts as the built-in one; the cluster's own COMMAND reply is merged in as soon
as a node answers, and again when a client sends a name that the table lacks. Such a client's
later requests wait for the answer; a name that the servers do not know either is remembered for a
while, and goes to a node, whose own error the client gets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Any

import hiredis

from rproxy.config import Config
from rproxy.engine.acknowledged import Acknowledged
from rproxy.engine.blocking import Blocked
from rproxy.engine.client import Client
from rproxy.engine.dispatch import dispatch, in_general, judge
from rproxy.engine.everywhere import answer_worker
from rproxy.engine.explain import with_own
from rproxy.engine.hub import Hub
from rproxy.engine.pause import Pause
from rproxy.engine.session import Session, Shared
from rproxy.engine.tracking import Tracking
from rproxy.engine.ways import Way
from rproxy.errors import NetworkError, uncovered_reply
from rproxy.probe import Probe
from rproxy.routing.access import Access
from rproxy.routing.commands import built_in, merge
from rproxy.routing.pins import Pins
from rproxy.routing.specs import CommandSpec
from rproxy.transport.bus import Bus
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import Cluster
from rproxy.wire.frames import Request

log = logging.getLogger(__name__)

UNKNOWN_KEPT = 1024
"""Names remembered as unknown to the servers."""
LONGEST_NAME = 128
"""Bytes of a name that the servers are asked for: no command is called anything longer."""
UNKNOWN_SECONDS = 5.0
"""How long such a name is remembered: after that the servers are asked again."""
LEARN_DELAY = 1.0
"""Seconds between two attempts to get the command table at start."""


class Engine:
    """Everything that a worker's sessions share."""

    def __init__(self, config: Config, cluster: Cluster, tick: Tick, probe: Probe) -> None:
        self.config = config
        self.cluster = cluster
        self.probe = probe
        self.password = config.clients.password
        self.clients: set[Client] = set()
        self.blocked: set[Blocked | Acknowledged] = set()
        self.bus: Bus | None = None  # to the other workers, where there are any
        self.server_version = "7.0.0"
        self.started = time.monotonic()
        self.access = Access(config.deny, config.rename)
        self.pins = Pins((prefix, rule.tag) for rule in config.pin for prefix in rule.prefixes)
        self.pause = Pause(self)
        self.genuine = self.meant = with_own(built_in())
        """The servers' commands, and PROXY; `meant` has marks, `shared.commands` also new names."""
        self.shared = Shared(tick, self.meant, self.dispatch, cluster.table(2), cluster.table(3))
        self.shared.pins = self.pins if self.pins.pairs else None
        self.use_table()
        self._set_limits()
        self.hub = Hub(config, cluster, tick, self.pins)
        self.tracking = Tracking(self)
        self._unknown: dict[bytes, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _set_limits(self) -> None:
        limits, shared = self.config.clients, self.shared
        shared.command_timeout = self.config.upstream.command_timeout
        shared.max_in_flight = limits.max_in_flight
        shared.pause_output = limits.pause_output
        shared.output_limit = limits.output_limit
        shared.subscriber_limit = limits.subscriber_limit
        shared.subscriber_soft_limit = limits.subscriber_soft_limit
        shared.subscriber_soft_time = limits.subscriber_soft_time
        shared.max_args = limits.max_args
        shared.max_bulk = limits.max_bulk
        shared.max_request = limits.request_limit

    def dispatch(self, session: Session, request: Request) -> None:
        """Take a request down the ladder; note what a client reads that is told of changes."""
        dispatch(self, session, request)
        if session.is_tracking:
            self.tracking.note(session, request)

    def judge(self, session: Session, request: Request) -> Way:
        """What would become of a request that is taken down the ladder."""
        return judge(self, session, request)

    def in_general(self, spec: CommandSpec) -> Way:
        """What becomes of requests of a command."""
        return in_general(self, spec)

    def start(self) -> None:
        """Begin to learn the cluster's own command table."""
        self.spawn(self._learn_all())
        if self.bus is not None:
            self.bus.start(partial(answer_worker, self))

    async def close(self) -> None:
        """Stop background work."""
        self.hub.close()
        self.tracking.close()
        if self.bus is not None:
            self.bus.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside the sessions; it ends with the engine."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the command table --

    def use_table(self) -> None:
        """Have the sessions use the servers' table, as the operator and a pause want it."""
        self.meant = self.pause.marks(self.access.denying(self.genuine))
        self.shared.commands = self.access.renaming(self.meant)

    def spec_of(self, request: Request) -> CommandSpec | None:
        """What the command table says of a request under the servers' name."""
        return self.meant.lookup(*request.argv()[:2])

    def _learnt(self, commands: object) -> None:
        """Servers have told of commands."""
        self.genuine = with_own(merge(self.genuine, commands))
        self.use_table()

    async def _learn_all(self) -> None:
        """Merge the cluster's COMMAND reply, as soon as some node gives it."""
        while True:
            try:
                commands, about = await self.cluster.ask(("COMMAND",), ("INFO", "server"))
            except NetworkError:
                await asyncio.sleep(LEARN_DELAY)
                continue
            if not isinstance(commands, hiredis.ReplyError):
                self._learnt(commands)
                for name in self.access.strangers(self.genuine):
                    log.warning("deny or rename: no server knows a command %r", name)
            self._note_version(about)
            return

    def _note_version(self, about: Any) -> None:
        if isinstance(about, bytes):
            for line in about.decode("ascii", "replace").splitlines():
                if line.startswith("redis_version:"):
                    self.server_version = line.partition(":")[2]

    def look_up(self, session: Session, request: Request, name: bytes) -> None:
        """A name that the table lacks: ask the servers, then go on with the request."""
        if self.is_unknown(name):
            session.enter(request)
            self.cluster.send_anywhere(session.protocol, request)
            return
        session.hold()
        self.spawn(self._look_up(session, request, name))

    def is_unknown(self, name: bytes) -> bool:
        """Whether the servers need not be asked for the name: they do not know it."""
        return len(name) > LONGEST_NAME or self._unknown.get(name, 0.0) > time.monotonic()

    async def _look_up(self, session: Session, request: Request, name: bytes) -> None:
        request.spec = await self.learn(name)
        session.pin_keys(request)
        self.resume(session, request)

    async def learn(self, name: bytes) -> CommandSpec | None:
        """Ask the servers of a name that the table lacks: what it means, or None."""
        try:
            (found,) = await self.cluster.ask(("COMMAND", "INFO", name))
            if not isinstance(found, hiredis.ReplyError):
                self._learnt([entry for entry in found if entry])
        except NetworkError:
            pass  # the request itself will meet the same trouble and be answered by it
        spec = self.shared.commands.lookup(name)
        if spec is None:
            if len(self._unknown) >= UNKNOWN_KEPT:
                self._unknown.clear()
            self._unknown[name] = time.monotonic() + UNKNOWN_SECONDS
        return spec

    # -- the slot map --

    def wait_for_map(self, session: Session, request: Request) -> None:
        """No node is known yet: hold the session until one is, or the request's time is up."""
        session.hold()
        self.spawn(self._wait_for_map(session, request))

    async def _wait_for_map(self, session: Session, request: Request) -> None:
        try:
            async with asyncio.timeout(self.config.upstream.hold_time):
                await self.cluster.mapped.wait()
        except TimeoutError:
            session.answer(uncovered_reply(), request)
            session.release()
            return
        self.resume(session, request)

    def resume(self, session: Session, request: Request) -> None:
        """Take the request that held its session down the ladder again, and read on."""
        if session.stream.is_closed:
            return
        session.release()  # first: what the request becomes may hold the session again
        try:
            self.dispatch(session, request)
        except Exception:
            log.exception("a connection is closed: its command could not be dispatched")
            session.close("internal error")
