"""Invalidations: every master tells of every key that changes there.

Strategy. A feed is one RESP3 connection to a master with CLIENT TRACKING ON BCAST and no prefix:
the node names each key that is written, expires or is evicted, whoever did it, and says when all
of them are gone. So it does not matter on which link something was read. The feeds exist while
somebody listens, and a little longer; after a loss a feed is opened again at once, then after a
back-off.

Rules. A slot is covered while its owner's feed is up: what changes there is heard. The audience is
told at once when that was perhaps not so: a feed was lost, slots have other owners, a node has sent
a command on to one without a feed. What was read while a slot was not covered, the audience may
never take for known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from rproxy.config import Address
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import parse_reply
from rproxy.upstream.link import Link
from rproxy.upstream.opening import Opening, keep_trying
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.upstream.cluster import Cluster

ROUND = 1.0
"""Seconds between two looks at the feeds."""

IDLE_SECONDS = 10.0
"""How long the feeds are kept when nobody listens any more."""


class Audience(Protocol):
    """Who is told of changes."""

    @property
    def is_listening(self) -> bool:
        """Whether the feeds are needed."""

    def invalidated(self, keys: list[bytes] | None) -> None:
        """These keys have changed; None: all of a node's."""

    def moved(self, slots: Iterable[int]) -> None:
        """What is known of these slots' keys may be wrong."""

    def missed(self) -> None:
        """Changes may have gone unheard."""


class InvalidationFeed:
    """The feed of one node."""

    protocol = 3

    def __init__(self, invalidations: Invalidations, address: Address) -> None:
        self.invalidations = invalidations
        self.cluster = invalidations.cluster
        self.address = address
        self.link: Link | None = None
        self.failing = False
        self.retired = False
        self._connecting: asyncio.Task[None] | None = None
        self._opening: Opening | None = None

    @property
    def is_up(self) -> bool:
        """Whether all that changes at the node is heard."""
        return self.link is not None

    def __str__(self) -> str:
        return f"{self.address} (invalidations)"

    def __repr__(self) -> str:
        return f"<InvalidationFeed {self.address}, {'up' if self.is_up else 'down'}>"

    def wake(self) -> None:
        """See that the feed is being opened."""
        if self._connecting is None and self.link is None and not self.retired:
            self._connecting = self.cluster.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            options = self.cluster.config.upstream
            await keep_trying(self._open, self._failed, lambda: not self.retired, options)
        finally:
            self._connecting = None

    async def _open(self) -> None:
        link = Link(self.invalidations.tick, None, self)
        link.on_push = self.heard
        self._opening = Opening(tracking=True)
        try:
            await self._opening.run(link, self.address, self.cluster, self.protocol)
        except BaseException:
            link.close("the connection could not be set up")
            raise
        finally:
            self._opening = None
        self.opened(link)

    def opened(self, link: Link) -> None:
        """The node has confirmed that it will tell of everything."""
        link.on_push = self.heard
        link.open()
        self.link, self.failing = link, False
        self.cluster.probe.link_up(str(self.address), self.protocol)
        self.invalidations.changed(self)

    def _failed(self, reason: str) -> None:
        self.failing = True
        self.cluster.probe.link_down(str(self.address), self.protocol, reason)
        self.cluster.refresh(f"{self.address} cannot be reached")
        self.invalidations.changed(self)

    def heard(self, push: bytes) -> None:
        """What the node says without being asked: only invalidations count."""
        words = parse_reply(push)
        if words[0] == b"invalidate":
            self.invalidations.audience.invalidated(words[1])

    def lost(self, link: Link, reason: str, again: list[Request], was_ready: bool) -> None:
        """The feed, or what should have become one, is gone."""
        if self._opening is not None:
            self._opening.lost(reason)
        if link is not self.link:
            return
        self.link = None
        if self.retired:
            return
        self.cluster.probe.link_down(str(self.address), self.protocol, reason)
        self.cluster.refresh(f"the invalidations of {self.address} were lost")
        self.invalidations.audience.missed()
        self.wake()

    def look_after(self, now: float) -> None:
        """Ping a quiet feed, close one that is dead."""
        link, options = self.link, self.cluster.config.upstream
        if link is None:
            self.wake()
            return
        quiet = now - link.heard_at
        if len(link) and quiet > options.stall_timeout:
            link.close(f"no byte came for {quiet:.1f} s")
        elif not len(link) and quiet > options.heartbeat:
            link.ping()

    def close(self, reason: str) -> None:
        """End the feed for good."""
        self.retired = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self.link is not None:
            self.link.close(reason)


class Invalidations:
    """The feeds of all masters, while somebody listens."""

    def __init__(self, cluster: Cluster, tick: Tick, audience: Audience) -> None:
        self.cluster = cluster
        self.tick = tick
        self.audience = audience
        self.feeds: dict[Address, InvalidationFeed] = {}
        self.wanted = False
        self._strays: set[Address] = set()
        """Nodes without slots that serve keys of slots under migration."""
        self._wanted_at = 0.0
        self._waiting: list[Callable[[], object]] = []
        self._waited = False
        self._patience: asyncio.TimerHandle | None = None
        self._round: asyncio.TimerHandle | None = None
        cluster.watchers.append(self.apply)
        cluster.strayed.append(self.asked)

    def __repr__(self) -> str:
        up = sum(feed.is_up for feed in self.feeds.values())
        return f"<Invalidations, {up} of {len(self.feeds)} feeds up>"

    def start(self) -> None:
        """Somebody will listen, soon at least."""
        self._wanted_at = self.cluster.loop.time()
        if not self.wanted:
            self.wanted = True
            self._match()
            self._look_after()

    def close(self) -> None:
        """End all feeds."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        self.wanted = False
        self._strays.clear()
        for feed in self.feeds.values():
            feed.close("nobody wants to hear of changes")
        self.feeds.clear()

    def covers(self, slot: int) -> bool:
        """Whether changes of the slot's keys are heard."""
        feed = self.feed_of(slot)
        return feed is not None and feed.is_up

    def feed_of(self, slot: int) -> InvalidationFeed | None:
        """The feed of the slot's owner."""
        owner = self.cluster.slotmap.owner(slot)
        return None if owner is None else self.feeds.get(owner.address)

    @property
    def is_settled(self) -> bool:
        """Whether each feed is up, or cannot be for now, or was waited for long enough."""
        feeds = self.feeds.values()
        return self._waited or (bool(feeds) and all(feed.is_up or feed.failing for feed in feeds))

    def when_settled(self, callback: Callable[[], object]) -> None:
        """Call back when that is so, or when it takes too long."""
        self._waiting.append(callback)
        if self._patience is None:
            hold_time = self.cluster.config.upstream.hold_time
            self._patience = self.cluster.loop.call_later(hold_time, self._give_up)

    def _give_up(self) -> None:
        self._waited = True
        self._go_on()

    def changed(self, feed: InvalidationFeed) -> None:
        """A feed is up, or could not be opened."""
        if self.is_settled:
            self._waited = False
            self._go_on()

    def _go_on(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    # -- which nodes --

    def apply(self, changed: Iterable[int]) -> None:
        """The slot map has changed; the owners of the slots `changed` are others now."""
        if self.wanted:
            self._match()
            self.audience.moved(changed)

    def asked(self, slot: int, target: Address) -> None:
        """One command for the slot goes to a node that does not own it."""
        feed = self.feeds.get(target)
        if not self.wanted or (feed is not None and feed.is_up):
            return
        self._strays.add(target)
        self._match()
        self.audience.moved([slot])

    def _match(self) -> None:
        """One feed for each master, and for each stray that can be reached."""
        self._strays -= {address for address, feed in self.feeds.items() if feed.failing}
        addresses = {node.address for node in self.cluster.slotmap.masters} | self._strays
        for address in self.feeds.keys() - addresses:
            self.feeds.pop(address).close("the node is no master any more")
        for address in addresses - self.feeds.keys():
            self.feeds[address] = InvalidationFeed(self, address)
            self.feeds[address].wake()

    def _look_after(self) -> None:
        now = self.cluster.loop.time()
        if self.audience.is_listening:
            self._wanted_at = now
        elif now - self._wanted_at >= IDLE_SECONDS:
            self.close()
            self.audience.missed()
            return
        for feed in list(self.feeds.values()):
            feed.look_after(now)
        self._round = self.cluster.loop.call_later(ROUND, self._look_after)
