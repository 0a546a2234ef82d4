"""The Hub: who is subscribed to what, among the clients of one worker.

Strategy. Each topic has a Crowd, the sessions that hear it. The first one makes the worker
subscribe the topic upstream, the last one that leaves ends that. A client whose topics are
confirmed already is told so at once. Otherwise its session is held: nothing of it is under way,
nothing more is read, so the confirmation and the first message come in their order; it joins the
crowds in the same moment in which its reply is written. A client that is the last to leave a topic
gets its reply once the node has confirmed the end, so that whatever is asked then (PUBLISH, PUBSUB
NUMSUB) does not count it any more; who publishes to that topic meanwhile waits as well. All wait
`upstream.hold_time` at most.

Rules. What one client can make big is bounded: the number of its topics and the bytes of their
names. A client that goes, or resets, leaves everything, also what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.crowd import Crowd
from rproxy.routing.globs import matches
from rproxy.routing.pins import Pins
from rproxy.upstream.feed import CHANNEL, MONITOR, PATTERN, SHARD, Topic
from rproxy.upstream.sink import answer
from rproxy.upstream.subscriptions import Subscriptions, is_everywhere
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.config import Config
    from rproxy.engine.client import Client
    from rproxy.engine.session import Session
    from rproxy.transport.stream import Tick
    from rproxy.upstream.cluster import Cluster

Told = Callable[[bytes | None], None]
"""Called when a client's topics are confirmed, or with the error that stands in the way."""


class Subscriber:
    """What one client is subscribed to."""

    __slots__ = ("bytes", "joining", "topics")

    def __init__(self) -> None:
        # Of each kind: name -> Topic.
        self.topics: tuple[dict[bytes, Topic], ...] = ({}, {}, {}, {})
        self.bytes = 0
        self.joining: Joining | None = None

    def count(self, kind: int) -> int:
        """The number that a reply tells: shard channels are counted apart."""
        if kind == SHARD:
            return len(self.topics[SHARD])
        return len(self.topics[CHANNEL]) + len(self.topics[PATTERN])

    @property
    def total(self) -> int:
        """All its channels and patterns."""
        return self.count(CHANNEL) + self.count(SHARD)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Channels, patterns, shard channels."""
        return len(self.topics[CHANNEL]), len(self.topics[PATTERN]), len(self.topics[SHARD])

    def __iter__(self) -> Iterator[Topic]:
        for topics in self.topics:
            yield from topics.values()


class Joining:
    """A client that waits until its new topics are confirmed."""

    __slots__ = ("missing", "session", "timer", "told", "topics")

    def __init__(self, session: Session, topics: Sequence[Topic], told: Told) -> None:
        self.session = session
        self.topics = topics
        self.told = told
        self.missing: set[Topic] = set()
        self.timer: object = None


class Hub:
    """The subscriptions of one worker's clients."""

    def __init__(self, config: Config, cluster: Cluster, tick: Tick, pins: Pins) -> None:
        self.config = config
        self.pins = pins
        self.loop = cluster.loop
        self.pubsub = Subscriptions(cluster, tick, self)
        # On feeds of their own: what a node shows there is for nobody else.
        self.monitors = Subscriptions(cluster, tick, self)
        self._waiting: dict[Topic, set[Joining]] = {}
        # Topics whose end is not confirmed yet: how many nodes have to.
        self._leaving: dict[Topic, int] = {}
        self._publishers: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Hub {self.pubsub!r}, {len(self._waiting)} awaited>"

    def close(self) -> None:
        """End all feeds."""
        self.pubsub.close()
        self.monitors.close()

    def _way(self, kind: int) -> Subscriptions:
        return self.monitors if kind == MONITOR else self.pubsub

    # -- joining --

    def refusal(self, subscriber: Subscriber, kind: int, names: Sequence[bytes]) -> bytes | None:
        """The error for more topics than one client may have, or None."""
        limits = self.config.clients
        fresh = set(names) - subscriber.topics[kind].keys()
        if subscriber.total + len(fresh) > limits.max_subscriptions:
            return errors.too_many_reply("clients.max_subscriptions")
        if subscriber.bytes + sum(map(len, fresh)) > limits.subscription_bytes:
            return errors.too_many_reply("clients.subscription_bytes")
        return None

    def join(self, session: Session, kind: int, names: Iterable[bytes], told: Told) -> None:
        """Have the session, of which nothing is under way, hear the topics; `told` is called once
        they are confirmed, perhaps at once. Else the session is held meanwhile.
        """
        subscriber = subscriber_of(session)
        fresh = [name for name in dict.fromkeys(names) if name not in subscriber.topics[kind]]
        joining = Joining(session, [self._topic(kind, name) for name in fresh], told)
        joining.missing = {t for t in joining.topics if not self._way(kind).is_ready(t)}
        for topic in joining.topics:
            self._waiting.setdefault(topic, set()).add(joining)
        subscriber.joining = joining
        if not joining.missing:
            self._joined(joining)
            return
        session.hold()
        joining.timer = self.loop.call_later(
            self.config.upstream.hold_time, self._give_up, joining, errors.NOT_SUBSCRIBED
        )

    def _topic(self, kind: int, name: bytes) -> Topic:
        """The topic, subscribed from now on if it was not."""
        way = self._way(kind)
        topic = way.topics[kind].get(name)
        if topic is None:
            pinned = bool(self.pins.pairs) and is_everywhere(kind, name)
            crowd = Crowd(kind == MONITOR, self.pins if pinned else None)
            topic = way.want(kind, name, crowd)
        return topic

    def _joined(self, joining: Joining) -> None:
        """All is confirmed: the session hears from now on."""
        self._stop_waiting(joining)
        session = joining.session
        subscriber = subscriber_of(session)
        for topic in joining.topics:
            crowd_of(topic).add(session)
            subscriber.topics[topic.kind][topic.name] = topic
            subscriber.bytes += len(topic.name)
        session.subscribe(subscriber.total > 0)
        joining.told(None)
        if session.is_held:
            session.release()

    def _give_up(self, joining: Joining, error: bytes) -> None:
        """The topics cannot be subscribed: the client gets the error, and none of them."""
        self._stop_waiting(joining)
        for topic in joining.topics:
            self._let_go(topic)
        joining.told(error)
        if joining.session.is_held:
            joining.session.release()

    def _stop_waiting(self, joining: Joining) -> None:
        subscriber_of(joining.session).joining = None
        if joining.timer is not None:
            joining.timer.cancel()  # type: ignore[attr-defined]
        for topic in joining.topics:
            waiting = self._waiting[topic]
            waiting.discard(joining)
            if not waiting:
                del self._waiting[topic]

    # -- what becomes of topics (an Audience) --

    def ready(self, topic: Topic) -> None:
        """Whoever waits for this topic last is subscribed."""
        for joining in tuple(self._waiting.get(topic, ())):
            joining.missing.discard(topic)
            if not joining.missing:
                self._joined(joining)

    def refused(self, topic: Topic, error: bytes) -> bool:
        """Those who wait get the error; those who hear it already are to have it back."""
        for joining in tuple(self._waiting.get(topic, ())):
            self._give_up(joining, error)
        return len(crowd_of(topic)) > 0

    # -- leaving --

    def part(
        self, session: Session, kind: int, names: Sequence[bytes] | None
    ) -> tuple[list[tuple[bytes, int]], int, Callable[[Request, bytes], None]]:
        """Have the session hear the topics no more, or none of that kind.

        Each name with the count of topics left; how many nodes have to confirm that; how to answer
        the request with a reply once they have.
        """
        ending = Ending()
        subscriber = subscriber_of(session)
        counts = []
        for name in list(subscriber.topics[kind]) if names is None else names:
            topic = subscriber.topics[kind].pop(name, None)
            if topic is not None:
                subscriber.bytes -= len(name)
                crowd_of(topic).discard(session)
                ending.missing += self._let_go(topic, ending.one)
            counts.append((name, subscriber.count(kind)))
        session.subscribe(subscriber.total > 0)
        if ending.missing:
            self.loop.call_later(self.config.upstream.hold_time, ending.all)
        return counts, ending.missing, ending.answer

    def _let_go(self, topic: Topic, done: Callable[[], object] = lambda: None) -> int:
        """End the topic if nobody hears it or waits for it; how often `done` will be called."""
        way = self._way(topic.kind)
        if len(crowd_of(topic)) or topic in self._waiting:
            return 0
        if way.topics[topic.kind].get(topic.name) is not topic:
            return 0

        def confirmed() -> None:
            self._confirmed(topic)
            done()

        count = way.drop(topic, confirmed)
        if count:
            self._leaving[topic] = count
        return count

    def _confirmed(self, topic: Topic) -> None:
        """A node has confirmed the end of a topic: after the last one it counts nobody for it."""
        if topic not in self._leaving:
            return
        self._leaving[topic] -= 1
        if not self._leaving[topic]:
            del self._leaving[topic]
            self._let_publish()

    def _let_publish(self) -> None:
        publishers, self._publishers = self._publishers, []
        for publish in publishers:
            publish()

    def is_leaving(self, kind: int, channel: bytes | None = None) -> bool:
        """Whether a node may still count this worker for a topic that nobody hears any more: one
        to which is sent what is published to the channel, or any.
        """
        return any(
            channel is None
            or (topic.kind == kind and topic.name == channel)
            or (kind == CHANNEL and topic.kind == PATTERN and matches(topic.name, channel))
            for topic in self._leaving
        )

    def when_left(self, publish: Callable[[], object]) -> None:
        """Call `publish` when an end was confirmed; all are taken for confirmed after a while."""
        if not self._publishers:
            self.loop.call_later(self.config.upstream.hold_time, self._give_up_ends)
        self._publishers.append(publish)

    def _give_up_ends(self) -> None:
        if self._publishers:
            self._leaving.clear()
            self._let_publish()

    def leave(self, session: Session) -> None:
        """The client is gone, or wants to be as new."""
        subscriber: Subscriber | None = session.client.subscriber
        if subscriber is None:
            return
        if subscriber.joining is not None:
            joining = subscriber.joining
            self._stop_waiting(joining)
            for topic in joining.topics:
                self._let_go(topic)
        for topic in subscriber:
            crowd_of(topic).discard(session)
            self._let_go(topic)
        session.client.subscriber = None
        session.subscribe(False)
        session.monitor(False)

    # -- counting --

    def crowd(self, kind: int, name: bytes) -> int:
        """Clients of this worker that are subscribed to the topic."""
        topic = self.pubsub.topics[kind].get(name)
        return 0 if topic is None else len(crowd_of(topic))

    def hearing(self, kind: int, channel: bytes) -> Iterator[Topic]:
        """This worker's topics whose clients hear what is published to the (shard) channel."""
        topic = self.pubsub.topics[kind].get(channel)
        if topic is not None:
            yield topic
        if kind == SHARD:
            return
        for pattern, topic in self.pubsub.topics[PATTERN].items():
            if matches(pattern, channel):
                yield topic


class Ending:
    """Counts the nodes that confirm the end of topics, for the reply that waits for them."""

    __slots__ = ("missing", "reply", "request")

    def __init__(self) -> None:
        self.missing = 0
        self.request: Request | None = None
        self.reply = b""

    def answer(self, request: Request, reply: bytes) -> None:
        """Answer the request, which has its place, once all is confirmed."""
        self.request, self.reply = request, reply
        if self.missing <= 0:
            self.all()

    def one(self) -> None:
        """One node has confirmed the end of one topic."""
        self.missing -= 1
        if self.missing == 0:
            self.all()

    def all(self) -> None:
        """Wait no longer."""
        request, self.request = self.request, None
        if request is not None:
            answer(request, self.reply)


def subscriber_of(session: Session) -> Subscriber:
    """What the session's client is subscribed to."""
    client: Client = session.client
    if client.subscriber is None:
        client.subscriber = Subscriber()
    return client.subscriber


def crowd_of(topic: Topic) -> Crowd:
    """The sessions that hear the topic."""
    crowd = topic.listener
    assert isinstance(crowd, Crowd)
    return crowd
