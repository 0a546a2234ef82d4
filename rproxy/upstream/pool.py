"""A Pool is one node's way in for one lane: its link while that is ready, its gate while it is not.

Strategy. Nobody waits for a connection: requests for a node without a ready link are held by the
pool's Gate, which stands in the LinkTable in the link's place. The first of them wakes the pool.
A link that was lost is opened again at once, then after a backoff with jitter; after `hold_time`
of failures the gate refuses (an open circuit breaker), while the attempts to connect go on: they
are the half-open probes, and the first that succeeds opens the gate.

A link that says nothing for `suspect_time` while commands are under way is stalled: its node may be
frozen, or cut off, without anybody having closed the connection. From then on requests are held,
and the cluster is asked. When another node is known to own a slot for which something is under way,
the link is closed: what was parked on it has an unknown outcome. When it speaks again first, the
cluster is asked once more before it is believed; see link.pyx.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rproxy.config import Address
from rproxy.errors import unreachable_reply
from rproxy.upstream.gate import Gate
from rproxy.upstream.link import Link
from rproxy.upstream.opening import Opening, keep_trying
from rproxy.upstream.sink import Sink
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.upstream.lane import Lane


class Pool:
    """The link to one node, or the gate in its place; see `sink`."""

    def __init__(self, lane: Lane, address: Address) -> None:
        self.lane = lane
        self.address = address
        options = lane.cluster.config.upstream
        self.gate = Gate(
            lane, "no connection yet", self, -1, 0, options.hold_bytes, options.hold_time
        )
        self.link: Link | None = None
        self.retired = False
        self._failing_since: float | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._opening: Opening | None = None

    @property
    def sink(self) -> Sink:
        """Where requests for this node go now."""
        link = self.link
        return link if link is not None and link.ready and not link.stalled else self.gate

    @property
    def is_failing(self) -> bool:
        """Whether the link was lost, or could not be made, and is not there again."""
        return self._failing_since is not None

    @property
    def is_out(self) -> bool:
        """Whether the node cannot be reached, or says nothing."""
        return self.is_failing or (self.link is not None and self.link.stalled)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or held."""
        return not self.gate and (self.link is None or not len(self.link))

    def __str__(self) -> str:
        return str(self.address)

    def __repr__(self) -> str:
        return f"<Pool {self.address}: {self.sink!r}>"

    # -- connecting --

    def wake(self) -> None:
        """See that the link is being opened."""
        if self._connecting is None and (self.link is None or not self.link.ready):
            self._connecting = self.lane.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            options = self.lane.cluster.config.upstream
            await keep_trying(self._open, self._failed, lambda: not self.retired, options)
        finally:
            self._connecting = None

    async def _open(self) -> None:
        """Connect, shake hands, open the gate; raises what went wrong."""
        link = self.link = Link(self.lane.tick, self.lane, self)
        self._opening = Opening()
        try:
            await self._opening.run(link, self.address, self.lane.cluster, self.lane.protocol)
        except BaseException:
            self.link = None
            link.close("the connection could not be set up")
            raise
        link.open()
        self._failing_since = self.gate.refusing = None
        self.lane.probe.link_up(str(self.address), self.lane.protocol)
        self.lane.opened(self)

    def _failed(self, reason: str) -> None:
        now = self.lane.now()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self.lane.cluster.config.upstream.hold_time:
            self.gate.refusing = unreachable_reply(str(self.address))
        self.lane.probe.link_down(str(self.address), self.lane.protocol, reason)
        self.lane.cluster.refresh(f"{self.address} cannot be reached")
        self.lane.unreachable(self)

    # -- silence --

    def look_after(self, now: float) -> None:
        """The regular look: ping a quiet link, suspect a silent one, close a dead one."""
        link, options = self.link, self.lane.cluster.config.upstream
        if link is None:
            return
        link.expire(now)
        quiet = now - link.heard_at
        if not len(link):
            if link.ready and quiet > options.heartbeat:
                link.ping()
        elif quiet > options.stall_timeout:
            link.close(f"no byte came for {quiet:.1f} s while commands were under way")
        elif link.ready and quiet > options.suspect_time:
            self._suspect(link)

    def _suspect(self, link: Link) -> None:
        """The link is silent: send it nothing more, and drop it once another node is in charge."""
        if not link.stalled:
            link.stalled = True
            self.lane.table.replace(link, self.gate)
            self.lane.probe.gate_closed(f"{self.address} is silent", -1)
            self.lane.cluster.refresh(f"{self.address} is silent")
        self.give_up()

    def give_up(self) -> bool:
        """Close a stalled link if its node is known to be replaced; whether it was."""
        link = self.link
        if link is None or not link.stalled or not self.lane.is_replaced(self):
            return False
        link.close("another node has taken over while it was silent")
        return True

    def spoke(self, link: Link) -> None:
        """A stalled link says something: ask the others what that counts."""
        self.lane.cluster.doubt(lambda: self._heed(link))

    def _heed(self, link: Link) -> None:
        if link is not self.link or self.give_up():
            return
        link.heed()
        if link is self.link and link.ready:
            self.lane.opened(self)

    # -- losing --

    def lost(self, link: Link, reason: str, again: list[Request], was_ready: bool) -> None:
        """The link is gone; `again` are the requests that may be sent again, oldest first."""
        if link is not self.link:
            self.lane.resend(again)
            return
        self.link = None
        if not was_ready:
            if self._opening is not None:
                self._opening.lost(reason)
            return
        self._failing_since = self.lane.now()
        self.lane.table.replace(link, self.gate)
        self.lane.probe.gate_closed(reason, -1)
        self.lane.resend(again, self.gate)
        if self.retired:
            return
        self.lane.probe.link_down(str(self.address), self.lane.protocol, reason)
        self.lane.cluster.refresh(f"the link to {self.address} was lost")
        self.wake()

    def retire(self) -> None:
        """The node has left: open no link any more; the present one ends when it is idle."""
        self.retired = True

    def close(self, reason: str) -> None:
        """End the link now."""
        self.retired = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self.link is not None:
            self.link.close(reason)
