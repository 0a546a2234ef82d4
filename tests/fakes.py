"""Fakes: a loop whose time the test moves, a cluster without sockets, owners that remember.

Links get a stream without a socket: `stream.feed` is what the node sends, `stream.take` what
would be written to it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from rproxy.config import Address, Config
from rproxy.probe import Probe
from rproxy.topology.slotmap import Node, Shard, SlotMap, address_of_redirect
from rproxy.transport.stream import Tick
from rproxy.upstream.lane import Lane
from rproxy.upstream.link import Link
from rproxy.upstream.recovery import Verdict
from rproxy.upstream.sink import call
from rproxy.wire.frames import FrameReader, Request, Scratch, pack

NODES = (Address("node-a", 1), Address("node-b", 2), Address("node-c", 3))


class FakeTimer:
    """What `call_later` returns."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """An event loop without events: callbacks run when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.later: list[tuple[float, int, FakeTimer, Callable[..., object], tuple[Any, ...]]] = []
        self.watched: dict[int, Callable[[], object]] = {}
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.soon.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        timer = FakeTimer()
        heapq.heappush(self.later, (self.now + delay, next(self._count), timer, callback, args))
        return timer

    def create_task(self, work: Coroutine[Any, Any, Any]) -> FakeTimer:
        """Nothing runs in the background here: who needs a link gets one from the test."""
        work.close()
        return FakeTimer()

    def run(self) -> None:
        """Run everything that was to run soon."""
        while self.soon:
            callback, args = self.soon.pop(0)
            callback(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass, and run what is due."""
        self.now += seconds
        while self.later and self.later[0][0] <= self.now:
            _, _, timer, callback, args = heapq.heappop(self.later)
            if not timer.is_cancelled:
                callback(*args)
        self.run()


class FakeCluster:
    """Three masters that share the slots evenly; their links have no sockets."""

    def __init__(self, **options: Any) -> None:
        self.config = Config(seeds=NODES[:1], **options)
        self.probe = Probe()
        self.loop = FakeLoop()
        self.tls = None
        self.tick = Tick(self.loop)
        self.reasons: list[str] = []
        self.slotmap = even_map()
        self.lane = Lane(self, self.tick, 2)  # type: ignore[arg-type]
        self.lane.apply(range(16384))
        for address in NODES:
            self.connect(address)

    def connect(self, address: Address) -> Link:
        """Have the node's link up."""
        pool = self.lane.pool(address)
        pool.link = Link(self.tick, self.lane, pool)
        pool.link.open()
        self.lane.opened(pool)
        return pool.link

    def link(self, index: int) -> Link:
        """The link to the node number `index`."""
        link = self.lane.pool(NODES[index]).link
        assert link is not None
        return link

    def sent(self, index: int) -> list[list[bytes]]:
        """The requests written to that node since the last look."""
        return unpack(self.link(index).stream.take())

    def answer(self, index: int, reply: bytes) -> None:
        """Have that node send bytes."""
        self.link(index).stream.feed(reply)

    # -- what a Lane wants of a Cluster --

    def refresh(self, reason: str) -> None:
        self.reasons.append(reason)

    def redirect_address(self, verdict: Verdict, asked: Address) -> Address | None:
        return address_of_redirect(verdict.endpoint, asked.host)

    def moved(self, slot: int, address: Address, told_by: str) -> None:
        self.adopt(self.slotmap.with_owner(slot, address))

    def adopt(self, slotmap: SlotMap) -> None:
        """A new slot map."""
        changed = self.slotmap.diff(slotmap)
        self.slotmap = slotmap
        self.lane.apply(changed)


def even_map(owners: tuple[Address, ...] = NODES) -> SlotMap:
    """Slots 0..5460 belong to the first, ..10922 to the second, the rest to the third."""
    bounds = [(0, 5460), (5461, 10922), (10923, 16383)]
    return SlotMap.of(
        Shard(Node(address.host, address.port), (), (span,))
        for address, span in zip(owners, bounds, strict=True)
    )


class Replies:
    """Collects replies, in the order in which they come."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def request(self, slot: int, *words: bytes) -> Request:
        """A request whose reply comes here."""
        return call(pack(list(words)), self.got.append, slot)


def unpack(wire: bytes) -> list[list[bytes]]:
    """The requests in bytes that were written to a node."""
    reader = FrameReader(Scratch())
    reader.feed(wire)
    found = []
    while isinstance(words := reader.request(), list):
        found.append(words)
    return found
