"""A Lane is one way through the cluster: the links, gates and LinkTable of one protocol version.

Clients that speak RESP3 get replies of RESP3 links, passed on as they are, so there is one lane
per version. A lane keeps its LinkTable true to the cluster's slot map and decides what becomes of
requests that nodes send back.

Rules. A slot changes hands through a Gate whenever requests for it are under way, so order is
kept; see gate.pyx. A request is sent again only if a server proved that it did not run it, or the
link proved that it was never written, or it changes nothing. `max_redirects` bounds hops,
`hold_time` bounds waiting; past either, the client gets the server's own last error.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rproxy.config import Address
from rproxy.errors import overfull_reply, uncovered_reply, unreachable_reply
from rproxy.transport.stream import Tick
from rproxy.upstream import recovery
from rproxy.upstream.gate import Gate
from rproxy.upstream.lease import Leases
from rproxy.upstream.link import Link
from rproxy.upstream.pool import Pool
from rproxy.upstream.recovery import Kind, Verdict
from rproxy.upstream.sink import LinkTable, answer, call, take_apart
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.probe import Probe
    from rproxy.upstream.cluster import Cluster


def _has_key(slot: int) -> bool:
    return slot >= 0


def _unread(reply: bytes) -> None:
    """A reply that nothing depends on."""


class Lane:
    """Links and gates of one protocol version; `table` is what sessions send to."""

    def __init__(self, cluster: Cluster, tick: Tick, protocol: int) -> None:
        options = cluster.config.upstream
        self.cluster = cluster
        self.loop = cluster.loop
        self.tick = tick
        self.protocol = protocol
        self.probe: Probe = cluster.probe
        self.orphans = Gate(
            self, "no node owns the slot", None, -1, 0, options.hold_bytes, options.hold_time
        )
        self.table = LinkTable(self.orphans)
        self.pools: dict[Address, Pool] = {}
        self.gates: set[Gate] = set()
        self.leases = Leases(self)
        self._turn = 0
        self._orphaned_since: float | None = None
        self._actions: dict[Kind, Callable[[Link, Request, Verdict], bool]] = {
            Kind.MOVED: self._judge_moved,
            Kind.ASK: self._judge_ask,
            Kind.TRYAGAIN: self._judge_tryagain,
            Kind.CLUSTERDOWN: self._judge_not_ready,
            Kind.READONLY: self._judge_not_ready,
            Kind.LOADING: self._judge_not_ready,
            Kind.MASTERDOWN: self._judge_not_ready,
            Kind.NOAUTH: self._judge_noauth,
            Kind.NOSCRIPT: self._judge_noscript,
        }

    def now(self) -> float:
        """Monotonic seconds."""
        return self.loop.time()

    # -- where requests go --

    def pool(self, address: Address) -> Pool:
        """The pool of the node there, known or new."""
        pool = self.pools.get(address)
        if pool is None or pool.retired:
            pool = self.pools[address] = Pool(self, address)
        return pool

    def owner(self, slot: int) -> Pool | None:
        """The pool of the slot's master, or None where no node owns it."""
        node = self.cluster.slotmap.owner(slot)
        return None if node is None else self.pool(node.address)

    def dispatch(self, request: Request) -> None:
        """Send a request that was held to where it belongs now."""
        if request.target is not None and request.slot < 0:
            request.target.sink.take(request)
        elif request.target is not None:
            self._send_asking(request.target, request)
        elif request.slot >= 0:
            self.table.route(request)
        else:
            self.send_anywhere(request)

    def send_anywhere(self, request: Request) -> None:
        """Send a request that any master can answer: to the masters in turn, ready ones first."""
        pools = [self.pool(node.address) for node in self.cluster.slotmap.masters]
        ready = [pool for pool in pools if pool.sink is not pool.gate]
        ready = ready or [pool for pool in pools if not pool.is_out] or pools
        if not ready:
            self.orphans.take(request)
            return
        self._turn += 1
        ready[self._turn % len(ready)].sink.take(request)

    def unreachable(self, pool: Pool) -> None:
        """The pool's node cannot be reached: what any other can answer waits no longer for it."""
        if any(not other.is_out for other in self.cluster.masters(self.protocol)):
            self.resend(pool.gate.empty())

    def is_replaced(self, pool: Pool) -> bool:
        """Whether another node owns a slot for which commands are under way at the pool's node."""
        if pool.link is None:
            return False
        owners = map(self.cluster.slotmap.owner, filter(_has_key, pool.link.slots_under_way()))
        return any(owner is not None and owner.address != pool.address for owner in owners)

    def _send_asking(self, pool: Pool, request: Request) -> None:
        sink = pool.sink
        if isinstance(sink, Link):
            request.target = None
            sink.send_asking(request)
        else:
            sink.take(request)

    # -- opening gates --

    def knock(self, gate: Gate) -> None:
        """A gate has something to open for: see whether it can, or what has to happen first."""
        if gate.pool is not None:
            gate.pool.wake()
        elif gate.slot < 0:
            self.cluster.refresh("commands for slots that no node owns")
        elif gate.outstanding == 0:
            delay = gate.opens_at - self.now()
            if delay <= 0:
                self._open(gate)
            elif not gate.timed:
                gate.timed = True
                self.loop.call_later(delay, self._retry, gate)

    def _retry(self, gate: Gate) -> None:
        gate.timed = False
        if gate in self.gates:
            self.knock(gate)

    def _open(self, gate: Gate) -> None:
        """Give the slot back to its owner's sink, and what was held to the slot.

        After a back-off only what came back is sent: while it may be refused again, the rest waits.
        """
        pool = self.owner(gate.slot)
        if gate.opens_at and pool is not None and (first := gate.first_to_try()):
            for request in first:
                pool.sink.take(request)
            return
        self.gates.discard(gate)
        self.table[gate.slot] = self.orphans if pool is None else pool.sink
        self.probe.gate_opened(gate.reason, gate.slot, len(gate))
        self.resend(gate.empty())

    def opened(self, pool: Pool) -> None:
        """A pool's link is ready: it takes the place of the pool's gate."""
        self.table.replace(pool.gate, pool.sink)
        self.probe.gate_opened(pool.gate.reason, -1, len(pool.gate))
        for request in pool.gate.empty():
            if request.slot < 0 and request.gate is None and request.target is None:
                pool.sink.take(request)  # any node would do, and this one was chosen
            else:
                self.resend([request])

    def resend(self, requests: Iterable[Request], gate: Gate | None = None) -> None:
        """Send requests on in their order; those that came back from a lost link wait at `gate`."""
        for request in requests:
            if request.gate is not None:
                request.gate.take_back(request)
            elif gate is not None:
                gate.take_back(request)
            else:
                self.dispatch(request)

    def refusal(self, gate: Gate, last_error: bytes | None, full: bool = False) -> bytes:
        """The error for a request that a gate cannot hold (any longer)."""
        self.probe.gate_refused(gate.reason, gate.slot)
        if full:
            return overfull_reply(str(gate.pool or f"slot {gate.slot}"))
        if last_error is not None:
            return last_error
        if gate.pool is not None:
            return unreachable_reply(str(gate.pool))
        return uncovered_reply()

    # -- the slot map --

    def apply(self, slots: Iterable[int]) -> None:
        """Bring the table in line with the slot map for `slots`, whose owner has changed."""
        busy: dict[Link, set[int]] = {}
        for slot in slots:
            sink = self.table[slot]
            if isinstance(sink, Link):
                if sink not in busy:
                    busy[sink] = sink.slots_under_way()
                if slot in busy[sink]:
                    self._shut(slot, sink, "the slot changes hands")
                    continue
            elif isinstance(sink, Gate) and sink.slot >= 0:
                continue
            pool = self.owner(slot)
            self.table[slot] = self.orphans if pool is None else pool.sink
        for pool in list(self.pools.values()):
            pool.give_up()
        self._sift()

    def _shut(self, slot: int, link: Link, reason: str) -> Gate:
        """Put a gate in front of the slot that waits for what is under way on the link."""
        options = self.cluster.config.upstream
        gate = Gate(self, reason, None, slot, 0, options.hold_bytes, options.hold_time)
        link.guard(gate, slot)
        self.table[slot] = gate
        self.gates.add(gate)
        self.probe.gate_closed(reason, slot)
        return gate

    def _sift(self) -> None:
        """Let requests go whose slot has left the gate that holds them; retire pools of nodes
        that left.
        """
        for gate in [self.orphans, *(pool.gate for pool in self.pools.values())]:
            if gate:
                self.resend(gate.empty())
        present = {node.address for node in self.cluster.slotmap.nodes}
        for address, pool in self.pools.items():
            if address not in present:
                pool.retire()

    # -- verdicts --

    def judge(self, link: Link, request: Request, reply: bytes) -> bool:
        """Act on an error reply; False where the client is to see it."""
        verdict = recovery.verdict(reply)
        act = self._actions.get(verdict.kind)
        return act is not None and act(link, request, verdict)

    def _judge_moved(self, link: Link, request: Request, verdict: Verdict) -> bool:
        options = self.cluster.config.upstream
        address = self.cluster.redirect_address(verdict, link.pool.address)
        if address is None:
            self.cluster.refresh("MOVED without an address")
            return self._again_later(link, request)
        if request.hops >= options.max_redirects or not 0 <= verdict.slot < 16384:
            return False
        request.slot = verdict.slot
        gate = self._gate_for(request, link)
        self.cluster.moved(verdict.slot, address, str(link.pool))
        self._send_back(request, gate, self._delay(request.hops) if request.hops > 1 else 0.0)
        return True

    def _judge_ask(self, link: Link, request: Request, verdict: Verdict) -> bool:
        address = self.cluster.redirect_address(verdict, link.pool.address)
        if address is None or request.hops >= self.cluster.config.upstream.max_redirects:
            return False
        self.cluster.sent_on(verdict.slot, str(link.pool), address)
        request.hops += 1
        request.target = self.pool(address)
        self._send_asking(request.target, request)
        return True

    def _judge_tryagain(self, link: Link, request: Request, verdict: Verdict) -> bool:
        if take_apart(request):
            if request.gate is not None:
                request.gate.came_home(request)
            return True
        return self._again_later(link, request)

    def _judge_not_ready(self, link: Link, request: Request, verdict: Verdict) -> bool:
        self.cluster.refresh(f"{link.pool} answered {verdict.kind.name}")
        return self._again_later(link, request)

    def _judge_noauth(self, link: Link, request: Request, verdict: Verdict) -> bool:
        """The link has lost its rights (the node's users changed): authenticate again on a new
        one.
        """
        self.probe.upstream_refused(str(link.pool), verdict.kind.name)
        if not self._again_later(link, request):
            return False
        link.close("the node wants authentication again")
        return True

    def _judge_noscript(self, link: Link, request: Request, verdict: Verdict) -> bool:
        """Teach the node the script, then send the request again; once, it may be flushed again."""
        words = request.argv()
        body = self.cluster.scripts.find(words[1]) if len(words) > 1 else None
        if body is None or request.hops >= self.cluster.config.upstream.max_redirects:
            return False
        link.send_setup(call(pack([b"SCRIPT", b"LOAD", body]), _unread))
        if request.slot >= 0:
            self._send_back(request, self._gate_for(request, link), 0.0)
        else:
            request.hops += 1
            link.take(request)
        return True

    def _again_later(self, link: Link, request: Request) -> bool:
        """Hold the request for a backoff, unless its time at gates is used up."""
        now = self.now()
        if request.hold_until and now >= request.hold_until:
            return False
        delay = self._delay(request.hops)
        if request.slot < 0:
            request.hops += 1
            request.hold_until = request.hold_until or now + self.cluster.config.upstream.hold_time
            self.loop.call_later(delay, self.dispatch, request)
        else:
            self._send_back(request, self._gate_for(request, link), delay)
        return True

    def _delay(self, hops: int) -> float:
        options = self.cluster.config.upstream
        return recovery.backoff(hops, options.retry_delay, options.retry_delay_max, random.random)

    def _gate_for(self, request: Request, link: Link) -> Gate:
        """The gate that the request has to come back to: the one that counts it, or its slot's."""
        if isinstance(request.gate, Gate):
            return request.gate
        sink = self.table[request.slot]
        if isinstance(sink, Gate):
            return sink
        gate = self._shut(request.slot, link, "the slot is not ready")
        if isinstance(sink, Link) and sink is not link:
            sink.guard(gate, request.slot)
        return gate

    def _send_back(self, request: Request, gate: Gate, delay: float) -> None:
        request.hops += 1
        request.target = None
        if delay > 0:
            gate.opens_at = max(gate.opens_at, self.now() + delay)
        gate.take_back(request)
        self.knock(gate)

    # -- the regular round --

    def sweep(self, now: float) -> None:
        """Answer what has waited too long, close links that stall, end pools of nodes that left."""
        for gate in [self.orphans, *self.gates, *(pool.gate for pool in self.pools.values())]:
            if gate:
                gate.expire(now)
        for address, pool in list(self.pools.items()):
            pool.look_after(now)
            if pool.retired and pool.is_idle:
                pool.close("the node has left the cluster")
                del self.pools[address]
        self.leases.sweep(now)

    def close(self, reason: str) -> None:
        """End every link; what is under way is answered."""
        self.leases.close(reason)
        for pool in self.pools.values():
            pool.close(reason)
        for gate in [self.orphans, *self.gates, *(pool.gate for pool in self.pools.values())]:
            for request in gate.empty():
                answer(request, self.refusal(gate, request.last_error))
