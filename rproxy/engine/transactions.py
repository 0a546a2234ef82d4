"""MULTI, EXEC, DISCARD, WATCH and UNWATCH on a link of the session's own.

A pipeline that brings a whole transaction of keyed commands never comes here: see bundle.pyx. All
others do. The link is leased when the first key tells the slot; before that, commands are answered
QUEUED and held back. MULTI and everything after it is kept until the end, so a transaction whose
node sends it elsewhere (the slot has moved, the link was lost) is sent again as a whole: nothing of
it was executed before EXEC, and the replies that the client has already stay true.

WATCH leases the link at once and waits for the node's answer; ordinary commands of the client go
their usual way meanwhile. Where a watched key's node cannot be kept, the watch counts as touched:
EXEC answers nil, as a server would after another client's write.

Rules. Before the first command goes to the leased link nothing of the client is under way on
another one, and while EXEC is under way nothing else is sent: its commands keep their order. EXEC
is sent again only if nothing of it was written, or a server refused it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.pinned import Pin
from rproxy.engine.replies import OK
from rproxy.routing.slots import CROSS_SLOT
from rproxy.upstream.lease import Lease
from rproxy.upstream.route import Route, turns_back
from rproxy.upstream.sink import call
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

QUEUED = b"+QUEUED\r\n"
EMPTY = b"*0\r\n"
NIL = {2: b"*-1\r\n", 3: b"_\r\n"}
"""EXEC's reply when a watched key was touched, by protocol version."""

MULTI, DISCARD, UNWATCH, ASKING = (
    pack([word]) for word in (b"MULTI", b"DISCARD", b"UNWATCH", b"ASKING")
)


def ignored(frame: bytes) -> Request:
    """A request whose reply says nothing that later ones do not say as well."""
    return call(frame, lambda reply: None)


class Transaction(Pin):
    """A session that watches keys, or has sent MULTI."""

    def __init__(self, engine: Engine, session: Session) -> None:
        super().__init__(session)
        self.engine = engine
        self.lane = engine.cluster.lanes[session.protocol]
        self.limit = engine.config.clients.transaction_limit
        self.lease: Lease | None = None
        self.route: Route | None = None
        self.early: list[Request] | None = None
        """Requests that came while earlier ones are under way, or while a server is asked."""
        self.stash: Request | None = None
        """A request that came while EXEC is under way."""
        self.in_multi = False
        self.opened = False
        """Whether MULTI was written to the link."""
        self.watching = False
        self.doomed = False
        """Whether a watch was lost: EXEC answers nil."""
        self.spoiled = False
        """Whether a command was refused here: EXEC answers EXECABORT."""
        self.ending: Ending | None = None
        """What `last` means."""
        self.is_over = False

    def __repr__(self) -> str:
        state = "MULTI" if self.in_multi else "WATCH"
        return f"<Transaction {state}, {self.depth} queued, {self.outstanding} outstanding>"

    # -- MULTI and what follows --

    def begin(self) -> None:
        """MULTI: from now on commands are queued."""
        self.in_multi, self.depth = True, 0
        self.session.pin_to(self)
        busy = self.session.under_way
        self.session.answer(OK)
        if busy:
            self.early = []
            self.session.hold(self.undelayed)

    def delays(self, request: Request) -> bool:
        """Whether the request has to wait for its turn; then it is dispatched again later."""
        if self.early is not None:
            self.early.append(request)
        elif self.ending is not None:
            self.stash = request
        else:
            return False
        self.session.hold()
        return True

    def undelayed(self, session: Session) -> None:
        """Nothing is under way: go on with what waits for that."""
        early, self.early = self.early or [], None
        session.release()
        for request in early:
            self.engine.dispatch(session, request)
        self.queueing = self._may_queue()

    def _may_queue(self) -> bool:
        ready = self.opened and not self.troubled and self.early is None
        return ready and self.ending is None and self.slot >= 0

    def refuse(self, request: Request, error: bytes) -> None:
        """A command that cannot be queued: EXEC will not run the others."""
        self.spoiled = True
        self.session.answer(error, request)

    def take(self, request: Request) -> None:
        """A command to be queued, whatever its kind."""
        slot = self.session.assign(request) if request.spec is not None else -1
        if slot == CROSS_SLOT or (slot >= 0 and self.slot >= 0 and slot != self.slot):
            self.stray(request)
            return
        if self.size + len(request.frame_bytes) > self.limit:
            self.refuse(request, errors.LARGE_TRANSACTION)
            return
        self.depth += 1
        if self.spoiled or self.doomed:
            self.session.answer(QUEUED, request)  # it will never run, as at a server
            return
        if slot >= 0:
            self.slot = slot
        self.session.enter(request)
        self.keep(request)
        if self.slot < 0:
            self.settle(request, QUEUED)
        else:
            self._send_last()

    def stray(self, request: Request) -> None:
        """A command for other slots than the link's."""
        self.refuse(request, errors.CROSS_SLOT)

    def _send_last(self) -> None:
        """Send the last request that is kept, after all that goes before it."""
        if self.lease is None:
            self._seek()
        elif self.in_multi and not self.opened:
            self._open()
        else:
            self.send(self.kept[-1])

    def _seek(self) -> None:
        if self.route is None:
            self.route = Route(self.lane, self.slot, self._arrived, self._failed)
            self.route.go()
            if self.lease is None and self.route is not None:
                self.session.hold()

    def _arrived(self, lease: Lease, asking: bool) -> None:
        self.lease, self.link, lease.holder = lease, lease.link, self
        if asking:
            lease.link.send_setup(ignored(ASKING))
        self._open()
        if self.ending is None and self.session.is_held:
            self.session.release()

    def _open(self) -> None:
        """Write MULTI, and all that belongs behind it."""
        assert self.link is not None
        if self.in_multi:
            self.link.send_setup(ignored(MULTI))
            self.opened = True
            self.queueing = self._may_queue()
        self.send_kept()

    # -- the end --

    def exec(self, request: Request) -> None:
        """Run what is queued."""
        if self.spoiled or self.doomed or (self.lease is None and not self.kept):
            nothing = NIL[self.session.protocol] if self.doomed else EMPTY
            self.session.answer(errors.EXEC_ABORTED if self.spoiled else nothing, request)
            self.drop()
        else:
            self._finish(request, EXEC)

    def discard(self, request: Request) -> None:
        """Forget what is queued."""
        if self.opened and self.outstanding:
            self._finish(request, DISCARDED)
        else:
            self.session.answer(OK, request)
            self.drop()

    def watch(self, request: Request) -> None:
        """WATCH of one slot's keys, outside MULTI: on an own link, once nothing is under way."""
        if self.doomed:
            self.session.answer(OK, request)
            return

        def send(session: Session) -> None:
            self.slot = request.slot
            self._finish(request, WATCHED)

        self.session.hold(send)

    def _finish(self, request: Request, ending: Ending) -> None:
        self.last, self.ending, self.queueing = request, ending, False
        self.session.enter(request)
        self.keep(request)
        self._send_last()

    def finished(self) -> None:
        """The reply to `last` is with the client."""
        if self.ending is WATCHED:
            self._watched()
            return
        if self.lease is not None:
            self.lease.give_back()
        self._over()

    def _watched(self) -> None:
        """WATCH is answered: read on, and send everything else the usual way."""
        self.watching = not self.doomed
        self.last = self.ending = self.route = None
        self.kept.clear()
        self.size = 0
        self.session.pin_to(self, straight=True)
        self.session.release()

    def drop(self) -> None:
        """End this without EXEC: nothing is queued, nothing watched."""
        self._clean()
        self._over()

    def _clean(self) -> None:
        """Give the link back as if it were fresh."""
        if self.route is not None:
            self.route.cancel()
            self.route = None
        if self.lease is None:
            return
        if self.opened or self.watching:
            self.lease.link.send_setup(ignored(DISCARD if self.opened else UNWATCH))
        self.lease.give_back()
        self._without_link()

    def _without_link(self) -> None:
        self.lease = self.link = None
        self.opened = self.queueing = False

    def _over(self) -> None:
        self.is_over = True
        self.lease = None
        session, stash = self.session, self.stash
        self.stash = None
        if session.pin is not self:
            return
        session.pin_to(None)
        if stash is not None or session.is_held:
            session.release()
        if stash is not None:
            self.engine.dispatch(session, stash)

    def left(self) -> None:
        """The client has gone."""
        self.is_over = True
        self._clean()

    # -- trouble --

    def refused(self, request: Request, reply: bytes) -> None:
        """An error reply; or the link is lost, and `lease_lost` comes when all have heard."""
        if self.is_over:  # DISCARD is written already
            lost = reply == errors.MAY_HAVE_RUN or turns_back(reply, self.slot)
            self.settle(request, QUEUED if lost else reply)
        elif self.lease is None or not self.lease.link.ready:
            return
        elif turns_back(reply, self.slot):
            self._turn_back(request, reply)
        elif self.troubled:
            return  # EXECABORT, because of the trouble
        elif reply.startswith((b"-MOVED", b"-ASK ")):  # keys that only the node could find
            self.settle(request, errors.CROSS_SLOT)
        else:
            self.settle(request, reply)
            if request is self.last:
                self.finished()

    def _turn_back(self, request: Request, reply: bytes) -> None:
        """The node sends this away: end it there, and wait for all that is outstanding."""
        assert self.lease is not None
        if self.route is None:
            self.route = Route(self.lane, self.slot, self._arrived, self._failed)
        self.route.last_error = reply
        if not self.troubled:
            self.troubled, self.queueing = True, False
            self.session.hold()
            if self.opened and self.ending is None:
                self.lease.link.send_setup(ignored(DISCARD))

    def settled(self) -> None:
        """All of a transaction that was sent away is back: send it anew."""
        self.troubled = False
        lease, route = self.lease, self.route
        if self.is_over or lease is None or route is None or not lease.link.ready:
            return
        if self.watching and not self.opened:  # else DISCARD or EXEC has ended the watch
            lease.link.send_setup(ignored(UNWATCH))
        lease.give_back()
        self._without_link()
        if self.watching or self.doomed:
            self._doom()
        else:
            route.turned_back(lease.address, route.last_error)

    def lease_lost(self, lease: Lease, reason: str) -> None:
        """The link is gone, and nothing came of what was under way."""
        written = self.last is not None and self.was_written(self.last)
        self.troubled = False
        self._without_link()
        if self.ending is EXEC and written:
            self._settle_all(errors.MAY_HAVE_RUN)
        elif self.ending is DISCARDED:
            self._settle_all(OK)
        elif self.watching or self.doomed:
            self._doom()
        elif not self.unanswered():
            self.route = None  # sent again with the next command
        else:
            self.session.hold()
            self.route = self.route or Route(self.lane, self.slot, self._arrived, self._failed)
            self.route.lost(lease.address)

    def _doom(self) -> None:
        """What was watched may have changed unseen."""
        self.watching, self.doomed = False, True
        if self.ending is not None:
            self._settle_all(NIL[self.session.protocol] if self.ending is EXEC else OK)
            return
        for request in self.unanswered():
            self.settle(request, QUEUED)
        self.session.release()

    def _settle_all(self, reply: bytes) -> None:
        """Answer `last`, and what is still to be answered before it."""
        for request in self.unanswered():
            self.settle(request, reply if request is self.last else QUEUED)
        self.finished()

    def _failed(self, error: bytes) -> None:
        """No node could be found, or none that wanted this."""
        self.route = None
        self.spoiled = self.in_multi
        waiting = self.unanswered()
        for request in waiting[:-1]:
            self.settle(request, QUEUED)
        for request in waiting[-1:]:
            self.settle(request, error)
        if self.ending is None:
            if self.session.is_held:
                self.session.release()
        elif self.ending is WATCHED:
            self.drop()
        else:
            self.finished()

    def give_up_watch(self) -> None:
        """Give the link back, though it may be needed: what was watched counts as touched."""
        self.doomed = self.doomed or self.watching
        self._clean()
        self.watching = False

    def look_after(self, lease: Lease, now: float) -> None:
        """The regular look: a node that does not answer, a client that does not go on."""
        options = self.lane.cluster.config.upstream
        limit = min(options.stall_timeout, options.command_timeout or options.stall_timeout)
        idle = options.idle_transaction_timeout
        if self.outstanding:
            if now - lease.link.heard_at > limit:
                lease.close("no byte came while a transaction was under way")
        elif idle and now - self.session.active_at > idle and not self.session.is_held:
            self.give_up_watch()


class Ending(Enum):
    """What the last request of a Transaction is."""

    EXEC = "EXEC"
    DISCARDED = "DISCARD"
    WATCHED = "WATCH"


EXEC, DISCARDED, WATCHED = Ending
