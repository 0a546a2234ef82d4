"""The cluster behind rproxy: the only door to upstream.

It owns the slot map and what follows from it: one Lane per protocol version, the Refresher that
learns the map, the regular round that enforces deadlines. Sessions send through
`table(protocol)`; everything else asks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis

from rproxy.config import Address, Config
from rproxy.errors import NetworkError, uncovered_reply
from rproxy.probe import Probe
from rproxy.routing.slots import NO_KEYS
from rproxy.topology.refresh import Refresher, View
from rproxy.topology.slotmap import SlotMap, address_of_redirect, parse_shards, parse_slots
from rproxy.transport.stream import Tick
from rproxy.upstream import tls
from rproxy.upstream.control import converse
from rproxy.upstream.lane import Lane
from rproxy.upstream.pool import Pool
from rproxy.upstream.recovery import Verdict
from rproxy.upstream.scripts import ScriptCache
from rproxy.upstream.sink import LinkTable, call
from rproxy.wire.frames import Request, pack

ROUND = 0.1
"""Seconds between two rounds of `sweep`: how late a deadline may be noticed."""

PATROL = 60.0
"""Seconds for which the cluster is asked again and again once a node is out. A replica takes over
in the first half minute, or somebody has to come.
"""


class Cluster:
    """Sends requests to the nodes of one Redis Cluster."""

    def __init__(self, config: Config, tick: Tick, probe: Probe) -> None:
        self.config = config
        self.probe = probe
        self.loop = asyncio.get_running_loop()
        self.tls = tls.context(config.upstream.tls)
        self.slotmap = SlotMap.empty()
        self.mapped = asyncio.Event()
        self.scripts = ScriptCache(config.upstream.script_cache)
        self.lanes = {version: Lane(self, tick, version) for version in (2, 3)}
        self.refresher = Refresher(config, self.fetch, self._adopt, probe)
        self.watchers: list[Callable[[Iterable[int]], object]] = []
        self.strayed: list[Callable[[int, Address], object]] = []
        self._uncovered_since: float | None = None
        self._out_since: float | None = None
        self._round: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        links = sum(len(lane.pools) for lane in self.lanes.values())
        return f"<Cluster {self.slotmap.covered} slots covered, {links} pools>"

    async def start(self) -> None:
        """Begin to learn the slot map; returns at once, commands are held until it is there."""
        self._uncovered_since = self.loop.time()
        self.refresher.start()
        self._sweep()

    async def close(self) -> None:
        """End every link."""
        if self._round is not None:
            self._round.cancel()
        await self.refresher.close()
        for lane in self.lanes.values():
            lane.close("rproxy stops")

    # -- for sessions --

    def table(self, protocol: int) -> LinkTable:
        """Where requests of clients that speak RESP2 or RESP3 go."""
        return self.lanes[protocol].table

    def send_anywhere(self, protocol: int, request: Request) -> None:
        """Send a request that names no key."""
        self.lanes[protocol].send_anywhere(request)

    def masters(self, protocol: int) -> list[Pool]:
        """The ways to all masters, for requests that concern every one of them."""
        lane = self.lanes[protocol]
        return [lane.pool(node.address) for node in self.slotmap.masters]

    async def tell(self, pool: Pool, *words: bytes) -> Any:
        """One node's reply, as hiredis gives it (an error as a value), by the link that clients
        share: in order with what they have sent there.
        """
        request, reply = self._question(words)
        request.target = pool
        pool.sink.take(request)
        return parse_reply(await reply)

    async def inquire(self, *words: bytes) -> Any:
        """Some node's reply, likewise."""
        request, reply = self._question(words)
        self.send_anywhere(2, request)
        return parse_reply(await reply)

    async def route(self, slot: int, *words: bytes) -> Any:
        """The reply of whoever serves the slot, as hiredis gives it."""
        request, reply = self._question(words, slot)
        self.lanes[2].table.route(request)
        return parse_reply(await reply)

    def _question(
        self, words: tuple[bytes, ...], slot: int = NO_KEYS
    ) -> tuple[Request, asyncio.Future[bytes]]:
        """A request of rproxy's own, and the reply to come."""
        reply: asyncio.Future[bytes] = self.loop.create_future()

        def note(raw: bytes) -> None:
            if not reply.done():
                reply.set_result(raw)

        request = call(pack(list(words)), note, slot)
        limit = self.config.upstream.command_timeout
        request.deadline = self.loop.time() + limit if limit else 0.0
        return request, reply

    # -- the slot map --

    def refresh(self, reason: str) -> None:
        """Ask for the slot map again soon."""
        self.refresher.request_refresh(reason)

    def doubt(self, settle: Callable[[], object]) -> None:
        """Call `settle` once the cluster has been asked anew."""
        self.refresher.doubt(settle)

    async def fetch(self, address: Address) -> View:
        """One node's view of the cluster."""
        options = self.config
        shards, slots, about = await converse(
            address,
            [("CLUSTER", "SHARDS"), ("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")],
            options.upstream,
            self.tls,
            options.topology.fetch_timeout,
        )
        if isinstance(slots, hiredis.ReplyError):
            raise NetworkError(f"{address}: {slots}")
        if isinstance(shards, hiredis.ReplyError):
            slotmap = parse_slots(slots, address)
        else:
            slotmap = parse_shards(shards, address, tls=self.tls is not None)
        return View(slotmap, epoch_of(about))

    def _adopt(self, slotmap: SlotMap) -> None:
        """A newer slot map: replace the old one, bring the lanes in line."""
        changed = self.slotmap.diff(slotmap)
        self.slotmap = slotmap
        if slotmap.masters:
            self.mapped.set()
        self._note_coverage()
        self._apply(changed)

    def moved(self, slot: int, address: Address, told_by: str) -> None:
        """A node says who owns the slot: believe it at once, learn the rest soon."""
        self.probe.moved(slot, told_by, str(address))
        self.slotmap = self.slotmap.with_owner(slot, address)
        self.refresher.adopt_patch(self.slotmap)
        self._note_coverage()
        self._apply([slot])
        self.refresh("MOVED")

    def _apply(self, changed: Sequence[int]) -> None:
        """Tell everyone who follows the slot map which slots have another owner."""
        for lane in self.lanes.values():
            lane.apply(changed)
        for watch in self.watchers:
            watch(changed)

    def sent_on(self, slot: int, told_by: str, target: Address) -> None:
        """A node sends one command to another that does not own the slot (yet)."""
        self.probe.asked(slot, told_by, str(target))
        for watch in self.strayed:
            watch(slot, target)

    def redirect_address(self, verdict: Verdict, asked: Address) -> Address | None:
        """Where MOVED or ASK points, or None where it does not say."""
        return address_of_redirect(verdict.endpoint, asked.host)

    async def ask(self, *commands: tuple[str | bytes, ...]) -> list[Any]:
        """The replies of some node to commands of rproxy's own; raises NetworkError."""
        problem: NetworkError = NetworkError("no node is known")
        for node in self.slotmap.masters:
            try:
                return await converse(
                    node.address,
                    list(commands),
                    self.config.upstream,
                    self.tls,
                    self.config.topology.fetch_timeout,
                )
            except NetworkError as error:
                problem = error
        raise problem

    # -- the regular round --

    def _sweep(self) -> None:
        now = self.loop.time()
        since = self._uncovered_since
        refuse = since is not None and now - since > self.config.upstream.hold_time
        for lane in self.lanes.values():
            lane.orphans.refusing = uncovered_reply() if refuse else None
            lane.sweep(now)
        self._survey(now)
        self._round = self.loop.call_later(ROUND, self._sweep)

    def _survey(self, now: float) -> None:
        """While a node that owns slots is out, look again and again who has taken over."""
        pools = (pool for lane in self.lanes.values() for pool in lane.pools.values())
        out = {pool.address for pool in pools if pool.is_out}
        if not out or not out & self.slotmap.serving:
            self._out_since = None
            return
        self._out_since = self._out_since or now
        if now - self._out_since < PATROL:
            self.refresh("a node is out")

    def _note_coverage(self) -> None:
        if self.slotmap.covered == 16384:
            self._uncovered_since = None
        elif self._uncovered_since is None:
            self._uncovered_since = self.loop.time()


def parse_reply(raw: bytes) -> Any:
    """One whole reply frame as hiredis gives it: an error is a ReplyError value."""
    parser = hiredis.Reader()
    parser.feed(raw)
    return parser.gets()


def epoch_of(about: Any) -> int:
    """The current epoch in a CLUSTER INFO reply; 0 where it has none."""
    text = about.decode("ascii", "replace") if isinstance(about, bytes) else ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "cluster_current_epoch" and value.isdigit():
            return int(value)
    return 0
