"""A Route finds the node for requests that need a link of their own, and finds it again.

Strategy. `go` takes a lease at the owner of the slot, or at any master for requests without a key.
A node that turns the requests back tells by its error where to go: MOVED and ASK name a node,
TRYAGAIN, CLUSTERDOWN and the like ask for patience. `turned_back` follows them as the Lane does
for single requests, with the same limits: `max_redirects` hops, `hold_time` seconds of trouble.

Rules. Nothing is sent here: whoever has the route sends when `arrived` is called, everything anew.
`failed` gets the last error of a server where there is one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from rproxy.config import Address
from rproxy.errors import uncovered_reply, unreachable_reply
from rproxy.upstream.lease import Lease, Wish
from rproxy.upstream.recovery import Kind, Verdict, backoff, verdict

if TYPE_CHECKING:
    from rproxy.upstream.lane import Lane

PATIENT = frozenset(
    {Kind.TRYAGAIN, Kind.CLUSTERDOWN, Kind.READONLY, Kind.LOADING, Kind.MASTERDOWN, Kind.NOAUTH}
)
"""Errors after which the same request may succeed a little later: nothing was executed."""

REFRESHING = PATIENT - {Kind.TRYAGAIN, Kind.NOAUTH}
"""Those that may mean that another node serves the slot now."""

Arrived = Callable[[Lease, bool], object]
"""Called with the lease, and whether ASKING has to be written before the requests."""


class Route:
    """The way to the node that serves `slot`; -1 stands for any master."""

    def __init__(
        self, lane: Lane, slot: int, arrived: Arrived, failed: Callable[[bytes], object]
    ) -> None:
        self.lane = lane
        self.slot = slot
        self.last_error = b""
        self._arrived = arrived
        self._failed = failed
        self._hops = 0
        self._until = 0.0
        self._wish: Wish | None = None
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<Route to slot {self.slot}, {self._hops} hops>"

    def go(self) -> None:
        """To the owner of the slot, as far as it is known."""
        self._towards(self._owner(), False)

    def cancel(self) -> None:
        """Nobody wants to arrive any more."""
        self._cancelled = True
        if self._wish is not None:
            self._wish.cancel()

    def arrived_well(self) -> None:
        """The node has served: later trouble has the whole time again."""
        self._hops, self._until = 0, 0.0

    # -- on the way --

    def _owner(self) -> Address | None:
        slotmap = self.lane.cluster.slotmap
        if self.slot >= 0:
            node = slotmap.owner(self.slot)
            return None if node is None else node.address
        masters = list(slotmap.masters)
        return random.choice(masters).address if masters else None

    def _towards(self, address: Address | None, asking: bool) -> None:
        if self._cancelled:
            return
        if address is None:
            self.lane.cluster.refresh("a slot that no node owns")
            self._later(uncovered_reply())
            return

        def taken(lease: Lease | None, error: bytes) -> None:
            self._wish = None
            if lease is not None:
                self._arrived(lease, asking)
            elif error:
                self._failed(error)
            else:
                self.lost(address)

        self._wish = self.lane.leases.take(address, taken)

    def lost(self, address: Address) -> None:
        """A link was lost, or could not be made: try again."""
        self.lane.cluster.refresh(f"{address} cannot be reached")
        self._later(self.last_error or unreachable_reply(str(address)))

    def turned_back(self, address: Address, error: bytes) -> None:
        """A node refuses what it was sent, which had no effect: go where it says."""
        told = verdict(error)
        self.last_error = error
        if told.kind in (Kind.MOVED, Kind.ASK):
            self._redirected(address, told)
            return
        if told.kind in REFRESHING:
            self.lane.cluster.refresh(f"{address} answered {told.kind.name}")
        self._later(error)

    def _redirected(self, address: Address, told: Verdict) -> None:
        cluster = self.lane.cluster
        target = cluster.redirect_address(told, address)
        if target is None:
            cluster.refresh("a redirection without an address")
            self._later(self.last_error)
            return
        if self._hops >= cluster.config.upstream.max_redirects:
            self._failed(self.last_error)
            return
        self._hops += 1
        if told.kind is Kind.ASK:
            cluster.sent_on(told.slot, str(address), target)
            self._towards(target, True)
            return
        cluster.moved(told.slot, target, str(address))
        if self._hops > 1:
            self._later(self.last_error)
        else:
            self._towards(target, False)

    def _later(self, error: bytes) -> None:
        """Try again after a back-off, or give up when the time for trouble is used up."""
        options, now = self.lane.cluster.config.upstream, self.lane.now()
        self._until = self._until or now + options.hold_time
        if now >= self._until:
            self._failed(error)
            return
        self._hops += 1
        delay = backoff(self._hops, options.retry_delay, options.retry_delay_max, random.random)
        self.lane.loop.call_later(delay, self.go)


def turns_back(error: bytes, slot: int) -> bool:
    """Whether a node's error proves that nothing was executed and that a later try may succeed."""
    told = verdict(error)
    if told.kind in (Kind.MOVED, Kind.ASK):
        return slot < 0 or told.slot == slot
    return told.kind in PATIENT
