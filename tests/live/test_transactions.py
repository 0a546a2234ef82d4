"""Transactions through the proxy: as a plain server answers them, and while slots move."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from rproxy.demo import LocalCluster
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.conftest import ClusterMaker
from tests.live.plain import Plain
from tests.live.proxies import Proxy, Wire
from tests.live.test_changes import other

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])
PIPELINED = pytest.mark.parametrize("pipelined", [True, False], ids=["pipelined", "by turns"])


@pytest.fixture(scope="module")
def own(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """A cluster whose slots these tests move."""
    with new_cluster(masters=3, replicas=0) as cluster:
        yield cluster


def said(line: str) -> list[bytes]:
    return [word.encode() for word in line.split()]


def answers(wire: Wire, lines: list[str], pipelined: bool) -> list[bytes]:
    """The replies to commands, sent all at once or one after the other."""
    if pipelined:
        wire.raw(b"".join(pack(said(line)) for line in lines))
        return wire.replies(len(lines))
    return [wire.ask(*said(line)) for line in lines]


def same_words(lines: list[str], plain: Plain) -> list[str]:
    """Without the unknown command, where an old server has other words for it than the proxy."""
    return [line for line in lines if plain.modern or not line.startswith("NOSUCH")]


SCRIPTS = [
    "MULTI; SET {t}a 1; INCR {t}a; GET {t}b; EXEC",
    "SET {t}a 5; MULTI; INCR {t}a; EXEC; GET {t}a; MULTI; INCR {t}a; EXEC; GET {t}a",
    "MULTI; EXEC; EXEC; DISCARD; MULTI; DISCARD; UNWATCH",
    "MULTI; MULTI; WATCH {t}a; SET {t}a 1; EXEC",
    "MULTI; SET {t}a; SET {t}a 1; EXEC; GET {t}a",
    "MULTI; SET {t}a 1; NOSUCH x y; GET {t}a; EXEC; GET {t}a",
    "MULTI; NOSUCH x y; SET {t}a 1; EXEC; GET {t}a",
    "MULTI; PING; ECHO hello; SELECT 0; EXEC",
    "MULTI; PING; SET {t}a 1; PING again; EXEC",
    "MULTI; SET {t}a x; INCR {t}a; LPUSH {t}a 1; GET {t}a; EXEC",
    "MULTI; EXEC now; SET {t}a 1; EXEC",
    "WATCH; WATCH {t}a; MULTI; SET {t}a 2; EXEC; GET {t}a",
    "WATCH {t}a; SET {t}a 3; MULTI; SET {t}a 4; EXEC; GET {t}a",
    "WATCH {t}a {t}b; SET {t}b 3; UNWATCH; MULTI; SET {t}a 4; EXEC; GET {t}a",
    "WATCH {t}a; SET {t}a 3; MULTI; DISCARD; MULTI; GET {t}a; EXEC",
    "WATCH {t}a; WATCH {t}b; MULTI; PING; EXEC",
    "WATCH {t}a; SET {t}a 1; MULTI; PING; EXEC",
    "WATCH {t}a; MULTI; UNWATCH; GET {t}a; EXEC",
    "MULTI; RPUSH {t}l 1; BLPOP {t}l 0; BLPOP {t}l 0; BLMOVE {t}l {t}m LEFT LEFT 0; EXEC",
    "MULTI; MSET {t}a 1 {t}b 2; MGET {t}a {t}b {t}c; DEL {t}a {t}b; EXEC",
    "MULTI; HSET {t}h f v; HGETALL {t}h; SMEMBERS {t}s; EXEC",
    "MULTI; XADD {t}s 1-1 f v; XREAD BLOCK 0 STREAMS {t}s $; EXEC",
    "MULTI; SET {t}a 1; RESET; GET {t}a",
    "WATCH {t}a; RESET; SET {t}a 1; MULTI; GET {t}a; EXEC",
    "EVAL 'x' 0; MULTI; EVAL return{KEYS[1]} 1 {t}a; EVAL return(7) 0; EXEC",
]


@PROTOCOLS
@PIPELINED
@pytest.mark.parametrize("script", SCRIPTS)
def test_as_a_plain_server(
    proxy: Proxy, plain: Plain, script: str, protocol: int, pipelined: bool
) -> None:
    lines = same_words(script.split("; "), plain)
    found = []
    for target in (proxy, plain):
        with target.connect() as wire:
            wire.ask(b"HELLO", b"%d" % protocol)
            wire.ask(b"DEL", *[b"{t}%c" % letter for letter in b"abclmsh"])
            found.append(answers(wire, lines, pipelined))
    assert found[0] == found[1]


# Servers before 7.0 wait for ever where a timeout is below two milliseconds.
KINDS = [
    "MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "WATCH {t}a", "WATCH {t}b", "UNWATCH", "PING",
    "SET {t}a 1", "INCR {t}a", "GET {t}a", "APPEND {t}b x", "MGET {t}a {t}b", "LPUSH {t}a 1",
    "GET", "NOSUCH", "ECHO x", "BLPOP {t}l 0.002", "RPUSH {t}l 1",
]  # fmt: skip


@PROTOCOLS
@pytest.mark.parametrize("seed", range(15))
def test_random_conversations(proxy: Proxy, plain: Plain, protocol: int, seed: int) -> None:
    """Any commands in any order, in pipelines of any length: the same replies."""
    dice = random.Random(seed)
    lines = same_words([dice.choice(KINDS) for _ in range(120)], plain)
    cuts = sorted(dice.sample(range(len(lines)), 20))
    found: list[list[bytes]] = []
    for target in (proxy, plain):
        with target.connect() as wire:
            wire.ask(b"HELLO", b"%d" % protocol)
            wire.ask(b"DEL", b"{t}a", b"{t}b", b"{t}l")
            replies: list[bytes] = []
            for begin, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
                replies += answers(wire, lines[begin:end], True)
            found.append(replies)
    assert list(zip(lines, found[0], strict=True)) == list(zip(lines, found[1], strict=True))


def test_transactions_need_no_new_connections(front: Proxy, own: LocalCluster) -> None:
    """A link is leased, given back, and leased again."""
    node = own.slot_owner(slot_of(b"{t}a"))

    def connections() -> int:
        about = node.call("INFO", "stats").decode()
        return int(about.partition("total_connections_received:")[2].split()[0])

    with front.connect() as wire:
        for _ in range(3):
            answers(wire, ["WATCH {t}a", "MULTI", "SET {t}a 1", "EXEC"], False)
        before = connections()
        for _ in range(20):
            replies = answers(wire, ["WATCH {t}a", "MULTI", "SET {t}a 1", "EXEC"], False)
            assert replies[-1] == b"*1\r\n+OK\r\n"
        assert connections() - before < 15  # INFO itself, and the regular looks at the cluster


def test_other_clients_do_not_see_half_a_transaction(proxy: Proxy) -> None:
    with proxy.connect() as wire, proxy.connect() as witness:
        answers(wire, ["SET {t}a 0", "MULTI", "SET {t}a 1"], False)
        assert witness.ask(b"GET", b"{t}a") == b"$1\r\n0\r\n"
        wire.ask(b"EXEC")
        assert witness.ask(b"GET", b"{t}a") == b"$1\r\n1\r\n"


def test_client_that_leaves_runs_nothing(proxy: Proxy) -> None:
    for _ in range(3):
        with proxy.connect() as wire:
            answers(wire, ["SET {t}a 0", "MULTI", "SET {t}a 1"], False)
    with proxy.connect() as wire:
        replies = answers(wire, ["MULTI", "GET {t}a", "EXEC"], False)
    assert replies[-1] == b"*1\r\n$1\r\n0\r\n"


def test_client_list_shows_transactions(proxy: Proxy) -> None:
    with proxy.connect() as wire, proxy.connect() as witness:
        number = wire.ask(b"CLIENT", b"ID").strip(b":\r\n")
        answers(wire, ["MULTI", "SET {t}a 1", "GET {t}a"], False)
        line = witness.ask(b"CLIENT", b"LIST", b"ID", number)
        assert b" flags=x " in line
        assert b" multi=2 " in line


# -- slots move --


@PROTOCOLS
def test_slot_moves_while_commands_are_queued(
    own: LocalCluster, front: Proxy, protocol: int
) -> None:
    key = f"{{queued:{protocol}}}"
    slot = slot_of(key.encode())
    with front.connect() as wire:
        wire.ask(b"HELLO", b"%d" % protocol)
        lines = ["MULTI", f"SET {key}a 1", f"INCR {key}a"]
        assert answers(wire, lines, False) == [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n"]
        own.migrate_slot(slot, other(own, slot).port)
        assert answers(wire, [f"INCR {key}a", "EXEC", f"GET {key}a"], False) == [
            b"+QUEUED\r\n",
            b"*3\r\n+OK\r\n:2\r\n:3\r\n",
            b"$1\r\n3\r\n",
        ]


def test_slot_moves_before_exec(own: LocalCluster, front: Proxy) -> None:
    slot = slot_of(b"before")
    with front.connect() as wire:
        answers(wire, ["DEL before", "MULTI", "INCR before"], False)
        own.migrate_slot(slot, other(own, slot).port)
        assert wire.ask(b"EXEC") == b"*1\r\n:1\r\n"


def test_slot_moves_between_pipelined_transactions(own: LocalCluster, front: Proxy) -> None:
    slot = slot_of(b"between")
    with front.connect() as wire:
        wire.ask(b"SET", b"between", b"0")
        own.migrate_slot(slot, other(own, slot).port)
        lines = ["INCR between", "MULTI", "INCR between", "EXEC", "INCR between"] * 50
        replies = answers(wire, lines, True)
        assert wire.ask(b"GET", b"between") == b"$3\r\n150\r\n"
    assert replies[3::5] == [b"*1\r\n:%d\r\n" % (2 + 3 * turn) for turn in range(50)]


def test_watched_slot_moves(own: LocalCluster, front: Proxy) -> None:
    slot = slot_of(b"watched")
    with front.connect() as wire:
        assert wire.ask(b"WATCH", b"watched") == b"+OK\r\n"
        own.migrate_slot(slot, other(own, slot).port)
        replies = answers(wire, ["MULTI", "SET watched 1", "EXEC", "GET watched"], False)
        assert replies == [b"+OK\r\n", b"+QUEUED\r\n", b"*-1\r\n", b"$-1\r\n"]
        replies = answers(wire, ["WATCH watched", "MULTI", "SET watched 1", "EXEC"], False)
        assert replies[-1] == b"*1\r\n+OK\r\n"


@PIPELINED
def test_half_migrated_slot(own: LocalCluster, front: Proxy, pipelined: bool) -> None:
    """Keys that have gone are served where they are; both kinds together wait for the move."""
    tag = f"{{half:{pipelined}}}"
    slot = slot_of(tag.encode())
    with front.connect() as wire:
        answers(wire, [f"MSET {tag}a 1 {tag}b 2"], True)
        own.begin_migration(slot, other(own, slot).port)
        own.move_keys(slot)
        lines = ["MULTI", f"INCR {tag}a", "EXEC", "MULTI", f"SET {tag}new 1", "EXEC"]
        replies = answers(wire, lines, pipelined)
        assert replies[2] == b"*1\r\n:2\r\n"
        assert replies[5] == b"*1\r\n+OK\r\n"
        own.finish_migration(slot)
        assert wire.ask(b"GET", f"{tag}new".encode()) == b"$1\r\n1\r\n"
