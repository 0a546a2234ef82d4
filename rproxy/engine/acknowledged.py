"""WAIT: how many replicas have what this client wrote.

A server answers WAIT for the connection that it comes on: it waits for the replication offset that
was reached at that connection's last command. The client's writes went through links that it
shares, where nobody may wait; so, when all of them are answered, each master is asked on a leased
link: a PING there takes the offset of now, which none of the client's writes is behind, and WAIT
behind it waits for that. The client gets the smallest number of all masters.

Rules. Nothing is answered by guess: where one master cannot be asked, or its link is lost, the
client gets an error. A node that turns out to be a replica by now has waited for nothing: the new
masters are asked, with the time that is left. From version 7.2 on only a connection's own writes
count for its offset, so there WAIT on another link would answer at once, and wrongly: it is
refused, and so is WAITAOF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.numbers import integer
from rproxy.engine.pinned import Pin
from rproxy.engine.transactions import ignored
from rproxy.engine.ways import BLOCKING, Way, unserved
from rproxy.routing.specs import CommandSpec
from rproxy.upstream.lease import Lease, Wish
from rproxy.upstream.sink import call
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    import asyncio

    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

PING = pack([b"PING"])

A_REPLICA = b"-ERR WAIT cannot be used with replica"
"""How a replica answers."""

OWN_WRITES_ONLY = (7, 2)
"""The version from which PING does not take the offset any more."""


class Acknowledged(Pin):
    """A session whose client waits for replicas."""

    def __init__(self, engine: Engine, session: Session, request: Request) -> None:
        super().__init__(session)
        self.engine = engine
        self.last = request
        self.below = session.pin
        """A watch that goes on."""
        self.leases: list[Lease] = []
        self.wishes: list[Wish] = []
        self.missing = 0
        self.replies: list[bytes] = []
        self.count, timeout = request.argv()[1:3]
        self.millis = integer(timeout) or 0
        self.began = engine.cluster.loop.time()
        self.timer: asyncio.TimerHandle | None = None
        engine.blocked.add(self)

    def start(self, session: Session) -> None:
        """The client's writes are answered: ask every master."""
        assert self.last is not None
        session.enter(self.last)
        self.blocking = True
        session.watch()
        if not session.stream.is_closed:
            self._ask()

    def _ask(self) -> None:
        cluster = self.engine.cluster
        leases = cluster.lanes[self.session.protocol].leases
        addresses = [node.address for node in cluster.slotmap.masters]
        self.missing, self.replies, self.wishes = len(addresses), [], []
        for address in addresses:
            wish = leases.take(address, self._taken)
            if wish is not None:
                self.wishes.append(wish)
        if not addresses:
            self._end(errors.uncovered_reply())

    def _taken(self, lease: Lease | None, error: bytes) -> None:
        if lease is None:
            self._note(error or errors.reply("ERR a master cannot be reached: WAIT has no answer"))
            return
        assert self.last is not None
        lease.holder = self
        self.leases.append(lease)
        lease.link.send_setup(ignored(PING))
        lease.link.take(call(self.last.frame_bytes, self._note))

    def _note(self, reply: bytes) -> None:
        """One master's answer; the last one ends it."""
        self.replies.append(reply)
        self.missing -= 1
        if self.missing:
            return
        problem = next((r for r in self.replies if r.startswith(b"-")), None)
        if problem is not None and problem.startswith(A_REPLICA) and self._is_early():
            self._again()
        else:
            self._end(problem or min(self.replies, key=lambda r: int(r[1:-2])))

    def _is_early(self) -> bool:
        cluster = self.engine.cluster
        return cluster.loop.time() < self.began + cluster.config.upstream.hold_time

    def _again(self) -> None:
        """Ask the masters once more when it is known who they are, for the time that is left."""
        self._give_back()
        cluster = self.engine.cluster
        cluster.refresh("a node that was asked to wait for replicas is one itself")
        assert self.last is not None
        if self.millis:
            left = self.millis - round(1000 * (cluster.loop.time() - self.began))
            self.rewrite(self.last, pack([b"WAIT", self.count, b"%d" % max(1, left)]))
        self.timer = cluster.loop.call_later(cluster.config.upstream.retry_delay_max, self._ask)

    def _give_back(self) -> None:
        for lease in self.leases:
            if lease.link.ready:
                lease.give_back()
        self.leases.clear()

    def _end(self, reply: bytes) -> None:
        assert self.last is not None
        self.engine.blocked.discard(self)
        self._give_back()
        self.settle(self.last, reply)
        self.session.pin_to(self.below, straight=True)
        self.session.release()

    def left(self) -> None:
        """The client has gone: nobody waits."""
        self.engine.blocked.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        for wish in self.wishes:
            wish.cancel()
        leases, self.leases = self.leases, []
        self.missing = -1
        for lease in leases:
            lease.holder = None
            lease.close("the client of WAIT has left")
        if self.below is not None:
            self.below.left()

    def lease_lost(self, lease: Lease, reason: str) -> None:
        """WAIT itself has got its error already."""

    def look_after(self, lease: Lease, now: float) -> None:
        """The server keeps the time."""

    def unblock(self, with_error: bool) -> bool:
        """CLIENT UNBLOCK: no master waits any longer; the reply says what they know by now."""
        asked = [lease.unblock(with_error) for lease in self.leases]
        return any(asked)


def _wait(engine: Engine, spec: CommandSpec) -> Way:
    """WAIT's Way, which older servers allow."""
    if _version(engine.server_version) >= OWN_WRITES_ONLY:
        return unserved(spec.name, ON_ONE_LINK)
    return Way(BLOCKING, wait)


def _waitaof(engine: Engine, spec: CommandSpec) -> Way:
    return unserved(spec.name, ON_ONE_LINK)


ON_ONE_LINK = "the servers count only what was written on the same connection"

WAITS = {"wait": _wait, "waitaof": _waitaof}
"""Commands that wait for replicas of every master -> what chooses their Way."""


def wait(engine: Engine, session: Session, request: Request) -> None:
    """Have every master asked, once the client's writes are answered."""
    if len(engine.blocked) >= engine.config.clients.max_blocked:
        session.answer(errors.MAX_BLOCKED, request)
    else:
        acknowledged = Acknowledged(engine, session, request)
        session.pin_to(acknowledged)
        session.hold(acknowledged.start)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
