"""Leases: links for one session, kept warm, limited, and given back."""

from __future__ import annotations

from rproxy.config import Upstream
from rproxy.errors import MAX_LEASED
from rproxy.upstream.lease import Lease, Leases
from tests.fakes import NODES, FakeCluster, Replies


class Taker:
    """Wants leases, and remembers what it got."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.errors: list[bytes] = []
        self.lost: list[str] = []

    def taken(self, lease: Lease | None, error: bytes) -> None:
        if lease is None:
            self.errors.append(error)
        else:
            lease.holder = self
            self.leases.append(lease)

    def lease_lost(self, lease: Lease, reason: str) -> None:
        self.lost.append(reason)

    def look_after(self, lease: Lease, now: float) -> None:
        self.lost.append("looked after")


def make(**options: int) -> tuple[FakeCluster, Leases, Taker]:
    cluster = FakeCluster(upstream=Upstream(**options))  # type: ignore[arg-type]
    return cluster, cluster.lane.leases, Taker()


def test_new_link_is_taken_when_it_is_ready() -> None:
    cluster, leases, taker = make()
    assert leases.take(NODES[0], taker.taken) is not None
    assert taker.leases == []
    link = cluster.lease(0)
    assert taker.leases[0].link is link
    assert taker.leases[0].client_id == 77
    assert repr(leases) == "<Leases 1 held, 0 warm, 0 being made>"


def test_warm_link_is_taken_at_once() -> None:
    cluster, leases, taker = make()
    leases.take(NODES[0], taker.taken)
    cluster.lease(0)
    taker.leases[0].give_back()
    assert leases.take(NODES[0], taker.taken) is None
    assert taker.leases[0] is taker.leases[1]
    assert leases.take(NODES[1], taker.taken) is not None


def test_limit_of_a_node() -> None:
    _, leases, taker = make(max_leased=2)
    for _ in range(3):
        leases.take(NODES[0], taker.taken)
    leases.take(NODES[1], taker.taken)
    assert taker.errors == [MAX_LEASED]


def test_given_back_links_are_warm_up_to_a_number() -> None:
    cluster, leases, taker = make(warm_links=1)
    for _ in range(2):
        leases.take(NODES[0], taker.taken)
    links = [cluster.lease(0), cluster.lease(0)]
    for lease in taker.leases:
        lease.give_back()
    assert [link.stream.is_closed for link in links] == [False, True]
    assert taker.lost == []


def test_link_of_a_node_that_was_busy_is_not_kept() -> None:
    """It has no id by which a blocking command could be ended."""
    cluster, leases, taker = make()
    leases.take(NODES[0], taker.taken)
    (lease,) = leases.making
    leases.ready(lease)
    lease.link.stream.feed(b"-BUSY running a script\r\n")
    assert not lease.unblock(with_error=False)
    lease.give_back()
    assert lease.link.stream.is_closed
    assert cluster.sent(0) == []


def test_cancelled_wish() -> None:
    cluster, leases, taker = make()
    wish = leases.take(NODES[0], taker.taken)
    assert wish is not None
    wish.cancel()
    cluster.lease(0)
    assert taker.leases == []
    assert repr(leases) == "<Leases 0 held, 1 warm, 0 being made>"


def test_link_that_cannot_be_made() -> None:
    _, leases, taker = make()
    leases.take(NODES[0], taker.taken)
    leases.failed(next(iter(leases.making)), "refused")
    assert taker.errors == [b""]
    assert repr(leases) == "<Leases 0 held, 0 warm, 0 being made>"


def test_link_that_is_lost_while_it_is_made() -> None:
    _, leases, taker = make()
    leases.take(NODES[0], taker.taken)
    lease = next(iter(leases.making))
    leases.failed(lease, "the node hung up")
    lease.close("gone")
    assert taker.errors == [b""]
    assert not leases.making


def test_holder_hears_of_the_loss_after_its_requests() -> None:
    cluster, leases, taker = make()
    replies = Replies()
    leases.take(NODES[0], taker.taken)
    link = cluster.lease(0)
    link.take(replies.request(0, b"GET", b"a"))
    link.stream.take()
    link.close("reset")
    assert replies.got == [b"-ERR upstream connection lost; the command may have been executed\r\n"]
    assert taker.lost == ["reset"]
    assert repr(leases) == "<Leases 0 held, 0 warm, 0 being made>"


def test_errors_are_not_judged() -> None:
    cluster, leases, taker = make()
    replies = Replies()
    leases.take(NODES[0], taker.taken)
    link = cluster.lease(0)
    link.take(replies.request(0, b"GET", b"a"))
    link.stream.feed(b"-MOVED 0 node-b:2\r\n")
    assert replies.got == [b"-MOVED 0 node-b:2\r\n"]


def test_sweep() -> None:
    cluster, leases, taker = make(warm_time=5)
    for _ in range(2):
        leases.take(NODES[0], taker.taken)
    links = [cluster.lease(0), cluster.lease(0)]
    taker.leases[0].give_back()
    cluster.loop.now += 3
    leases.sweep(cluster.loop.now)
    assert taker.lost == ["looked after"]
    assert [link.stream.is_closed for link in links] == [False, False]
    cluster.loop.now += 3
    leases.sweep(cluster.loop.now)
    assert [link.stream.is_closed for link in links] == [True, False]


def test_close() -> None:
    cluster, leases, taker = make()
    leases.take(NODES[0], taker.taken)
    link = cluster.lease(0)
    leases.close("rproxy stops")
    assert link.stream.is_closed
    assert taker.lost == ["rproxy stops"]
