"""Subscriptions while the cluster changes: clients notice nothing but, at worst, a gap in time.

Nothing that a node says about subscriptions of its own reaches a client; what is lost is subscribed
again, and an operator reads of the gap.
"""

from __future__ import annotations

import time

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import NodeProcess, wait_until
from rproxy.routing.slots import slot_of
from tests.conftest import ClusterMaker
from tests.live.proxies import Proxy, Wire, running

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""


def masters(cluster: LocalCluster) -> list[NodeProcess]:
    return [n for n in cluster.nodes if n.alive and n.call("ROLE")[0] == b"master"]


def other(cluster: LocalCluster, slot: int) -> NodeProcess:
    """A master that does not own the slot."""
    owner = cluster.slot_owner(slot)
    return next(node for node in masters(cluster) if node is not owner)


def heard(wire: Wire) -> list[bytes]:
    """All messages that have come so far."""
    wire.send(b"PING", b"mark")
    frames = []
    while not (frame := wire.reply()).endswith(b"$4\r\nmark\r\n"):
        frames.append(frame)
    return frames


def reaches(publisher: Wire, wire: Wire, *words: bytes) -> bool:
    """Whether what is published reaches the subscriber soon; it sees nothing but messages."""
    publisher.ask(*words)
    for _ in range(10):
        frames = heard(wire)
        assert all(b"message\r\n" in frame for frame in frames), frames
        if any(words[-1] in frame for frame in frames):
            return True
        time.sleep(0.01)
    return False


def wait_for_message(publisher: Wire, wire: Wire, *words: bytes) -> None:
    """Publish until a message arrives."""
    wait_until(lambda: reaches(publisher, wire, *words), PATIENCE, f"a message after {words!r}")


def holder(cluster: LocalCluster, channel: str) -> NodeProcess:
    """The node at which the plain channel is subscribed."""
    (node,) = [n for n in masters(cluster) if n.call("PUBSUB", "NUMSUB", channel)[1]]
    return node


@pytest.mark.usefixtures("modern")
def test_slot_of_a_shard_channel_moves(own: LocalCluster, front: Proxy) -> None:
    with front.connect() as wire, front.connect() as publisher:
        assert wire.ask(b"SSUBSCRIBE", b"moving").endswith(b":1\r\n")
        slot = slot_of(b"moving")
        for number in range(4):
            own.migrate_slot(slot, other(own, slot).port)
            wait_for_message(publisher, wire, b"SPUBLISH", b"moving", b"to %d" % number)
            assert publisher.ask(b"SPUBLISH", b"moving", b"again") == b":1\r\n"
            assert any(b"again" in frame for frame in heard(wire))
        assert wire.ask(b"SUNSUBSCRIBE").endswith(b":0\r\n")
    assert "are lost" not in front.text()


@pytest.mark.usefixtures("modern")
def test_slot_that_is_on_its_way(own: LocalCluster, front: Proxy) -> None:
    """Its channels stay at the old owner until the slot is given over."""
    slot = slot_of(b"half")
    own.begin_migration(slot, other(own, slot).port)
    with front.connect() as wire, front.connect() as publisher:
        assert wire.ask(b"SSUBSCRIBE", b"half").endswith(b":1\r\n")
        assert publisher.ask(b"SPUBLISH", b"half", b"before") == b":1\r\n"
        assert wire.reply().endswith(b"before\r\n")
        own.finish_migration(slot)
        wait_for_message(publisher, wire, b"SPUBLISH", b"half", b"after")


@pytest.mark.usefixtures("modern")
def test_ordered_failover(own: LocalCluster, front: Proxy) -> None:
    """Of every master, one after the other, and back."""
    with front.connect() as wire, front.connect() as publisher:
        wire.ask(b"SUBSCRIBE", b"plain")
        wire.ask(b"PSUBSCRIBE", b"*")
        for name in (b"shard", b"another", b"third"):
            wire.ask(b"SSUBSCRIBE", name)
        for number in (3, 4, 5, 0, 1, 2):
            own.failover(own.nodes[number].port)
            for name in (b"shard", b"another", b"third"):
                wait_for_message(publisher, wire, b"SPUBLISH", name, b"s %d" % number)
            wait_for_message(publisher, wire, b"PUBLISH", b"plain", b"p %d" % number)
        # Both subscriptions of it, each once.
        wait_until(
            lambda: publisher.ask(b"PUBLISH", b"plain", b"") == b":2\r\n", PATIENCE, "one home"
        )
        heard(wire)
        publisher.ask(b"PUBLISH", b"plain", b"last")
        wait_until(lambda: len(heard(wire)) == 2, PATIENCE, "two messages")


def test_events_of_a_new_master(own: LocalCluster, front: Proxy) -> None:
    """Events come from whoever is a master, once each."""
    for node in own.nodes:
        node.call("CONFIG", "SET", "notify-keyspace-events", "KEA")
    client = front.client()
    with front.connect() as wire:
        wire.ask(b"PSUBSCRIBE", b"__keyspace@0__:*")
        for number in (3, 0):
            own.failover(own.nodes[number].port)
            wait_until(lambda: all_events(client, wire), PATIENCE, "the events of all masters")


def all_events(client: object, wire: Wire) -> bool:
    """Whether each of some keys' changes is heard; none may be heard twice."""
    heard(wire)
    names = [b"event:%d" % number for number in range(12)]
    for name in names:
        client.set(name, "")  # type: ignore[attr-defined]
    deadline, frames = time.monotonic() + 1.0, heard(wire)
    while len(frames) < len(names) and time.monotonic() < deadline:
        frames += heard(wire)
    counts = [sum(name + b"\r\n" in frame for frame in frames) for name in names]
    return counts == [1] * len(names)


@pytest.mark.usefixtures("modern")
def test_home_is_killed(new_cluster: ClusterMaker) -> None:
    """Plain channels go to another master at once; shard channels when a replica has taken over."""
    with (
        new_cluster(masters=3, replicas=1) as cluster,
        running(cluster) as proxy,
        proxy.connect() as wire,
        proxy.connect() as publisher,
    ):
        wire.ask(b"SUBSCRIBE", b"plain")
        home = holder(cluster, "plain")
        shard = next(
            b"s%d" % n for n in range(99) if cluster.slot_owner(slot_of(b"s%d" % n)) is home
        )
        wire.ask(b"SSUBSCRIBE", shard)
        home.kill()
        begin = time.monotonic()
        wait_for_message(publisher, wire, b"PUBLISH", b"plain", b"to all")
        assert time.monotonic() - begin < 3
        wait_for_message(publisher, wire, b"SPUBLISH", shard, b"to some")
        wait_until(lambda: "subscriptions are back after" in proxy.text(), PATIENCE, "the log")
        assert "2 subscriptions at" in proxy.text()
        with proxy.connect() as late:
            assert late.ask(b"SUBSCRIBE", b"late").endswith(b":1\r\n")
            assert publisher.ask(b"PUBLISH", b"late", b"x") == b":1\r\n"


def test_subscriptions_are_killed(own: LocalCluster, front: Proxy) -> None:
    """The node closes the connection; a gap of milliseconds."""
    with front.connect() as wire, front.connect() as publisher:
        wire.send(b"SUBSCRIBE", *(b"many:%d" % n for n in range(1000)))
        wire.replies(1000)
        node = holder(own, "many:0")
        for number in range(3):
            assert node.call("CLIENT", "KILL", "TYPE", "pubsub") >= 1
            wait_for_message(publisher, wire, b"PUBLISH", b"many:999", b"%d" % number)
        assert publisher.ask(b"PUBLISH", b"many:500", b"x") == b":1\r\n"


def test_no_node_can_be_subscribed_at(new_cluster: ClusterMaker) -> None:
    """The client gets an error, goes on, and is subscribed later."""
    with (
        new_cluster(masters=3, replicas=0) as cluster,
        running(cluster, config='upstream.hold_time = "500ms"') as proxy,
        proxy.connect() as wire,
    ):
        assert wire.ask(b"PUBSUB", b"NUMPAT") == b":0\r\n"
        for node in cluster.nodes:
            node.kill()
        assert wire.ask(b"SUBSCRIBE", b"nowhere").startswith(b"-CLUSTERDOWN no node has confirmed")
        assert wire.ask(b"PING") == b"+PONG\r\n"
        for node in cluster.nodes:
            node.restart()
        wait_until(
            lambda: wire.ask(b"SUBSCRIBE", b"nowhere").endswith(b":1\r\n"), PATIENCE, "a node"
        )


def test_frozen_home(new_cluster: ClusterMaker) -> None:
    """It says nothing any more: its subscriptions go elsewhere."""
    quick = '[upstream]\nheartbeat = "200ms"\nstall_timeout = "500ms"\nconnect_timeout = "500ms"\n'
    with (
        new_cluster(masters=3, replicas=0, node_timeout_ms=60_000) as cluster,
        running(cluster, config=quick) as proxy,
        proxy.connect() as wire,
    ):
        wire.ask(b"SUBSCRIBE", b"plain")
        home = holder(cluster, "plain")
        foreign = next(node for node in cluster.nodes if node is not home)
        home.freeze()

        def is_heard() -> bool:
            foreign.call("PUBLISH", "plain", "x")
            return bool(heard(wire))

        wait_until(is_heard, PATIENCE, "a message by way of another node")
        home.thaw()


def test_monitor_of_a_new_master(own: LocalCluster, front: Proxy) -> None:
    client = front.client()
    with front.connect() as wire:
        assert wire.ask(b"MONITOR") == b"+OK\r\n"
        own.failover(own.nodes[3].port)

        def is_seen() -> bool:
            names = [b"monitored:%d" % number for number in range(12)]
            for name in names:
                client.set(name, "")
            wire.send(b"ECHO", b"mark")
            lines = []
            while (line := wire.reply()) != b"$4\r\nmark\r\n":
                lines.append(line)
            return all(any(name in line for line in lines) for name in names)

        wait_until(is_seen, PATIENCE, "lines of all masters")
    own.failover(own.nodes[0].port)
