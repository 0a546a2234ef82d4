"""Leases: links that one session has for itself, for one transaction or blocking command.

Strategy. Leased links of one node and protocol version are made when they are needed, given back
clean, and kept warm for the next session, so a transaction costs no TCP connect. `take` calls back
at once where a warm link is there, else when a new one is ready. Links that nobody took for a
while are closed by the regular round.

Rules. At most `upstream.max_leased` links of a node are on lease or being made; who asks for more
is told so at once, never kept waiting. A link goes back only in the state of a fresh connection:
whoever gives it back has written DISCARD or UNWATCH first where that was needed; all that comes
later on the link is behind it. A leased link judges nothing: its Lease is what a Link calls its
pool, its holder gets every reply, and hears `lease_lost` after all requests under way have got
their answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from rproxy.config import Address
from rproxy.errors import MAX_LEASED, NetworkError
from rproxy.upstream.link import Link
from rproxy.upstream.opening import Opening
from rproxy.upstream.sink import call
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.upstream.lane import Lane

DIALS = 64
"""Links that are being made at once: a node's listen queue is not endless."""

NAMELESS = -1
"""The id of a link whose node did not tell it, because it was busy: not for blocking commands."""

CLIENT_ID = pack([b"CLIENT", b"ID"])


class Holder(Protocol):
    """Who has a lease."""

    def lease_lost(self, lease: Lease, reason: str) -> None:
        """The link is gone; every request that was under way on it has got an error."""

    def look_after(self, lease: Lease, now: float) -> None:
        """A regular look at a lease that is held."""


class Lease:
    """Exclusive use of one link."""

    __slots__ = ("address", "client_id", "holder", "leases", "link", "opening", "since")

    def __init__(self, leases: Leases, address: Address) -> None:
        self.leases = leases
        self.address = address
        self.holder: Holder | None = None
        self.link = Link(leases.lane.tick, None, self)
        self.opening = Opening()
        self.since = leases.lane.now()
        self.client_id = 0

    def ask(self, frame: bytes, callback: Callable[[bytes], object]) -> None:
        """One question for which the link was taken; `callback` gets the reply, or an error."""

        def note(reply: bytes) -> None:
            if self.link.ready:
                self.give_back()
            callback(reply)

        self.link.take(call(frame, note))

    def give_back(self) -> None:
        """The link is clean: the next may have it."""
        self.leases.returned(self)

    def unblock(self, with_error: bool) -> bool:
        """Have the node end what the link's command waits for, as if its time were over or with an
        error; whether it could be asked to.
        """
        if self.client_id <= 0:
            return False
        how = b"ERROR" if with_error else b"TIMEOUT"
        words = [b"CLIENT", b"UNBLOCK", b"%d" % self.client_id, how]
        request = call(pack(words), lambda reply: None)
        request.target = pool = self.leases.lane.pool(self.address)
        pool.sink.take(request)
        return True

    def close(self, reason: str) -> None:
        """End the link, whatever is under way on it."""
        self.link.close(reason)

    def lost(self, link: Link, reason: str, again: list[Request], was_ready: bool) -> None:
        """The link is gone."""
        self.opening.lost(reason)
        self.leases.forget(self)
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.lease_lost(self, reason)

    def __str__(self) -> str:
        return f"{self.address} (leased)"

    def __repr__(self) -> str:
        return f"<Lease {self.address} of {self.holder!r}>"


Taken = Callable[[Lease | None, bytes], object]
"""Called with the lease; or with None and an error: at the limit MAX_LEASED, else an empty one."""


class Wish:
    """Somebody waits for a lease; `cancel` when nobody does any more."""

    __slots__ = ("taken",)

    def __init__(self, taken: Taken) -> None:
        self.taken: Taken | None = taken

    def cancel(self) -> None:
        """Nobody waits: the link goes to the warm ones when it is ready."""
        self.taken = None


class Leases:
    """Leased and warm links of one lane, by node."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.warm: dict[Address, deque[Lease]] = {}
        self.held: dict[Address, set[Lease]] = {}
        self.making: dict[Lease, Wish] = {}
        self._dials = asyncio.Semaphore(DIALS)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        held, warm = (sum(map(len, group.values())) for group in (self.held, self.warm))
        return f"<Leases {held} held, {warm} warm, {len(self.making)} being made>"

    # -- taking --

    def take(self, address: Address, taken: Taken) -> Wish | None:
        """A lease of the node's; `taken` may be called before this returns (then: None)."""
        warm = self.warm.get(address)
        held = self.held.setdefault(address, set())
        if warm:
            lease = warm.pop()
            held.add(lease)
            taken(lease, b"")
            return None
        if len(held) >= self.lane.cluster.config.upstream.max_leased:
            taken(None, MAX_LEASED)
            return None
        lease, wish = Lease(self, address), Wish(taken)
        held.add(lease)
        self._make(lease, wish)
        return wish

    def _make(self, lease: Lease, wish: Wish) -> None:
        self.making[lease] = wish
        task = self.lane.loop.create_task(self._connect(lease))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, lease: Lease) -> None:
        lane = self.lane
        limit = lane.cluster.config.upstream.connect_timeout
        try:
            async with self._dials, asyncio.timeout(limit):
                await lease.opening.run(lease.link, lease.address, lane.cluster, lane.protocol)
        except (TimeoutError, OSError, NetworkError) as error:
            self.failed(lease, str(error) or f"no answer within {limit:g} s")
        else:
            self.ready(lease)

    def ready(self, lease: Lease) -> None:
        """The link has shaken hands: whoever waits for it gets it."""

        def note(reply: bytes) -> None:
            lease.client_id = int(reply[1:-2]) if reply.startswith(b":") else NAMELESS

        wish = self.making.pop(lease)
        lease.link.open()
        lease.link.send_setup(call(CLIENT_ID, note))
        if wish.taken is None:
            lease.give_back()
        else:
            wish.taken(lease, b"")

    def failed(self, lease: Lease, reason: str) -> None:
        """The link could not be made: whoever waits for it is told."""
        wish = self.making.pop(lease)
        self.forget(lease)
        lease.link.close(reason)
        self.lane.probe.link_down(str(lease), self.lane.protocol, reason)
        if wish.taken is not None:
            wish.taken(None, b"")

    # -- giving back --

    def returned(self, lease: Lease) -> None:
        """Keep the link warm, where there are not enough already."""
        held, warm = self.held[lease.address], self.warm.setdefault(lease.address, deque())
        held.discard(lease)
        lease.holder = None
        lease.since = self.lane.now()
        wanted = len(warm) < self.lane.cluster.config.upstream.warm_links
        if wanted and lease.link.ready and lease.client_id != NAMELESS:
            warm.append(lease)
        else:
            lease.close("enough links are kept warm")

    def forget(self, lease: Lease) -> None:
        """The link is gone."""
        self.held.get(lease.address, set()).discard(lease)
        warm = self.warm.get(lease.address)
        if warm and lease in warm:
            warm.remove(lease)

    # -- the regular round --

    def sweep(self, now: float) -> None:
        """Close links that nobody took; have holders look after theirs."""
        oldest = now - self.lane.cluster.config.upstream.warm_time
        for warm in list(self.warm.values()):
            while warm and warm[0].since <= oldest:
                warm[0].close("nobody needed the link")
        for held in list(self.held.values()):
            for lease in list(held):
                if lease.holder is not None:
                    lease.holder.look_after(lease, now)

    def close(self, reason: str) -> None:
        """End all links."""
        for task in self._tasks:
            task.cancel()
        groups = [*self.held.values(), *self.warm.values()]
        for lease in [lease for group in groups for lease in group]:
            lease.close(reason)
