"""Subscriptions: which topic is subscribed at which node, whatever becomes of the nodes.

Strategy. However many clients want a topic, it is subscribed once. The cluster passes plain
messages on to all its nodes, so all plain channels and patterns are subscribed at one master, the
home: what one publisher says to several channels is heard in its order, as one Redis has it. All
workers choose the same home, so that a PUBLISH there counts them. Topics of which every master
has messages of its own (keyspace events, MONITOR) are subscribed at each. A shard channel is
subscribed at its slot's owner.

When the slot map changes or a node cannot be reached, each topic that is concerned gets its new
places (`_place`). It leaves the old ones only when the new home has confirmed it: until then the
old one's messages count. Which messages count is said in feed.pyx.

Rules. A topic is ready when its home and all other reachable places have confirmed it; only then
do clients hear that they are subscribed. What is not ready that was before is a gap: messages may
be missed; the Probe is told when it begins and when it ends.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol

from rproxy.config import Address
from rproxy.routing.globs import may_begin
from rproxy.routing.slots import slot_of
from rproxy.transport.stream import Tick
from rproxy.upstream.feed import MONITOR, PATTERN, SHARD, Feed, Listener, Topic
from rproxy.upstream.recovery import Kind, Verdict, backoff, verdict
from rproxy.upstream.station import Done, Station

if TYPE_CHECKING:
    from rproxy.upstream.cluster import Cluster

EVENTS = (b"__keyspace@0__:", b"__keyevent@0__:")
"""How the channels of keyspace events begin: each node publishes those of its own keys only."""

ROUND = 1.0
"""Seconds between two looks at the feeds."""


class Audience(Protocol):
    """Who is told what becomes of topics."""

    def ready(self, topic: Topic) -> None:
        """Perhaps the topic has become ready: see `is_ready`."""

    def refused(self, topic: Topic, error: bytes) -> bool:
        """A node refuses the topic for good; whether it is to be tried again all the same."""


def is_everywhere(kind: int, name: bytes) -> bool:
    """Whether each master has messages of its own for the topic."""
    if kind == PATTERN:
        return any(may_begin(name, prefix) for prefix in EVENTS)
    return kind == MONITOR or (kind != SHARD and name.startswith(EVENTS))


class Subscriptions:
    """The topics of one worker, and the stations at which they are subscribed."""

    def __init__(self, cluster: Cluster, tick: Tick, audience: Audience) -> None:
        self.cluster = cluster
        self.tick = tick
        self.audience = audience
        self.topics: tuple[dict[bytes, Topic], ...] = ({}, {}, {}, {})
        self.stations: dict[Address, Station] = {}
        self.home: Station | None = None
        self._by_slot: defaultdict[int, set[Topic]] = defaultdict(set)
        self._masters: tuple[Address, ...] = ()
        self._seen: object = None
        # Topics that were ready and are not: since when.
        self._gone: dict[Topic, float] = {}
        self._missed = 0
        self._round: asyncio.TimerHandle | None = None
        cluster.watchers.append(self.apply)
        self._note_masters()

    def __repr__(self) -> str:
        counts = "/".join(str(len(topics)) for topics in self.topics)
        return f"<Subscriptions {counts} topics, {len(self.stations)} stations, home {self.home}>"

    # -- for the hub --

    def want(self, kind: int, name: bytes, listener: Listener) -> Topic:
        """The topic, subscribed from now on; its messages go to `listener`."""
        topic = Topic(kind, name, listener, is_everywhere(kind, name))
        self.topics[kind][name] = topic
        if kind == SHARD:
            self._by_slot[slot_of(name)].add(topic)
        self._place(topic)
        if self._round is None:
            self._look_after()
        return topic

    def drop(self, topic: Topic, done: Done) -> int:
        """End the topic; how often `done` will be called: once for each node that confirms."""
        del self.topics[topic.kind][topic.name]
        if topic.kind == SHARD:
            slot = slot_of(topic.name)
            self._by_slot[slot].discard(topic)
            if not self._by_slot[slot]:
                del self._by_slot[slot]
        topic.home = None
        self._gone.pop(topic, None)
        return sum(station.remove(topic, done) for station in list(topic.places))

    def is_ready(self, topic: Topic) -> bool:
        """Whether whatever is published from now on reaches the topic's listener."""
        return topic.home is not None and all(
            station in topic.confirmed or station.failing for station in topic.wanted
        )

    def subscribed_at(self, address: Address, topic: Topic) -> bool:
        """Whether the node there counts this worker among the topic's subscribers."""
        return self.stations.get(address) in topic.confirmed

    def after_messages(self, address: Address, done: Done) -> None:
        """Call `done` when all messages have come that the node there has sent so far."""
        station = self.stations.get(address)
        if station is None:
            done()
        else:
            station.after_messages(done)

    def publishers(self) -> Iterator[Address]:
        """The masters in the order in which they are to be tried for PUBLISH: the home first."""
        if self.home is not None:
            yield self.home.address
        yield from (a for a in self._masters if self.home is None or a != self.home.address)

    def close(self) -> None:
        """End all feeds."""
        if self._round is not None:
            self._round.cancel()
        for station in self.stations.values():
            station.topics.clear()
            station.close("rproxy stops")

    # -- places --

    def apply(self, changed: Iterable[int]) -> None:
        """The slot map has changed; the owners of the slots `changed` are others now."""
        if self._by_slot:
            for slot in changed:
                for topic in tuple(self._by_slot.get(slot, ())):
                    self._place(topic)
        if self._note_masters():
            self._place_plain()

    def _note_masters(self) -> bool:
        """Whether the masters are others than before."""
        nodes = self.cluster.slotmap.masters
        if nodes is self._seen:
            return False
        self._seen = nodes
        masters = tuple(sorted({node.address for node in nodes}, key=str))
        if masters == self._masters:
            return False
        self._masters = masters
        if self.home is None or self.home.address not in masters:
            self._choose_home()
        return True

    def _choose_home(self) -> None:
        """The first master that can be reached, as far as is known: all workers choose alike."""
        stations = [self._station(address) for address in self._masters]
        reachable = [station for station in stations if not station.failing] or stations
        self.home = reachable[0] if reachable else None

    def _station(self, address: Address) -> Station:
        station = self.stations.get(address)
        if station is None:
            station = self.stations[address] = Station(self, address)
        return station

    def _place_plain(self) -> None:
        for kind, topics in enumerate(self.topics):
            if kind != SHARD:
                for topic in tuple(topics.values()):
                    self._place(topic)

    def _place(self, topic: Topic) -> None:
        """Subscribe the topic where it belongs now."""
        if topic.kind == SHARD:
            owner = self.cluster.slotmap.owner(slot_of(topic.name))
            topic.target = None if owner is None else self._station(owner.address)
        else:
            topic.target = self.home
        wanted = {topic.target} if topic.target is not None else set()
        if topic.everywhere:
            wanted |= {self._station(address) for address in self._masters}
        topic.wanted = frozenset(wanted)
        for station in topic.wanted - topic.places:
            topic.places.add(station)
            station.add(topic)
        self._settle(topic)
        self._report(topic)

    def _settle(self, topic: Topic) -> None:
        """Let the target be the home once it has confirmed; then leave all other places."""
        target = topic.target
        if target is None or target not in topic.confirmed:
            return
        topic.home = target.feed
        for station in topic.places - topic.wanted:
            topic.places.discard(station)
            station.remove(topic)

    # -- for stations --

    def confirmed(self, station: Station, topic: Topic) -> None:
        """The node has confirmed the topic."""
        topic.confirmed.add(station)
        topic.refusals = 0
        self._settle(topic)
        self._report(topic)

    def _report(self, topic: Topic) -> None:
        """Tell who waits for the topic, if it is ready."""
        if self.is_ready(topic):
            self._note_ready(topic)
            self.audience.ready(topic)

    def refused(self, station: Station, topic: Topic, error: bytes) -> None:
        """The node has answered with an error: another one owns the slot, or it is not ready."""
        judged = verdict(error)
        topic.refusals += 1
        if judged.kind is Kind.PASS:
            code = error[1:].split(None, 1)[0].decode("ascii", "replace")
            self.cluster.probe.subscription_refused(str(station), code)
            if not self.audience.refused(topic, error):
                return
        elif judged.kind is Kind.NOAUTH and station.feed is not None:
            station.feed.close_for("the node wants authentication again")
            return
        elif judged.kind is not Kind.MOVED:
            self.cluster.refresh(f"{station} answered {judged.kind.name}")
        self._try_again(station, topic, judged)

    def _try_again(self, station: Station, topic: Topic, judged: Verdict) -> None:
        options = self.cluster.config.upstream
        delay = backoff(
            topic.refusals, options.retry_delay, options.reconnect_delay_max, random.random
        )
        # The first hint is followed at once; whoever is sent to and fro takes its time.
        first = topic.refusals == 1 and judged.kind is Kind.MOVED
        self.cluster.loop.call_later(
            0 if first else delay, partial(self._follow, station, topic, judged)
        )

    def _follow(self, station: Station, topic: Topic, judged: Verdict) -> None:
        if self.topics[topic.kind].get(topic.name) is not topic:
            return
        if judged.kind is Kind.MOVED:
            address = self.cluster.redirect_address(judged, station.address)
            if address is None:
                self.cluster.refresh("MOVED without an address")
            else:
                self.cluster.moved(judged.slot, address, str(station))
        station.begin_again(topic)

    def ended(self, station: Station, topic: Topic) -> None:
        """The node has lost the topic's slot, and says so: whoever it names has it now."""
        topic.confirmed.discard(station)
        self._note_loss(topic, station.feed)
        self.cluster.refresh(f"{station} has ended a shard channel's subscription")
        station.begin_again(topic)

    def lost(self, station: Station, feed: Feed, reason: str) -> None:
        """The station's feed is gone."""
        for topic in tuple(station.topics):
            topic.confirmed.discard(station)
            if station in topic.wanted:
                self._note_loss(topic, feed)
            else:
                topic.places.discard(station)
                del station.topics[topic]
        if station.topics:
            self.cluster.probe.subscriptions_lost(str(station), len(station.topics), reason)
            self.cluster.refresh(f"the subscriptions at {station} were lost")

    def failed(self, station: Station) -> None:
        """The node cannot be reached: what any other master can carry goes there."""
        self.cluster.refresh(f"{station} cannot be reached")
        if station is self.home:
            self._choose_home()
            if self.home is not station:
                self._place_plain()
        for topic in tuple(station.topics):
            self._report(topic)

    # -- gaps --

    def _note_loss(self, topic: Topic, feed: Feed | None) -> None:
        if topic.home is not None:
            self._gone.setdefault(topic, self.cluster.loop.time())
        if topic.home is feed:
            topic.home = None

    def _note_ready(self, topic: Topic) -> None:
        since = self._gone.pop(topic, None)
        if since is None:
            return
        self._missed += 1
        if not self._gone:
            gap = self.cluster.loop.time() - since
            self.cluster.probe.subscriptions_back(self._missed, gap)
            self._missed = 0

    def _look_after(self) -> None:
        now = self.cluster.loop.time()
        for address, station in list(self.stations.items()):
            if not station.look_after(now) and station is not self.home:
                del self.stations[address]
        self._round = self.cluster.loop.call_later(ROUND, self._look_after)
