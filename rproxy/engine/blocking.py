"""Commands that wait on the server: each on a leased link, so that nobody waits behind it.

Strategy. What the client sent before is answered first, then the command goes to a link of its own
and the session reads nothing more until the reply is there; but its socket is watched, and a client
that leaves takes the link with it at once, so nothing is popped for a ghost. When the slot changes
hands, or the node loses its role, the command is sent to the new owner with the time that is left.

Rules. A command is sent again only if a server proved that nothing was popped (a redirect, the
error with which a node sends blocked clients away), if it was never written, or if it changes
nothing (XREAD). A lost link proves nothing: the element may have been popped, and its reply lost.
Such a client gets an error that says so. XREAD from `$` asks for the stream's last entry in the
same write, so that after a move it goes on from there: it may see an entry more than it would
have, never one less. The time limit of ordinary commands does not apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hiredis

from rproxy import errors
from rproxy.engine.pinned import Pin
from rproxy.engine.timeouts import last_ids, place_of, shortened, waits_for
from rproxy.engine.transactions import ASKING, ignored
from rproxy.upstream.lease import Lease
from rproxy.upstream.route import Route, turns_back
from rproxy.upstream.sink import call
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

SENT_AWAY = b"-UNBLOCKED force unblock"
"""How a node that loses its role sends its blocked clients away (not CLIENT UNBLOCK's error)."""

FIRST_ID = b"0-0"
"""What is before every entry of a stream."""

GRACE = 5.0
"""Seconds after its timeout in which a blocked command has to be answered."""


class Blocked(Pin):
    """A session whose client waits in a blocking command."""

    def __init__(self, engine: Engine, session: Session, request: Request) -> None:
        super().__init__(session)
        self.engine = engine
        self.lane = engine.cluster.lanes[session.protocol]
        self.last = request
        self.slot = request.slot
        self.words = request.argv()
        self.place = place_of(request.spec, self.words)
        self.began = self.lane.now()
        self.lease: Lease | None = None
        self.route = Route(self.lane, self.slot, self._arrived, self._failed)
        self.below = session.pin
        """A watch that goes on."""
        engine.blocked.add(self)

    def __repr__(self) -> str:
        return f"<Blocked in {self.words[0]!r}, slot {self.slot}>"

    def start(self, session: Session) -> None:
        """Nothing else of the client is under way: send the command."""
        assert self.last is not None
        session.enter(self.last)
        self.keep(self.last)
        self.blocking = True
        if session.is_tracking:
            self.engine.tracking.note(session, self.last)
        self.session.watch()
        if not session.stream.is_closed:
            self.route.go()

    def _arrived(self, lease: Lease, asking: bool) -> None:
        self.lease, self.link, lease.holder = lease, lease.link, self
        if self.words[0].lower() == b"xread":
            self._ask_for_last_ids(lease)
        if asking:
            lease.link.send_setup(ignored(ASKING))
        self.send_kept()

    def _ask_for_last_ids(self, lease: Lease) -> None:
        for at, key in last_ids(self.words).items():

            def note(reply: bytes, at: int = at) -> None:
                found = newest(reply)
                if found is not None:
                    self.words[at] = found

            lease.link.send_setup(call(pack([b"XREVRANGE", key, b"+", b"-", b"COUNT", b"1"]), note))

    # -- the end --

    def finished(self) -> None:
        """The reply is with the client: on with its next command."""
        if self.lease is not None and self.lease.link.ready:
            self.lease.give_back()
        self._over()

    def _over(self) -> None:
        self.engine.blocked.discard(self)
        self.lease = None
        self.session.pin_to(self.below, straight=True)
        self.session.release()

    def left(self) -> None:
        """The client has gone: so does the link, or an element would be popped for nobody."""
        self.engine.blocked.discard(self)
        self.route.cancel()
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.holder = None
            lease.close("the client of a blocking command has left")
        if self.below is not None:
            self.below.left()

    def unblock(self, with_error: bool) -> bool:
        """CLIENT UNBLOCK: have the node end the waiting, as if its time were over or with an error.

        Whether the client was waiting at a node.
        """
        return self.lease is not None and self.lease.unblock(with_error)

    # -- trouble --

    def refused(self, request: Request, reply: bytes) -> None:
        """An error reply; or the link is lost, and `lease_lost` comes next."""
        lease = self.lease
        if lease is None or not lease.link.ready:
            return
        if turns_back(reply, self.slot) or reply.startswith(SENT_AWAY):
            self.lease = self.link = None
            lease.give_back()
            self._shorten()
            self.route.turned_back(lease.address, reply)
        else:
            self.settle(request, reply)
            self.finished()

    def lease_lost(self, lease: Lease, reason: str) -> None:
        """The link is gone, and the reply with it, if there was one."""
        assert self.last is not None
        safe = not self.was_written(self.last) or self.changes_nothing(self.last)
        self.lease = self.link = None
        if safe:
            self._shorten()
            self.route.lost(lease.address)
        else:
            self._failed(errors.MAY_HAVE_RUN)

    def _failed(self, error: bytes) -> None:
        assert self.last is not None
        self.settle(self.last, error)
        self._over()

    def _shorten(self) -> None:
        """Next time, wait for what is left; read on from where the stream ended."""
        assert self.last is not None
        assert self.place is not None
        seconds = waits_for(self.place, self.words)
        if not seconds:
            self.rewrite(self.last, pack(self.words))
            return
        left = self.began + seconds - self.lane.now()
        self.rewrite(self.last, shortened(self.place, self.words, left))

    def look_after(self, lease: Lease, now: float) -> None:
        """The regular look: a node that is silent past the time, or serves the slot no more."""
        if self.place is None or lease.link.stream.is_closed:
            return
        seconds = waits_for(self.place, self.words)
        if seconds and now > self.began + seconds + GRACE:
            lease.close("no answer came when a blocking command's time was over")


def newest(reply: bytes) -> bytes | None:
    """The id in a reply of XREVRANGE with one entry at most; None where that failed."""
    parser = hiredis.Reader()
    parser.feed(reply)
    entries: Any = parser.gets()
    if not isinstance(entries, list):
        return None
    return bytes(entries[0][0]) if entries else FIRST_ID


def may_wait(request: Request) -> bool:
    """Whether a command that blocks is asked to: XREAD is with BLOCK only."""
    return place_of(request.spec, request.argv()) is not None


def block(engine: Engine, session: Session, request: Request) -> None:
    """Take a command that may wait; its slot is assigned."""
    if len(engine.blocked) >= engine.config.clients.max_blocked:
        session.answer(errors.MAX_BLOCKED, request)
    else:
        blocked = Blocked(engine, session, request)
        session.pin_to(blocked)
        session.hold(blocked.start)
