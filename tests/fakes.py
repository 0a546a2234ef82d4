"""Fakes: a loop whose time the test moves, a cluster without sockets, owners that remember.

Links get a stream without a socket: `stream.feed` is what the node sends, `stream.take` what
would be written to it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import hiredis

from rproxy.config import Address, Clients, Config
from rproxy.engine.client import Client
from rproxy.engine.engine import Engine
from rproxy.engine.session import Session
from rproxy.probe import Probe
from rproxy.proxy.connection import ClientStream
from rproxy.topology.slotmap import Node, Shard, SlotMap, address_of_redirect
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import parse_reply
from rproxy.upstream.feed import Feed
from rproxy.upstream.lane import Lane
from rproxy.upstream.link import Link
from rproxy.upstream.pool import Pool
from rproxy.upstream.recovery import Verdict
from rproxy.upstream.scripts import ScriptCache
from rproxy.upstream.sink import LinkTable, call
from rproxy.upstream.subscriptions import Subscriptions
from rproxy.wire.frames import FrameReader, Request, Scratch, pack

NODES = (Address("node-a", 1), Address("node-b", 2), Address("node-c", 3))
SPANS = ((0, 5460), (5461, 10922), (10923, 16383))


class FakeTimer:
    """What `call_later` returns."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def add_done_callback(self, callback: Callable[..., object]) -> None:
        """As of a task: it is never done."""


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
        self.doubts: list[Callable[[], object]] = []
        self.slotmap = even_map()
        self.watchers: list[Callable[[Iterable[int]], object]] = []
        self.strayed: list[Callable[[int, Address], object]] = []
        self.mapped = asyncio.Event()
        self.scripts = ScriptCache(1 << 20)
        self.lanes = {
            version: Lane(self, self.tick, version)  # type: ignore[arg-type]
            for version in (2, 3)
        }
        self.lane = self.lanes[2]
        self.known: dict[bytes, Any] = {}
        self.getkeys: Callable[[list[bytes]], Any] = lambda words: []
        self.asked: list[tuple[Any, ...]] = []
        for lane in self.lanes.values():
            for address, (first, last) in zip(NODES, SPANS, strict=True):
                link = self.connect(address, lane.protocol)
                for slot in range(first, last + 1):  # what `apply` would do, but quicker
                    lane.table[slot] = link

    def connect(self, address: Address, protocol: int = 2) -> Link:
        """Have the node's link up."""
        lane = self.lanes[protocol]
        pool = lane.pool(address)
        pool.link = Link(self.tick, lane, pool)
        pool.link.open()
        lane.opened(pool)
        return pool.link

    def link(self, index: int, protocol: int = 2) -> Link:
        """The link to the node number `index`."""
        link = self.lanes[protocol].pool(NODES[index]).link
        assert link is not None
        return link

    def sent(self, index: int, protocol: int = 2) -> list[list[bytes]]:
        """The requests written to that node since the last look."""
        return unpack(self.link(index, protocol).stream.take())

    def answer(self, index: int, reply: bytes, protocol: int = 2) -> None:
        """Have that node send bytes."""
        self.link(index, protocol).stream.feed(reply)

    def lease(self, index: int, protocol: int = 2) -> Link:
        """The leased link that is being made to that node, ready now."""
        leases = self.lanes[protocol].leases
        lease = next(lease for lease in leases.making if lease.address == NODES[index])
        leases.ready(lease)
        lease.link.stream.feed(b":77\r\n")  # the answer to CLIENT ID
        return lease.link

    def written(self, link: Link) -> list[list[bytes]]:
        """What was written to a leased link since the last look, without its CLIENT ID."""
        return [words for words in unpack(link.stream.take()) if words != [b"CLIENT", b"ID"]]

    # -- what a Lane wants of a Cluster --

    def refresh(self, reason: str) -> None:
        self.reasons.append(reason)

    def doubt(self, settle: Callable[[], object]) -> None:
        self.doubts.append(settle)

    def redirect_address(self, verdict: Verdict, asked: Address) -> Address | None:
        return address_of_redirect(verdict.endpoint, asked.host)

    def moved(self, slot: int, address: Address, told_by: str) -> None:
        self.adopt(self.slotmap.with_owner(slot, address))

    def sent_on(self, slot: int, told_by: str, target: Address) -> None:
        self.probe.asked(slot, told_by, str(target))
        for watch in self.strayed:
            watch(slot, target)

    def adopt(self, slotmap: SlotMap) -> None:
        """A new slot map."""
        changed = self.slotmap.diff(slotmap)
        self.slotmap = slotmap
        for lane in self.lanes.values():
            lane.apply(changed)
        for watch in self.watchers:
            watch(changed)

    # -- what an Engine wants of it --

    async def tell(self, pool: Pool, *words: bytes) -> Any:
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        request = call(pack(list(words)), reply.set_result)
        request.target = pool
        pool.sink.take(request)
        return parse_reply(await reply)

    async def inquire(self, *words: bytes) -> Any:
        """What `getkeys` says of a COMMAND GETKEYS' arguments."""
        self.asked.append(words)
        told = self.getkeys(list(words[2:]))
        return await told if isinstance(told, asyncio.Future) else told

    def table(self, protocol: int) -> LinkTable:
        return self.lanes[protocol].table

    def send_anywhere(self, protocol: int, request: Request) -> None:
        self.lanes[protocol].send_anywhere(request)

    def masters(self, protocol: int) -> list[Pool]:
        lane = self.lanes[protocol]
        return [lane.pool(node.address) for node in self.slotmap.masters]

    async def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """What `known` says of each command's last word; an exception there is raised."""
        self.asked += commands
        answers = [self.known.get(_raw(command[-1])) for command in commands]
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, hiredis.ReplyError):
                raise answer
        return [[None] if answer is None else answer for answer in answers]


def _raw(word: str | bytes) -> bytes:
    return word.encode() if isinstance(word, str) else word


def even_map(owners: tuple[Address, ...] = NODES) -> SlotMap:
    """A map in which each owner has the span of slots in its place."""
    return SlotMap.of(
        Shard(Node(address.host, address.port), (), (span,))
        for address, span in zip(owners, SPANS, strict=True)
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


class FakeProxy:
    """Clients without sockets, in front of a FakeCluster."""

    def __init__(self, clients: Clients | None = None, **options: Any) -> None:
        self.cluster = FakeCluster(clients=clients or Clients(), **options)
        self.engine = Engine(
            self.cluster.config,
            self.cluster,  # type: ignore[arg-type]
            self.cluster.tick,
            self.cluster.probe,
        )

    def client(self) -> FakeClient:
        """Another client connects."""
        return FakeClient(self)

    def run(self) -> None:
        """Let the loop call what it was asked to call soon."""
        self.cluster.loop.run()

    def feed(self, index: int, way: Subscriptions | None = None) -> Feed:
        """The feed of the node number `index`; it is up from now on."""
        way = way or self.engine.hub.pubsub
        station = way.stations[NODES[index]]
        if station.feed is None:
            station.opened(Feed(self.cluster.tick, station, way.topics))
        assert station.feed is not None
        return station.feed

    def confirm(self, index: int, way: Subscriptions | None = None) -> list[list[bytes]]:
        """Have that node confirm all that was written to its feed; what that was."""
        feed = self.feed(index, way)
        requests = unpack(feed.stream.take())
        for words in requests:
            feed.stream.feed(feed_reply(words))
        self.run()
        return requests


class FakeClient:
    """One client's connection; `say` is what it sends, `hear` what it would receive."""

    def __init__(self, proxy: FakeProxy) -> None:
        engine = proxy.engine
        locked = bool(engine.password)
        number = len(engine.clients) + 1
        self.proxy = proxy
        self.identity = Client(
            number, f"127.0.0.1:{number}", "127.0.0.1:6379", number, not locked, engine.probe
        )
        self.stream = ClientStream(proxy.cluster.tick, engine.shared, self.identity, locked)
        self.session: Session = self.stream.session
        self.identity.session = self.session
        self.session.on_lost = self._lost
        self.reasons: list[str] = []
        engine.clients.add(self.identity)

    def _lost(self, session: Session, reason: str) -> None:
        self.reasons.append(reason)
        self.proxy.engine.hub.leave(session)
        self.proxy.engine.tracking.leave(session)
        self.proxy.engine.clients.discard(self.identity)
        self.identity.session = None

    def say(self, *words: bytes) -> None:
        """Send one command."""
        self.send(pack(list(words)))

    def send(self, wire: bytes) -> None:
        """Send bytes."""
        self.stream.feed(wire)
        self.proxy.run()

    def hear(self) -> bytes:
        """The replies since the last look."""
        self.proxy.run()
        heard = self.stream.take()
        self.proxy.run()
        return heard

    def ask(self, *words: bytes) -> bytes:
        """A command's reply, which rproxy itself gives."""
        self.say(*words)
        return self.hear()


def feed_reply(words: list[bytes]) -> bytes:
    """What a node answers on a feed."""
    if words[0] == b"MONITOR":
        return b"+OK\r\n"
    if words[0] == b"PING":
        return array([b"pong", b""])
    return b"*3\r\n" + bulk(words[0].lower()) + bulk(words[1]) + b":1\r\n"


def node_reply(words: list[bytes]) -> bytes:
    """What the nodes of these tests answer: a reply that tells the command from any other."""
    name, *args = words
    return NODE_REPLIES[name.upper()](args)


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def array(values: list[bytes]) -> bytes:
    """An array of bulk strings."""
    return b"*%d\r\n" % len(values) + b"".join(map(bulk, values))


NODE_REPLIES: dict[bytes, Callable[[list[bytes]], bytes]] = {
    b"ASKING": lambda args: b"+OK\r\n",
    b"PING": lambda args: b"+PONG\r\n",
    b"SET": lambda args: b"+OK\r\n",
    b"MSET": lambda args: b"+OK\r\n",
    b"GET": lambda args: bulk(b"of " + args[0]),
    b"MGET": lambda args: array([b"of " + key for key in args]),
    b"DEL": lambda args: b":%d\r\n" % len(args),
    b"EXISTS": lambda args: b":%d\r\n" % len(args),
    b"APPEND": lambda args: b":%d\r\n" % len(args[1]),
    b"LPOP": lambda args: b"-WRONGTYPE not a list: %b\r\n" % args[0],
}


def serve(cluster: FakeCluster, order: Iterable[int] = (0, 1, 2), protocol: int = 2) -> None:
    """Have the nodes, in that order, answer what was written to them."""
    for index in order:
        requests = cluster.sent(index, protocol)
        cluster.answer(index, b"".join(map(node_reply, requests)), protocol)


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """A test of something that spawns tasks, which need a loop."""

    def run() -> None:
        work = test()
        assert isinstance(work, Coroutine)
        asyncio.run(work)

    run.__name__, run.__doc__ = getattr(test, "__name__", ""), test.__doc__
    return run
