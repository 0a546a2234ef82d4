"""A Station keeps one node's feed: connects, subscribes, notices its loss, subscribes again.

Strategy. There is one command a topic, so each reply concerns one topic; the replies come in the
order of the commands, with messages between them. A feed exists while the station has topics, and
a little longer. After a loss it is opened again at once, then after a back-off with jitter; all
topics are subscribed anew when it is up.

Rules. What a topic's place is, Subscriptions decides; a station only carries it out and reports.
A node ends a shard channel's subscription by itself when the slot goes: that looks like a reply
to SUNSUBSCRIBE, and is one only if such a reply is due.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from rproxy.config import Address
from rproxy.upstream.feed import MONITOR, SHARD, Feed, Topic
from rproxy.upstream.opening import Opening, keep_trying
from rproxy.wire.frames import pack

if TYPE_CHECKING:
    from rproxy.upstream.subscriptions import Subscriptions

VERBS = (
    (b"SUBSCRIBE", b"UNSUBSCRIBE"),
    (b"PSUBSCRIBE", b"PUNSUBSCRIBE"),
    (b"SSUBSCRIBE", b"SUNSUBSCRIBE"),
    (b"MONITOR", b""),
)
"""Of each kind of topic: the command that begins it, and the one that ends it."""

PING = pack([b"PING"])

IDLE_SECONDS = 10.0
"""How long a feed without topics is kept."""

Done = Callable[[], object]


def _nothing() -> None:
    """What follows an end that nobody waits for."""


class Station:
    """The feed of one node, and the topics that are subscribed there."""

    protocol = 2

    def __init__(self, subscriptions: Subscriptions, address: Address) -> None:
        self.subscriptions = subscriptions
        self.cluster = subscriptions.cluster
        self.address = address
        self.topics: dict[Topic, None] = {}
        self.feed: Feed | None = None
        self.failing = False
        # Replies that are due: the verb, its topic (None for a PING), who waits for the reply.
        self._due: deque[tuple[bytes, Topic | None, Done]] = deque()
        self._asked_at = 0.0
        self._awaiting: list[Done] = []
        self._connecting: asyncio.Task[None] | None = None
        self._opening: Opening | None = None
        self._idle_since = 0.0

    def __str__(self) -> str:
        return str(self.address)

    def __repr__(self) -> str:
        return f"<Station {self.address}, {len(self.topics)} topics, {self.feed or 'no feed'}>"

    # -- topics --

    def add(self, topic: Topic) -> None:
        """Subscribe the topic here, now or when the feed is up."""
        self.topics[topic] = None
        if self.feed is None:
            self.wake()
        else:
            self._begin(topic)

    def begin_again(self, topic: Topic) -> None:
        """Subscribe a topic anew that is still to be here but is not."""
        wanted = self in topic.wanted and self not in topic.confirmed
        if wanted and self.feed is not None and topic in self.topics:
            self._begin(topic)

    def _begin(self, topic: Topic) -> None:
        verb = VERBS[topic.kind][0]
        words = [verb] if topic.kind == MONITOR else [verb, topic.name]
        self._say(pack(words), verb.lower(), topic, _nothing)

    def _say(self, frame: bytes, verb: bytes, topic: Topic | None, done: Done) -> None:
        """Write a command, and expect its reply."""
        assert self.feed is not None
        if not self._due:
            self._asked_at = self.cluster.loop.time()
        self._due.append((verb, topic, done))
        self.feed.say(frame)

    def remove(self, topic: Topic, done: Done = _nothing) -> bool:
        """End the topic here; whether `done` will be called, once the node has confirmed that."""
        if self.topics.pop(topic, self) is self:
            return False
        topic.confirmed.discard(self)
        if not self.topics:
            self._idle_since = self.cluster.loop.time()
        if self.feed is None:
            return False
        if topic.kind == MONITOR:
            self.close("nobody monitors any more")
            return False
        verb = VERBS[topic.kind][1]
        self._say(pack([verb, topic.name]), verb.lower(), topic, done)
        return True

    def after_messages(self, done: Done) -> None:
        """Call `done` once all messages have come that the node has sent so far: one PING asks for
        all that is wanted in one turn of the loop.
        """
        self._awaiting.append(done)
        if len(self._awaiting) == 1:
            self.cluster.loop.call_soon(self._ping)

    def _ping(self) -> None:
        awaiting, self._awaiting = self._awaiting, []

        def pong() -> None:
            for done in awaiting:
                done()

        if self.feed is None:
            pong()
        else:
            self._say(PING, b"pong", None, pong)

    # -- connecting --

    def wake(self) -> None:
        """See that the feed is being opened."""
        if self._connecting is None and self.feed is None and self.topics:
            self._connecting = self.cluster.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            options = self.cluster.config.upstream
            await keep_trying(self._open, self._failed, lambda: bool(self.topics), options)
        finally:
            self._connecting = None

    async def _open(self) -> None:
        feed = Feed(self.subscriptions.tick, self, self.subscriptions.topics)
        self._opening = Opening()
        try:
            await self._opening.run(feed, self.address, self.cluster, self.protocol)
        except BaseException:
            feed.close_for("the connection could not be set up")
            raise
        finally:
            self._opening = None
        self.opened(feed)

    def opened(self, feed: Feed) -> None:
        """The feed is up: subscribe all that is to be subscribed here."""
        self.feed, self.failing = feed, False
        self._idle_since = self.cluster.loop.time()
        self.cluster.probe.link_up(str(self.address), self.protocol)
        for topic in self.topics:
            self._begin(topic)

    def _failed(self, reason: str) -> None:
        self.failing = True
        self.cluster.probe.link_down(str(self.address), self.protocol, reason)
        self.subscriptions.failed(self)

    # -- what the node says --

    def replied(self, feed: Feed, frame: bytes) -> None:
        """Anything but a message: the reply that is due, or a subscription that the node ends."""
        if feed is not self.feed:
            return
        verb, name = _read(frame)
        if not self._is_due(verb, name):
            self._ended(verb, name)
            return
        due, topic, done = self._due.popleft()
        done()
        # Whether it is refused or confirmed, only the begin of what is still wanted matters.
        if topic is None or topic not in self.topics or due != VERBS[topic.kind][0].lower():
            return
        if verb == b"-":
            self.subscriptions.refused(self, topic, frame)
        else:
            self.subscriptions.confirmed(self, topic)

    def _is_due(self, verb: bytes, name: bytes) -> bool:
        """Whether that is the reply to the oldest command; an end must name its topic, too."""
        if not self._due:
            return False
        due, topic, _ = self._due[0]
        return verb == b"-" or (due == verb and (topic is None or name == topic.name))

    def _ended(self, verb: bytes, name: bytes) -> None:
        """The node says that it has no such slot any more, or is out of step."""
        topic = self.subscriptions.topics[SHARD].get(name)
        if verb != VERBS[SHARD][1].lower():
            assert self.feed is not None
            self.feed.close_for(f"an unexpected reply: {verb.decode('ascii', 'replace')}")
        elif topic is not None and topic in self.topics:
            self.subscriptions.ended(self, topic)

    # -- losing --

    def lost(self, feed: Feed, reason: str) -> None:
        """The feed is gone: open it again if there is something to subscribe."""
        if feed is not self.feed:
            if self._opening is not None:
                self._opening.lost(reason)
            return
        self.feed = None
        due, self._due = self._due, deque()
        self.subscriptions.lost(self, feed, reason)
        for _, _, done in due:
            done()
        self.wake()

    def look_after(self, now: float) -> bool:
        """Ping a quiet feed, close one that is dead; whether the station is still needed."""
        feed, options = self.feed, self.cluster.config.upstream
        if feed is None:
            return bool(self.topics) or self._connecting is not None
        quiet = now - feed.heard_at
        if not self.topics and not self._due and now - self._idle_since > IDLE_SECONDS:
            self.close("nothing is subscribed any more")
            return False
        waited = min(quiet, now - self._asked_at)
        if self._due and waited > options.stall_timeout:
            feed.close_for(f"no byte came for {waited:.1f} s")
        elif not self._due and quiet > options.heartbeat:
            self._ping()
        return True

    def close(self, reason: str) -> None:
        """End the feed for good."""
        if self._connecting is not None:
            self._connecting.cancel()
        feed, self.feed = self.feed, None
        self._due.clear()
        if feed is not None:
            feed.close_for(reason)


def _read(frame: bytes) -> tuple[bytes, bytes]:
    """The verb and the name of a reply; `-` for an error."""
    if frame[:1] == b"-":
        return b"-", b""
    if frame[:1] == b"+":
        return (b"monitor" if frame == b"+OK\r\n" else frame[1:-2].lower()), b""
    _, _, verb, rest = frame.split(b"\r\n", 3)
    size, _, tail = rest.partition(b"\r\n")
    return verb, tail[: max(0, int(size[1:]))]
