"""The cluster changes under its clients: slots move, nodes come, go, freeze and fail over.

What clients may see of it is little: nothing at all while slots move; while a node is away, at most
errors that say whether the command may have been executed. Never a reply that is not theirs, never
a reply out of order.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import NodeProcess, free_node_ports, wait_until
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.conftest import ClusterMaker
from tests.live.proxies import Proxy, Wire, running
from tests.live.workload import Workload

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""
UNAFFECTED = 1.0
"""Seconds that a command for a healthy node may take on a busy machine; it takes a millisecond."""
MAYBE = "may have been executed"
"""What an error has to say where a command was lost on its way."""
SHORT_HOLD = 'upstream.hold_time = "300ms"'
"""A configuration with which nothing waits for long."""
NOT_SERVED = "-CLUSTERDOWN Hash slot not served; the command was not executed"
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])


def other(cluster: LocalCluster, slot: int) -> NodeProcess:
    """A master that does not own the slot."""
    owner = cluster.slot_owner(slot)
    masters = [node for node in cluster.nodes if node.call("ROLE")[0] == b"master"]
    return masters[(masters.index(owner) + 1) % len(masters)]


def key_of(cluster: LocalCluster, node: NodeProcess, number: int = 0) -> str:
    """The node's `number`-th key of those called of:0, of:1 ..."""
    names = (f"of:{n}" for n in range(10_000))
    mine = (name for name in names if cluster.slot_owner(slot_of(name.encode())) is node)
    return next(name for rank, name in enumerate(mine) if rank == number)


def slowest(ask: Callable[[], object], until: Callable[[], bool]) -> float:
    """Ask again and again until the condition holds; how long the slowest took, in seconds."""
    worst, deadline = 0.0, time.monotonic() + PATIENCE
    while not until():
        begin = time.monotonic()
        assert begin < deadline
        ask()
        worst = max(worst, time.monotonic() - begin)
    return worst


def goes_on(load: Workload, count: int) -> None:
    """Return when the load has got so many more right replies."""
    wanted = load.done + count
    wait_until(lambda: load.done > wanted or load.failed, PATIENCE, f"{count} more replies")


# -- slots move --


def test_clients_notice_nothing_of_moving_slots(own: LocalCluster, front: Proxy) -> None:
    with Workload(front) as load:
        for slot in load.slots[:50]:
            own.migrate_slot(slot, other(own, slot).port)
        held = load.slots[50:65]
        for slot in held:
            own.begin_migration(slot, other(own, slot).port)
            own.move_keys(slot, 1)
        goes_on(load, 2000)
        for slot in held:
            own.move_keys(slot)
            own.finish_migration(slot)
        goes_on(load, 1000)


@PROTOCOLS
def test_half_migrated_slot(own: LocalCluster, front: Proxy, protocol: int) -> None:
    """Keys that have gone, keys that have not, keys that are new: each alone and all together."""
    client = front.client(protocol)
    keys = [f"{{half:{protocol}}}{number}" for number in range(20)]
    slot = slot_of(keys[0].encode())
    client.mset({key: key for key in keys})
    own.begin_migration(slot, other(own, slot).port)
    own.move_keys(slot, 10)

    assert [client.get(key) for key in keys] == [key.encode() for key in keys]
    assert [client.append(key, "+") for key in keys] == [len(key) + 1 for key in keys]
    assert client.mget(keys) == [f"{key}+".encode() for key in keys]
    assert client.mset(dict.fromkeys(keys, "new"))
    assert client.mget(keys) == [b"new"] * 20
    assert client.exists(*keys, keys[0], "{half:none}") == 21
    assert client.touch(*keys) == 20
    with client.pipeline(transaction=False) as pipe:
        pipe.set(f"{{half:{protocol}}}new", 1)
        pipe.mget(keys)
        pipe.get(f"{{half:{protocol}}}new")
        assert pipe.execute() == [True, [b"new"] * 20, b"1"]
    assert client.delete(*keys[5:]) == 15
    assert client.unlink(*keys[:7]) == 5
    assert client.mget(keys) == [None] * 20

    own.move_keys(slot)
    own.finish_migration(slot)
    assert client.get(f"{{half:{protocol}}}new") == b"1"


def refusals(cluster: LocalCluster) -> int:
    """How often the nodes have answered TRYAGAIN; which of both does depends on the version."""
    pattern = re.compile(r"errorstat_TRYAGAIN:count=(\d+)")
    told = [pattern.search(node.call("INFO", "errorstats").decode()) for node in cluster.nodes]
    return sum(int(found[1]) for found in told if found)


def half_move_sets(cluster: LocalCluster, proxy: Proxy, tag: str) -> int:
    """The slot of two sets, one of which is already at the node that the slot moves to."""
    slot = slot_of(tag.encode())
    client = proxy.client()
    for name in ("a", "b"):
        client.sadd(f"{{{tag}}}{name}", "x", name)
    cluster.begin_migration(slot, other(cluster, slot).port)
    cluster.move_keys(slot, 1)
    return slot


def test_command_for_both_halves_waits_for_the_move(own: LocalCluster, front: Proxy) -> None:
    slot = half_move_sets(own, front, "wait")
    before = refusals(own)
    with front.connect() as wire:
        wire.send(b"SINTERSTORE", b"{wait}c", b"{wait}a", b"{wait}b")
        wait_until(lambda: refusals(own) > before, PATIENCE, "TRYAGAIN")
        own.move_keys(slot)
        own.finish_migration(slot)
        assert wire.reply() == b":1\r\n"
        assert wire.ask(b"SMEMBERS", b"{wait}c") == b"*1\r\n$1\r\nx\r\n"


def test_command_for_both_halves_is_given_up_in_the_end(own: LocalCluster, front: Proxy) -> None:
    slot = half_move_sets(own, front, "give up")
    with running(own, config=SHORT_HOLD) as proxy, proxy.connect() as wire:
        # What waits so shortly must not be waiting for the first link.
        wait_until(lambda: wire.ask(b"SCARD", b"{give up}a") == b":2\r\n", PATIENCE, "a link")
        begin = time.monotonic()
        reply = wire.ask(b"SINTERSTORE", b"{give up}c", b"{give up}a", b"{give up}b")
        assert reply.startswith(b"-TRYAGAIN ")
        assert 0.2 < time.monotonic() - begin < 0.3 + UNAFFECTED
        assert wire.ask(b"SCARD", b"{give up}a") == b":2\r\n"
        own.move_keys(slot)
        own.finish_migration(slot)
        last = wire.ask(b"SINTERSTORE", b"{give up}c", b"{give up}a", b"{give up}b")
        assert last == b":1\r\n"


def test_stream_keeps_its_order_while_its_slot_moves(own: LocalCluster, front: Proxy) -> None:
    """SET, SET, GET, ever again, without waiting for a reply, while the slot goes round."""
    slot, over = slot_of(b"order"), threading.Event()

    def send(wire: Wire) -> int:
        """In small portions, so that there are always some on every part of the way."""
        count = 0
        while not over.is_set():
            count += 1
            wire.raw(b"".join(pack([b"SET", b"order", b"%d" % n]) for n in (-count, count)))
            wire.send(b"GET", b"order")
        wire.socket.shutdown(socket.SHUT_WR)
        return count

    def check(wire: Wire) -> int:
        count = 0
        with contextlib.suppress(EOFError):
            while replies := wire.replies(3):
                count += 1
                bulk = b"$%d\r\n%d\r\n" % (len(str(count)), count)
                assert replies == [b"+OK\r\n", b"+OK\r\n", bulk]
        return count

    with front.connect() as wire, ThreadPoolExecutor(2) as pool:
        sent, right = pool.submit(send, wire), pool.submit(check, wire)
        try:
            for _ in range(40):
                own.migrate_slot(slot, other(own, slot).port)
        finally:
            over.set()
        assert right.result(PATIENCE) == sent.result(PATIENCE) > 40


def test_later_commands_wait_for_earlier_ones_at_the_old_owner(new_cluster: ClusterMaker) -> None:
    """The old owner is frozen with two writes, which it is going to refuse; a read comes later."""
    quick = (
        '[topology]\nrefresh_interval = "500ms"\nfetch_timeout = "200ms"\n[log]\nlevel = "debug"\n'
    )
    with (
        new_cluster(masters=3, replicas=0, node_timeout_ms=60_000) as cluster,
        running(cluster, config=quick) as proxy,
        proxy.connect() as wire,
    ):
        slot = slot_of(b"late")
        old, new = cluster.slot_owner(slot), other(cluster, slot)
        assert wire.ask(b"DEL", b"late") == b":0\r\n"
        cluster.begin_migration(slot, new.port)
        old.call("CLUSTER", "SETSLOT", slot, "NODE", new.node_id)
        old.freeze()
        wire.raw(pack([b"SET", b"late", b"1"]) + pack([b"SET", b"late", b"2"]))
        # Only now does anybody say who owns the slot.
        new.call("CLUSTER", "SETSLOT", slot, "NODE", new.node_id)
        held = f"commands for slot {slot} are held: the slot changes hands"
        wait_until(lambda: held in proxy.text(), PATIENCE, "the new map")
        wire.send(b"GET", b"late")
        with proxy.connect() as other_wire:
            assert other_wire.ask(b"PING") == b"+PONG\r\n"
        old.thaw()
        assert wire.replies(3) == [b"+OK\r\n", b"+OK\r\n", b"$1\r\n2\r\n"]


# -- nodes come and change roles --


def test_slot_moves_to_a_node_that_was_not_there(own: LocalCluster, front: Proxy) -> None:
    added = own.add_node()
    own.wait_ready()
    with Workload(front, clients=2) as load:
        first, second, *_ = load.slots
        own.migrate_slot(first, added.port)
        own.begin_migration(second, added.port)
        own.move_keys(second)
        goes_on(load, 1000)
        own.finish_migration(second)
    wait_until(lambda: f":{added.port} (RESP2) is up" in front.text(), PATIENCE, "a link to it")
    for slot in (first, second):
        own.migrate_slot(slot, own.nodes[0].port)


def test_ordered_failover_under_load(own: LocalCluster, front: Proxy) -> None:
    with Workload(front, forgiven=MAYBE) as load:
        for number in (3, 0):
            own.failover(own.nodes[number].port)
            goes_on(load, 1000)


# -- nodes go away --


def attempt(wire: Wire, *words: bytes) -> str:
    """The reply as a text, without its line end; an error has to say what became of the command."""
    reply = wire.ask(*words).decode()[:-2]
    clear = (MAYBE, "was not executed", "CLUSTERDOWN")
    assert not reply.startswith("-") or any(each in reply for each in clear), reply
    return reply


def test_killed_master_is_replaced(new_cluster: ClusterMaker) -> None:
    """Its commands get a clear error until the replica serves; those of others see nothing."""
    with (
        new_cluster(masters=3, replicas=1) as cluster,
        running(cluster, config='upstream.hold_time = "500ms"') as proxy,
        proxy.connect() as wire,
        proxy.connect() as other_wire,
    ):
        lost, kept = (key_of(cluster, node).encode() for node in cluster.nodes[:2])
        assert wire.ask(b"MSET", lost, b"1", kept, b"1") == b"+OK\r\n"
        wait_until(lambda: cluster.nodes[3].call("DBSIZE") == 1, PATIENCE, "the copy")
        cluster.nodes[0].kill()
        assert re.match(f"-CLUSTERDOWN|.*{MAYBE}", attempt(wire, b"INCR", lost))
        worst = slowest(
            lambda: other_wire.ask(b"GET", kept), lambda: attempt(wire, b"GET", lost) == "$1\r\n1"
        )
    assert worst < UNAFFECTED


def test_commands_wait_for_the_replica(new_cluster: ClusterMaker) -> None:
    """With time enough to hold them, commands of a killed master all succeed, in order."""
    with (
        new_cluster(masters=3, replicas=1) as cluster,
        running(cluster, config='upstream.hold_time = "20s"') as proxy,
        proxy.connect() as wire,
    ):
        key = key_of(cluster, cluster.nodes[0]).encode()
        assert wire.ask(b"SET", key, b"0") == b"+OK\r\n"
        cluster.nodes[0].kill()
        wait_until(lambda: "is down" in proxy.text(), PATIENCE, "the end of the link")
        wire.raw(pack([b"SET", key, b"1"]) + pack([b"INCR", key]) + pack([b"GET", key]))
        assert wire.replies(3) == [b"+OK\r\n", b":2\r\n", b"$1\r\n2\r\n"]


def test_node_is_stopped_and_restarted(new_cluster: ClusterMaker) -> None:
    """On the same port and, as it saves nothing, empty; load goes on with clear errors at most."""
    with new_cluster(masters=3, replicas=0) as cluster, running(cluster) as proxy:
        node = cluster.nodes[2]
        with proxy.connect() as wire:
            key = key_of(cluster, node).encode()
            assert wire.ask(b"SET", key, b"1") == b"+OK\r\n"
            node.stop()
            wait_until(lambda: "is down" in proxy.text(), PATIENCE, "the end of the link")
            wire.raw(pack([b"GET", key]) + pack([b"INCR", key]))
            node.restart()
            assert wire.replies(2) == [b"$-1\r\n", b":1\r\n"]


def test_frozen_node(new_cluster: ClusterMaker) -> None:
    """Its commands end at their time limit, those of others see nothing; no reply is mixed up."""
    limits = 'upstream.command_timeout = "1s"'
    with (
        new_cluster(masters=3, replicas=0, node_timeout_ms=60_000) as cluster,
        running(cluster, config=limits) as proxy,
        proxy.connect() as slow,
        proxy.connect() as fast,
    ):
        frozen, well = (key_of(cluster, node).encode() for node in cluster.nodes[:2])
        assert slow.ask(b"SET", frozen, b"old") == fast.ask(b"SET", well, b"old") == b"+OK\r\n"
        cluster.nodes[0].freeze()
        begin = time.monotonic()
        slow.raw(pack([b"SET", frozen, b"new"]) + pack([b"GET", frozen]) + pack([b"GET", well]))
        worst = slowest(lambda: fast.ask(b"GET", well), lambda: time.monotonic() > begin + 0.8)
        replies = slow.replies(3)
        assert 0.9 < time.monotonic() - begin < 1 + UNAFFECTED
        assert [MAYBE.encode() in reply for reply in replies] == [True, True, False]
        assert replies[2] == b"$3\r\nold\r\n"
        cluster.nodes[0].thaw()
        for number in range(100):
            assert slow.ask(b"ECHO", b"%d" % number) == b"$%d\r\n%d\r\n" % (
                len(str(number)),
                number,
            )
            assert slow.ask(b"GET", frozen) == b"$3\r\nnew\r\n"
            assert fast.ask(b"APPEND", frozen, b"") == b":3\r\n"
    assert worst < UNAFFECTED


def test_slot_that_no_node_owns(new_cluster: ClusterMaker) -> None:
    """An error for its keys alone; the other slots are served."""
    partial = {"cluster-require-full-coverage": "no"}
    with new_cluster(masters=3, replicas=0, options=partial) as cluster:
        missing, kept = (key_of(cluster, cluster.nodes[0], number).encode() for number in (0, 1))
        for node in cluster.nodes:
            node.call("CLUSTER", "DELSLOTS", slot_of(missing))
        with running(cluster, config=SHORT_HOLD) as proxy, proxy.connect() as wire:
            assert attempt(wire, b"SET", kept, b"1") == "+OK"
            assert attempt(wire, b"SET", missing, b"1").startswith(NOT_SERVED)
            begin = time.monotonic()
            assert attempt(wire, b"MGET", kept, missing).startswith(NOT_SERVED)
            assert attempt(wire, b"GET", kept) == "$1\r\n1"
            assert time.monotonic() - begin < UNAFFECTED
            cluster.nodes[1].call("CLUSTER", "ADDSLOTS", slot_of(missing))
            wait_until(
                lambda: attempt(wire, b"SET", missing, b"1") == "+OK", PATIENCE, "the slot's return"
            )


def test_seeds_that_come_later(new_cluster: ClusterMaker) -> None:
    """All seeds are dead at the start: rproxy waits, says so, serves as soon as one answers."""
    port = free_node_ports(3)[0]
    seeds = [f"127.0.0.1:{port}", "no-such-host.invalid:6379"]
    proxy = Proxy(seeds, config=SHORT_HOLD)
    try:
        proxy.wait_listening()
        with proxy.connect() as wire:
            assert attempt(wire, b"GET", b"key").startswith(NOT_SERVED)
            wait_until(lambda: "no seed answers" in proxy.text(), PATIENCE, "a word about seeds")
            assert f"{seeds[0]} did not give the slot map: " in proxy.text()
            with new_cluster(masters=3, replicas=0, base_port=port):
                wait_until(
                    lambda: attempt(wire, b"SET", b"key", b"1") == "+OK", PATIENCE, "first reply"
                )
                assert wire.ask(b"GET", b"key") == b"$1\r\n1\r\n"
    finally:
        proxy.stop()
