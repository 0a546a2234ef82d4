"""Blocking commands through the proxy: as a plain server answers them, alone and in crowds."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from rproxy.routing.slots import slot_of
from tests.live.plain import Plain
from tests.live.proxies import Proxy, Wire, running
from tests.live.test_changes import PATIENCE, other
from tests.live.test_transactions import answers, said

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])
MANY = 1000
"""Blocked clients of the crowd."""


def blocked_clients(cluster: LocalCluster) -> int:
    """How many clients the nodes hold in blocking commands."""
    texts = [node.call("INFO", "clients").decode() for node in cluster.nodes]
    return sum(int(text.partition("blocked_clients:")[2].split()[0]) for text in texts)


def wait_blocked(cluster: LocalCluster, count: int) -> None:
    wait_until(lambda: blocked_clients(cluster) == count, PATIENCE, f"{count} blocked clients")


AT_ONCE = [
    "RPUSH {b}l 1 2 3; BLPOP {b}l 0; BRPOP {b}l {b}m 0; BLMOVE {b}l {b}m LEFT RIGHT 0; LLEN {b}m",
    "RPUSH {b}l 1; BRPOPLPUSH {b}l {b}m 0; BLMPOP 0 2 {b}l {b}m LEFT COUNT 2; EXISTS {b}m",
    "ZADD {b}z 1 a 2 b 3 c; BZPOPMIN {b}z 0; BZPOPMAX {b}z 0; BZMPOP 0 1 {b}z MIN; EXISTS {b}z",
    "XADD {b}s 1-1 f v; XREAD BLOCK 0 STREAMS {b}s 0; XREAD COUNT 1 BLOCK 10 STREAMS {b}s 9",
    "XGROUP CREATE {b}s g $ MKSTREAM; XADD {b}s 1-1 f v; "
    "XREADGROUP GROUP g c BLOCK 0 STREAMS {b}s >; XREADGROUP GROUP g c BLOCK 5 STREAMS {b}s >",
    "BLPOP {b}l 0.01; BLMOVE {b}l {b}m LEFT LEFT 0.01; BRPOPLPUSH {b}l {b}m 0.01; GET {b}a",
    "BLMPOP 0.01 1 {b}l LEFT; BZPOPMIN {b}z 0.01; BZMPOP 0.01 1 {b}z MAX; "
    "XREAD BLOCK 5 STREAMS {b}s $",
    "BLPOP {b}l -1; BLPOP {b}l soon; BLPOP {b}l; BLMPOP 0 0 LEFT; "
    "BLMPOP 1 x {b}l LEFT; BZMPOP x 1 {b}z MIN",
    "SET {b}a 1; BLPOP {b}a 0; XREAD BLOCK 5 STREAMS {b}a $; BZPOPMIN {b}a 0; "
    "BLMOVE {b}a {b}l LEFT UP 0",
    "XREAD BLOCK x STREAMS {b}s $; XREAD BLOCK -1 STREAMS {b}s $; XREAD BLOCK 5 STREAMS {b}s; "
    "XREAD BLOCK",
    "XREADGROUP GROUP none c BLOCK 5 STREAMS {b}s >; BLPOP {b}l 1e300; BLPOP {b}l 0.01",
]  # fmt: skip


@PROTOCOLS
@pytest.mark.parametrize("pipelined", [True, False], ids=["pipelined", "by turns"])
@pytest.mark.parametrize("script", AT_ONCE)
def test_as_a_plain_server(
    proxy: Proxy, plain: Plain, script: str, protocol: int, pipelined: bool
) -> None:
    found = []
    lines = [line for line in script.split("; ") if plain.knows(said(line)[0])]
    for target in (proxy, plain):
        with target.connect() as wire:
            wire.ask(b"HELLO", b"%d" % protocol)
            wire.ask(b"DEL", *[b"{b}%c" % letter for letter in b"lmzsa"])
            found.append(answers(wire, lines, pipelined))
    assert found[0] == found[1]


WAITING = {
    "BLPOP {w}l 0": "RPUSH {w}l x",
    "BRPOP {w}k {w}l 0": "RPUSH {w}l x",
    "BLMOVE {w}l {w}m LEFT LEFT 0": "RPUSH {w}l x",
    "BRPOPLPUSH {w}l {w}m 0": "RPUSH {w}l x",
    "BLMPOP 0 1 {w}l LEFT": "RPUSH {w}l x",
    "BZPOPMIN {w}z 0": "ZADD {w}z 1 x",
    "BZPOPMAX {w}z 0": "ZADD {w}z 1 x",
    "BZMPOP 0 1 {w}z MIN": "ZADD {w}z 1 x",
    "XREAD BLOCK 0 STREAMS {w}s $": "XADD {w}s 5-5 f v",
    "XREADGROUP GROUP g c BLOCK 0 STREAMS {w}s >": "XADD {w}s 5-5 f v",
}


@PROTOCOLS
@pytest.mark.parametrize("command", WAITING)
def test_woken_as_by_a_plain_server(
    proxy: Proxy, plain: Plain, cluster: LocalCluster, command: str, protocol: int
) -> None:
    if not plain.knows(said(command)[0]):
        pytest.skip("this server does not have the command")
    found = []
    for target in (proxy, plain):
        with target.connect() as wire, target.connect() as waker:
            wire.ask(b"HELLO", b"%d" % protocol)
            wire.ask(b"DEL", *[b"{w}%c" % letter for letter in b"klmzs"])
            wire.ask(*said("XGROUP CREATE {w}s g $ MKSTREAM"))
            wire.send(*said(command))
            if target is proxy:
                wait_blocked(cluster, 1)
            else:
                wait_until(
                    lambda: b" flags=b " in waker.ask(b"CLIENT", b"LIST"), PATIENCE, "a block"
                )
            waker.ask(*said(WAITING[command]))
            found.append(wire.reply())
    assert found[0] == found[1]


def test_timeout_is_exact(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        begin = time.monotonic()
        assert wire.ask(b"BLPOP", b"nothing", b"0.5") == b"*-1\r\n"
        assert 0.5 <= time.monotonic() - begin < 1.5


def test_keys_of_several_slots(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        assert wire.ask(b"BLPOP", b"a", b"b", b"0").startswith(b"-CROSSSLOT")


def test_client_that_leaves_takes_nothing(proxy: Proxy, cluster: LocalCluster) -> None:
    with proxy.connect() as wire:
        wire.ask(b"DEL", b"ghost")
        with proxy.connect() as ghost:
            ghost.send(b"BLPOP", b"ghost", b"0")
            ghost.send(b"GET", b"ghost")
            wait_blocked(cluster, 1)
        wait_blocked(cluster, 0)
        wire.ask(b"RPUSH", b"ghost", b"x")
        assert wire.ask(b"LLEN", b"ghost") == b":1\r\n"


def test_watch_outlives_a_blocking_command(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        lines = ["WATCH {t}a", "BLPOP {t}none 0.01", "SET {t}a 1", "MULTI", "PING", "EXEC"]
        assert answers(wire, lines, False)[-1] == b"*-1\r\n"


def test_owner_moves_while_blocked(own: LocalCluster, front: Proxy) -> None:
    """With no time limit, with one, and from the end of a stream."""
    slot = slot_of(b"{moves}")
    with front.connect() as one, front.connect() as two, front.connect() as three:
        with front.connect() as waker:
            waker.ask(*said("XADD {moves}s 1-1 f old"))
            one.send(*said("BLPOP {moves}a 0"))
            two.send(*said("BLPOP {moves}b 1.5"))
            three.send(*said("XREAD BLOCK 0 STREAMS {moves}s $"))
            begin = time.monotonic()
            wait_blocked(own, 3)
            own.migrate_slot(slot, other(own, slot).port)
            assert waker.ask(*said("RPUSH {moves}a x")) == b":1\r\n"
            assert waker.ask(*said("XADD {moves}s 2-1 f new")) == b"$3\r\n2-1\r\n"
        assert one.reply() == b"*2\r\n$8\r\n{moves}a\r\n$1\r\nx\r\n"
        assert b"new" in (found := three.reply())
        assert b"old" not in found
        assert two.reply() == b"*-1\r\n"
        assert 1.5 <= time.monotonic() - begin < 3.0


def test_owner_fails_over_while_blocked(own: LocalCluster, front: Proxy) -> None:
    slot = slot_of(b"{role}")
    with front.connect() as wire, front.connect() as waker:
        wire.send(*said("BLPOP {role}a 0"))
        wait_blocked(own, 1)
        master = own.slot_owner(slot)
        replica = next(
            node for node in own.nodes
            if (role := node.call("ROLE"))[0] == b"slave" and role[2] == master.port
        )  # fmt: skip
        own.failover(replica.port)
        wait_blocked(own, 1)
        assert waker.ask(*said("RPUSH {role}a x")) == b":1\r\n"
        assert wire.reply() == b"*2\r\n$7\r\n{role}a\r\n$1\r\nx\r\n"


def test_many_blocked_clients(own: LocalCluster, front: Proxy) -> None:
    """A thousand wait; others do not notice; each gets its own element."""
    with ExitStack() as stack:
        waiting = [stack.enter_context(front.connect()) for _ in range(MANY)]
        for number, wire in enumerate(waiting):
            wire.send(b"BLPOP", b"crowd:%d" % number, b"0")
        wait_blocked(own, MANY)
        worker = stack.enter_context(front.connect())
        begin = time.monotonic()
        for number in range(200):
            assert worker.ask(b"SET", b"free:%d" % number, b"1") == b"+OK\r\n"
        assert time.monotonic() - begin < 2.0
        for number in range(MANY):
            worker.send(b"RPUSH", b"crowd:%d" % number, b"%d" % number)
        assert worker.replies(MANY) == [b":1\r\n"] * MANY
        for number, wire in enumerate(waiting):
            assert wire.reply().endswith(b"\r\n%d\r\n" % number)
    wait_blocked(own, 0)


def test_limit_of_leased_links(own: LocalCluster) -> None:
    with running(own, config="upstream.max_leased = 2") as proxy, ExitStack() as stack:
        wires: list[Wire] = [stack.enter_context(proxy.connect()) for _ in range(3)]
        for wire in wires[:2]:
            wire.send(b"BLPOP", b"few", b"0")
        wait_blocked(own, 2)
        assert wires[2].ask(b"BLPOP", b"few", b"0").startswith(b"-ERR max number of links")
        assert wires[2].ask(b"MULTI") == b"+OK\r\n"
        assert wires[2].ask(b"SET", b"few", b"0").startswith(b"-ERR max number of links")
        assert wires[2].ask(b"EXEC").startswith(b"-EXECABORT")


# -- WAIT --


def test_wait(own: LocalCluster, front: Proxy) -> None:
    """Each master of this cluster has one replica."""
    with front.connect() as wire:
        for number in range(20):
            wire.send(b"SET", b"wait:%d" % number, b"1")
        wire.send(b"WAIT", b"1", b"0")
        assert wire.replies(21)[-1] == b":1\r\n"
        begin = time.monotonic()
        assert wire.ask(b"WAIT", b"2", b"300") == b":1\r\n"
        assert time.monotonic() - begin >= 0.3
        assert wire.ask(b"WAIT", b"1", b"x").startswith(b"-ERR timeout is not an integer")


def test_wait_for_a_replica_that_is_behind(own: LocalCluster, front: Proxy) -> None:
    replica = next(node for node in own.nodes if node.call("ROLE")[0] == b"slave")
    with front.connect() as wire:
        assert wire.ask(b"WAIT", b"1", b"0") == b":1\r\n"
        replica.freeze()
        try:
            for number in range(20):
                wire.send(b"SET", b"wait:%d" % number, b"2")
            wire.send(b"WAIT", b"1", b"200")
            assert wire.replies(21)[-1] == b":0\r\n"
        finally:
            replica.thaw()
        assert wire.ask(b"WAIT", b"1", b"0") == b":1\r\n"


def test_client_that_leaves_waits_no_more(own: LocalCluster, front: Proxy) -> None:
    with front.connect() as wire:
        wire.send(b"WAIT", b"5", b"0")
        wait_blocked(own, 3)
    wait_blocked(own, 0)
