"""Client-side caching: who has read what, and is told when it changes.

Strategy. While a client tracks, the worker hears of every key that changes at any master (see
upstream/invalidations.py), whoever changes it and on whichever link it was read. The keys that a
tracking client reads, in whatever command, are put into the table in the moment in which the
command is sent; a change takes the key out again and its clients are told. BCAST needs no table: a
change goes to whoever named a prefix of the key. So reads cost the nodes nothing, and no link is in
a state that other clients could feel; the price is that each write is told to each worker with a
client that tracks.

Rules. News of a change waits behind the replies to everything that the client has under way: it
never overtakes the value that it is about. That makes the rest simple. What was sent before the
news came is answered before the client is told; what is sent later was executed after the change,
or is in the table again. Where changes may go unheard (a feed is down, a slot has moved, a node
sends a command on), the client is told to forget: the keys of the slot, or everything. A read while
its slot is not covered is followed at once by an invalidation of its keys. In here keys have their
names at the servers, also pinned ones (routing/pins.pyx); clients name prefixes of what they call
them, and are told that. Clients that track are off the straight path; nobody else is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rproxy.engine.multi import of
from rproxy.engine.noloop import Write, expected
from rproxy.engine.replies import encode
from rproxy.engine.tracking_table import News, Tracker, TrackingTable
from rproxy.routing.slots import request_keys, slot_of
from rproxy.routing.specs import CommandFlag, CommandSpec
from rproxy.upstream.invalidations import Invalidations
from rproxy.upstream.sink import call
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

NEWS_LIMIT = 1 << 20
"""Bytes of news that may wait for one client; beyond that it is told to forget everything."""

MOST_LOOKS = 10000
"""Values that one node is asked for at once, for NOLOOP."""

SCRIPTS = frozenset({"eval", "evalsha", "fcall", "eval_ro", "evalsha_ro", "fcall_ro"})
"""Commands that may read, whatever their flags say."""

INVALIDATE = b">2\r\n" + encode(b"invalidate")
BROKEN = b">2\r\n" + encode(b"tracking-redir-broken")
MESSAGE = b"*3\r\n" + encode(b"message") + encode(b"__redis__:invalidate")
"""How messages begin: an invalidation, the loss of the client that was to get it, an invalidation
for a RESP2 client.
"""


def reads(spec: CommandSpec) -> bool:
    """Whether a client may remember what the command answers."""
    return bool(spec.flags & CommandFlag.READONLY) or spec.name in SCRIPTS


class Tracking:
    """The clients of one worker that track, and their table (an Audience of Invalidations)."""

    def __init__(self, engine: Engine) -> None:
        limits = engine.config.clients
        self.engine = engine
        self.trackers: set[Tracker] = set()
        self.prefixes: dict[bytes, dict[Tracker, None]] = {}
        self.table = TrackingTable(limits.tracking_keys, limits.tracking_bytes)
        self.invalidations = Invalidations(engine.cluster, engine.shared.tick, self)

    def __repr__(self) -> str:
        return f"<Tracking {len(self.trackers)} clients, {self.table!r}>"

    def close(self) -> None:
        """End the feeds."""
        self.invalidations.close()

    # -- who tracks --

    @property
    def is_listening(self) -> bool:
        """Whether somebody tracks."""
        return bool(self.trackers)

    def awaits(self, callback: Callable[[], object]) -> bool:
        """Whether the nodes have to be asked first to tell of changes; then call back."""
        self.invalidations.start()
        if self.invalidations.is_settled:
            return False
        self.invalidations.when_settled(callback)
        return True

    def turn_on(self, tracker: Tracker) -> None:
        """The client tracks, as its Tracker says."""
        assert tracker.session is not None
        self.invalidations.start()
        tracker.on = True
        self.trackers.add(tracker)
        for prefix in tracker.prefixes:
            self.prefixes.setdefault(prefix, {})[tracker] = None
        tracker.session.track(True)

    def turn_off(self, tracker: Tracker) -> None:
        """The client tracks no more; what it has read stays in the table, as in Redis."""
        for prefix in tracker.prefixes:
            followers = self.prefixes.get(prefix, {})
            followers.pop(tracker, None)
            if not followers:
                self.prefixes.pop(prefix, None)
        tracker.prefixes.clear()
        tracker.on = tracker.bcast = tracker.optin = tracker.optout = False
        tracker.noloop = tracker.caching = tracker.broken = False
        self.trackers.discard(tracker)
        if tracker.session is not None:
            tracker.session.track(False)

    def leave(self, session: Session) -> None:
        """The client is gone, or wants to be as new."""
        tracker: Tracker | None = session.client.tracker
        if tracker is not None and tracker.on:
            self.turn_off(tracker)
        if tracker is not None and session.stream.is_closed:
            tracker.session = None

    # -- what they read --

    def note(self, session: Session, request: Request) -> None:
        """A tracking client's command has gone down the ladder: remember what it reads."""
        tracker: Tracker = session.client.tracker
        spec = request.spec
        if spec is None or (session.is_held and not session.is_last(request)):
            return  # it comes again when it is known, or when its session goes on
        transaction = of(session)
        if transaction is None or not transaction.in_multi:
            self._note_all(tracker, session, [request])
        elif spec.name == "exec":
            self._note_all(tracker, session, transaction.kept)
        else:
            return
        if not spec.name.startswith("client"):
            tracker.caching = False

    def _note_all(self, tracker: Tracker, session: Session, requests: list[Request]) -> None:
        keys: list[bytes] = []
        for request in requests:
            if request.spec is None:
                continue
            if reads(request.spec):
                keys += self._keys(request)
            elif tracker.noloop:
                self._expect(tracker, session, request)
        if keys:
            self._remember(tracker, session, keys)

    def _keys(self, request: Request) -> list[bytes]:
        argv = request.argv()
        return [argv[place] for place in request_keys(self.engine.meant, argv)]

    def _remember(self, tracker: Tracker, session: Session, keys: list[bytes]) -> None:
        """The client will have these keys; those whose changes go unheard, not for long."""
        exposed = []
        waits = session.pin is not None and session.pin.blocking
        for key in keys:
            slot = slot_of(key)
            if waits or not self.invalidations.covers(slot):
                exposed.append(key)
            elif tracker.remembers:
                self.table.add(key, slot, tracker)
        if exposed and (tracker.bcast or tracker.remembers):
            session.mark(partial(self._expose, tracker, exposed))
        self._shrink()

    def _expose(self, tracker: Tracker, keys: list[bytes]) -> None:
        self._write(tracker, [[key] for key in keys])

    # -- NOLOOP: what they write themselves --

    def _expect(self, tracker: Tracker, session: Session, request: Request) -> None:
        """A write of the client's own: after its reply it is seen whether it was the last one."""
        for key, value in expected(request):
            if session.under_way >= session.shared.max_in_flight:
                return  # nobody looks: it is told
            tracker.writes.setdefault(key, Write()).count += 1
            session.mark(partial(self._look, tracker, key, value))

    def _look(self, tracker: Tracker, key: bytes, value: bytes) -> None:
        """The write is answered: ask for the value, on the feed that has told of it before."""
        looked = partial(self._looked, tracker, key, value)
        feed = self.invalidations.feed_of(slot_of(key))
        if feed is None or feed.link is None or len(feed.link) >= MOST_LOOKS:
            looked(b"")
        else:
            feed.link.take(call(pack([b"GET", key]), looked))

    def _looked(self, tracker: Tracker, key: bytes, value: bytes, reply: bytes) -> None:
        """If it is not its own value that the key has now, the client hears of the change."""
        write = tracker.writes[key]
        write.count -= 1
        if write.count:
            return
        del tracker.writes[key]
        if write.heard and reply != value:
            self._tell(tracker, [key])

    def _is_own(self, tracker: Tracker, key: bytes) -> bool:
        """Whether the change may be the client's own: then it is told later, or never."""
        write = tracker.writes.get(key) if tracker.noloop else None
        if write is None:
            return False
        write.heard = True
        return True

    # -- what changes (an Audience) --

    def invalidated(self, keys: list[bytes] | None) -> None:
        """These keys have changed at some node; None: all of its keys."""
        if keys is None:
            self.missed()
            return
        if self.table.keys:
            for key in keys:
                self._changed(key, slot_of(key))
        names = self.engine.pins.found(keys) if self.prefixes else []
        for prefix, followers in list(self.prefixes.items()):
            found = [keys[place] for place, name in enumerate(names) if name.startswith(prefix)]
            for tracker in list(followers) if found else ():
                self._follow(tracker, found)

    def _changed(self, key: bytes, slot: int) -> None:
        """Tell those who have read the key."""
        for tracker in self.table.take(key, slot):
            if self._is_own(tracker, key):
                self.table.add(key, slot, tracker)  # it may have read it since
            elif tracker.on and not tracker.bcast:
                self._tell(tracker, [key])

    def _follow(self, tracker: Tracker, keys: list[bytes]) -> None:
        """Tell a client in BCAST mode."""
        if tracker.writes:
            keys = [key for key in keys if not self._is_own(tracker, key)]
        if keys:
            self._tell(tracker, keys)

    def moved(self, slots: Iterable[int]) -> None:
        """What clients know of these slots' keys may be wrong."""
        any_slot = False
        for slot in slots:
            any_slot = True
            for key, readers in self.table.take_slot(slot):
                self._let_go(readers, key)
        if any_slot:
            for tracker in [tracker for tracker in self.trackers if tracker.bcast]:
                self._tell(tracker, None)

    def missed(self) -> None:
        """Whatever clients know may be wrong."""
        self.table.clear()
        for tracker in list(self.trackers):
            self._tell(tracker, None)

    def limit(self, max_keys: int) -> None:
        """So many keys may be in the table from now on; 0: as many as the configuration says."""
        most = self.engine.config.clients.tracking_keys
        self.table.max_keys = min(max_keys, most) or most
        self._shrink()

    def _shrink(self) -> None:
        while (victim := self.table.overflow()) is not None:
            self._let_go(victim[1], victim[0])

    # -- telling --

    def _let_go(self, readers: Iterable[Tracker], key: bytes) -> None:
        """The key is in the table no more, whether it has changed or not."""
        for tracker in readers:
            if tracker.on and not tracker.bcast:
                self._tell(tracker, [key])

    def _tell(self, tracker: Tracker, keys: list[bytes] | None) -> None:
        """Have the client hear it, behind the replies to all that is under way."""
        session = tracker.session
        if session is None or session.stream.is_closed or self._knows(tracker, session, keys):
            return
        if self._is_patient(session, keys):
            self._write(tracker, [keys])
        elif tracker.mark is not None and session.is_last(tracker.mark):
            tracker.news.add(keys, NEWS_LIMIT)
        else:
            news = tracker.news = News()
            news.add(keys, NEWS_LIMIT)
            tracker.mark = session.mark(lambda: self._write(tracker, news.messages))

    def _knows(self, tracker: Tracker, session: Session, keys: list[bytes] | None) -> bool:
        """Whether the client forgets everything already, and has asked for nothing since."""
        if keys is not None:
            return False
        if tracker.forgot_at == session.commands_seen:
            return True
        tracker.forgot_at = -1 if session.is_held else session.commands_seen
        return False

    def _is_patient(self, session: Session, keys: list[bytes] | None) -> bool:
        """Whether the client waits in a blocking command about other keys: it hears at once."""
        pin = session.pin
        if pin is None or not pin.blocking or pin.last is None:
            return False
        return keys is None or set(keys).isdisjoint(self._keys(pin.last))

    def _write(self, tracker: Tracker, messages: list[list[bytes] | None]) -> None:
        """It is the messages' turn: to the client itself, or to the one that it has named."""
        session = tracker.session
        if session is None or not tracker.on:
            return
        messages = [keys and self.engine.pins.found(keys) for keys in messages]
        if tracker.target is None:
            if session.protocol == 3:
                push(session, INVALIDATE, messages)
            return
        other: Session | None = tracker.target.session
        if other is None or other.is_ending or other.stream.is_closed:
            tracker.broken = True
            if session.protocol == 3:
                push(session, BROKEN, [tracker.redirect] * len(messages))
        elif other.protocol == 3:
            push(other, INVALIDATE, messages)
        elif other.is_subscribed:
            push(other, MESSAGE, messages)


def push(session: Session, head: bytes, bodies: Sequence[Any]) -> None:
    """Write messages that begin alike; who does not read them is dropped."""
    protocol = session.protocol
    if not session.interject(b"".join(head + encode(body, protocol) for body in bodies)):
        session.close("does not read its invalidations fast enough")
