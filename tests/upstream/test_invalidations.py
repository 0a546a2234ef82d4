"""Feeds of invalidations: one for each master, and nothing that they miss stays unsaid."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from rproxy.config import Address, Config, Seconds, Topology, Upstream
from rproxy.probe import Probe
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import Cluster
from rproxy.upstream.invalidations import IDLE_SECONDS, Invalidations
from rproxy.upstream.link import Link
from tests.fakes import NODES, FakeCluster, on_a_loop
from tests.nodes import TinyNode

PUSH = b">2\r\n$10\r\ninvalidate\r\n"
NEW = Address("node-d", 4)


class Audience:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.is_listening = True
        self.told = asyncio.Event()

    def invalidated(self, keys: list[bytes] | None) -> None:
        self.heard.append(keys)
        self.told.set()

    def moved(self, slots: Iterable[int]) -> None:
        self.heard.append(("moved", list(slots)))

    def missed(self) -> None:
        self.heard.append("missed")


def listening() -> tuple[FakeCluster, Invalidations, Audience]:
    """Feeds of a cluster, none of them up."""
    cluster, audience = FakeCluster(), Audience()
    invalidations = Invalidations(cluster, cluster.tick, audience)  # type: ignore[arg-type]
    invalidations.start()
    return cluster, invalidations, audience


def up(cluster: FakeCluster, invalidations: Invalidations, address: Address) -> Link:
    """Have the node's feed up."""
    link = Link(cluster.tick, None, invalidations.feeds[address])
    invalidations.feeds[address].opened(link)
    return link


def test_each_master_has_a_feed() -> None:
    cluster, invalidations, audience = listening()
    assert set(invalidations.feeds) == set(NODES)
    assert [invalidations.covers(slot) for slot in (0, 8000, 16000)] == [False] * 3
    link = up(cluster, invalidations, NODES[1])
    assert [invalidations.covers(slot) for slot in (0, 8000, 16000)] == [False, True, False]
    link.stream.feed(PUSH + b"*2\r\n$1\r\na\r\n$1\r\nb\r\n" + PUSH + b"_\r\n")
    assert audience.heard == [[b"a", b"b"], None]
    assert repr(invalidations) == "<Invalidations, 1 of 3 feeds up>"


def test_other_pushes_say_nothing() -> None:
    cluster, invalidations, audience = listening()
    link = up(cluster, invalidations, NODES[0])
    link.stream.feed(b">2\r\n$5\r\nother\r\n*0\r\n")
    assert (audience.heard, link.stream.is_closed) == ([], False)


def test_lost_feed_is_said_and_opened_again() -> None:
    cluster, invalidations, audience = listening()
    link = up(cluster, invalidations, NODES[0])
    link.close("test")
    assert audience.heard == ["missed"]
    assert not invalidations.covers(0)
    assert cluster.reasons == [f"the invalidations of {NODES[0]} were lost"]


def test_slots_that_move_are_said_and_new_masters_are_heard() -> None:
    cluster, invalidations, audience = listening()
    cluster.adopt(cluster.slotmap.with_owner(7, NEW))
    assert audience.heard == [("moved", [7])]
    assert NEW in invalidations.feeds
    link = up(cluster, invalidations, NEW)
    assert invalidations.covers(7)
    cluster.adopt(cluster.slotmap.with_owner(7, NODES[0]))
    assert NEW in invalidations.feeds or link.stream.is_closed


def test_node_that_is_sent_on_to_is_heard() -> None:
    cluster, invalidations, audience = listening()
    up(cluster, invalidations, NODES[1])
    cluster.sent_on(7, "node-a", NODES[1])
    assert audience.heard == []
    cluster.sent_on(7, "node-a", NEW)
    cluster.sent_on(8, "node-a", NEW)
    assert audience.heard == [("moved", [7]), ("moved", [8])]
    up(cluster, invalidations, NEW)
    cluster.sent_on(9, "node-a", NEW)
    assert len(audience.heard) == 2
    cluster.adopt(cluster.slotmap.with_owner(3, NODES[1]))
    assert NEW in invalidations.feeds
    invalidations.feeds[NEW].failing = True
    cluster.adopt(cluster.slotmap.with_owner(4, NODES[1]))
    assert NEW not in invalidations.feeds


def test_who_waits_for_the_feeds() -> None:
    cluster, invalidations, _ = listening()
    called: list[int] = []
    invalidations.when_settled(lambda: called.append(1))
    up(cluster, invalidations, NODES[0])
    up(cluster, invalidations, NODES[1])
    assert called == []
    invalidations.feeds[NODES[2]]._failed("down")
    assert (called, invalidations.is_settled) == ([1], True)
    invalidations.feeds[NODES[0]].link.close("test")  # type: ignore[union-attr]
    invalidations.when_settled(lambda: called.append(2))
    cluster.loop.advance(10.0)
    assert (called, invalidations.is_settled) == ([1, 2], True)


def test_quiet_feed_is_asked_and_a_dead_one_closed() -> None:
    cluster, invalidations, audience = listening()
    link = up(cluster, invalidations, NODES[0])
    feed, options = invalidations.feeds[NODES[0]], cluster.config.upstream
    feed.look_after(link.heard_at + options.heartbeat)
    assert link.stream.take() == b""
    feed.look_after(link.heard_at + options.heartbeat + 1)
    assert link.stream.take() == b"*1\r\n$4\r\nPING\r\n"
    feed.look_after(link.heard_at + options.stall_timeout)
    assert not link.stream.is_closed
    feed.look_after(link.heard_at + options.stall_timeout + 1)
    assert link.stream.is_closed
    assert audience.heard == ["missed"]


def test_feeds_end_when_nobody_listens() -> None:
    cluster, invalidations, audience = listening()
    link = up(cluster, invalidations, NODES[0])
    audience.is_listening = False
    for _ in range(int(IDLE_SECONDS) + 2):
        cluster.loop.advance(1.0)
    assert link.stream.is_closed
    assert (invalidations.feeds, audience.heard) == ({}, ["missed"])
    cluster.adopt(cluster.slotmap.with_owner(7, NODES[1]))
    assert invalidations.feeds == {}
    invalidations.start()
    assert set(invalidations.feeds) == set(NODES)


@on_a_loop
async def test_node_is_asked_to_tell_of_everything() -> None:
    async with TinyNode() as node:
        config = Config(
            seeds=(node.address,),
            topology=Topology(),
            upstream=Upstream(reconnect_delay=Seconds(0.01)),
        )
        tick, audience = Tick(asyncio.get_running_loop()), Audience()
        cluster = Cluster(config, tick, Probe())
        await cluster.start()
        await cluster.mapped.wait()
        invalidations = Invalidations(cluster, tick, audience)
        ready = asyncio.Event()
        node.answers[b"CLIENT TRACKING"] = b"-NOPERM no\r\n"
        invalidations.start()
        invalidations.when_settled(ready.set)
        await ready.wait()
        assert not invalidations.covers(0)
        node.answers[b"CLIENT TRACKING"] = b"+OK\r\n" + PUSH + b"*1\r\n$1\r\na\r\n"
        await audience.told.wait()
        assert audience.heard == [[b"a"]]
        assert [b"CLIENT", b"TRACKING", b"ON", b"BCAST"] in node.heard
        invalidations.close()
        await cluster.close()
