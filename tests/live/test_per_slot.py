"""Transactions over several slots: replies as a plain server's, while slots move as well."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from rproxy.demo import LocalCluster
from rproxy.routing.slots import slot_of
from tests.live.plain import Plain
from tests.live.proxies import Proxy, running
from tests.live.test_changes import other
from tests.live.test_transactions import PIPELINED, PROTOCOLS, SCRIPTS, answers, own, same_words

__all__ = ["own"]

PER_SLOT = 'transactions = "per-slot"\n'
KEYS = [b"a", b"b", b"c", b"l", b"m", b"s", b"h", b"n"]


@pytest.fixture(scope="module")
def scattering(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that allows it."""
    with running(cluster, config=PER_SLOT) as started:
        yield started


@pytest.fixture(scope="module")
def moving(own: LocalCluster) -> Iterator[Proxy]:
    """The same, before a cluster whose slots these tests move."""
    with running(own, config=PER_SLOT) as started:
        yield started


def compare(proxy: Proxy, plain: Plain, turns: list[list[str]], protocol: int) -> None:
    """The same lines, each list of them in a pipeline, get the same replies."""
    found: list[list[bytes]] = []
    for target in (proxy, plain):
        with target.connect() as wire:
            wire.ask(b"HELLO", b"%d" % protocol)
            for key in KEYS:
                wire.ask(b"DEL", key)
            found.append([reply for lines in turns for reply in answers(wire, lines, True)])
    lines = [line for lines in turns for line in lines]
    assert list(zip(lines, found[0], strict=True)) == list(zip(lines, found[1], strict=True))


ONE_SLOT = [
    script.replace("{t}", "") for script in SCRIPTS if "WATCH {t}b" not in script
    and "BLMOVE" not in script and "WATCH {t}a {t}b" not in script
]  # fmt: skip

SEVERAL_SLOTS = [
    "MULTI; SET a 1; SET b 2; SET c 3; GET b; GET a; EXEC; MGET a b c",
    "MULTI; PING; MSET a 1 b 2 c 3; MGET c b a n; DEL a n; EXISTS a b c b; UNLINK b c; EXEC",
    "MULTI; MGET a b; EXEC; MULTI; MGET a b; DISCARD; MULTI; MGET a b; PING x; TOUCH a b; EXEC",
    "MULTI; SET a x; INCR a; SET b y; INCR b; GET a; GET b; LPUSH b 1; EXEC",
    "MULTI; SET a 1; GET; SET b 2; EXEC; MGET a b",
    "MULTI; SET a 1; SET b 1 NX PX; EXEC; MGET a b",
    "MULTI; HSET h f v; SADD s x; RPUSH l 1 2 3; HGETALL h; SMEMBERS s; LRANGE l 0 -1; EXEC",
    "MULTI; SET b 1; BLPOP l 0; RPUSH m 1; BLPOP m 0; EXEC",
    "SET a 5; WATCH a; MULTI; INCR b; INCR a; EXEC; MGET a b",
    "SET a 5; WATCH a; SET a 6; MULTI; INCR b; INCR a; EXEC; MGET a b",
    "WATCH a; MULTI; INCR b; INCR c; EXEC; MGET a b c",
    "WATCH a; SET a 1; MULTI; INCR b; INCR c; EXEC; MGET a b c",
    "WATCH a; MULTI; UNWATCH; INCR b; GET a; EXEC",
    "MULTI; INCR a; INCR b; RESET; MGET a b",
    "MULTI; EVAL return{KEYS[1],ARGV[1]} 1 a x; EVAL return{KEYS[1]} 1 b; EVAL return(7) 0; EXEC",
    "MULTI; INCR a; INCR b; EXEC; INCR a; INCR b; MULTI; INCR b; INCR a; EXEC",
    "MULTI; SET a 1; CLIENT NOSUCH; SET b 1; NOSUCH; EXEC; MGET a b",
]


@PROTOCOLS
@PIPELINED
@pytest.mark.parametrize("script", ONE_SLOT + SEVERAL_SLOTS)
def test_as_a_plain_server(
    scattering: Proxy, plain: Plain, script: str, protocol: int, pipelined: bool
) -> None:
    lines = same_words([line for line in script.split("; ") if "CLIENT" not in line], plain)
    compare(scattering, plain, [lines] if pipelined else [[line] for line in lines], protocol)


KINDS = [
    "MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "WATCH a", "UNWATCH", "PING", "ECHO x", "GET",
    "SET a 1", "INCR a", "INCR b", "INCR c", "GET a", "GET b", "APPEND b x", "MGET a b c",
    "MSET a 1 b 2", "DEL a c", "EXISTS a b n", "LPUSH l 1", "LPUSH b 1", "BLPOP l 0.002", "NOSUCH",
]  # fmt: skip


@PROTOCOLS
@pytest.mark.parametrize("seed", range(15))
def test_random_conversations(scattering: Proxy, plain: Plain, protocol: int, seed: int) -> None:
    """Any commands in any order, in pipelines of any length: the same replies."""
    dice = random.Random(seed)
    lines = same_words([dice.choice(KINDS) for _ in range(150)], plain)
    cuts = sorted(dice.sample(range(len(lines)), 20))
    turns = [lines[begin:end] for begin, end in pairwise([0, *cuts, len(lines)])]
    compare(scattering, plain, turns, protocol)


@PROTOCOLS
@pytest.mark.parametrize("seed", range(5))
def test_random_conversations_about_pinned_keys(
    pinning: Proxy, plain: Plain, protocol: int, seed: int
) -> None:
    """A pin brings some of the keys together: what is asked for is what is answered."""
    test_random_conversations(pinning, plain, protocol, seed)


@pytest.fixture(scope="module")
def pinning(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that allows it, and pins some of the keys."""
    pin = '[[pin]]\nprefix = ["b", "c", "l"]\ntag = "t"\n'
    with running(cluster, config=PER_SLOT + pin) as started:
        yield started


def test_keys_that_scripts_return_are_the_clients(pinning: Proxy, plain: Plain) -> None:
    lines = ["RPUSH b x", "RPUSH l y", "MULTI", "BLPOP b 0", "SET a 1", "BLPOP l 0", "EXEC"]
    compare(pinning, plain, [lines], 2)
    compare(
        pinning, plain, [["MULTI", "SET a 1", "BLPOP b 0", "RPUSH l y", "BLPOP l 0", "EXEC"]], 2
    )


def test_slots_move_between_the_commands(own: LocalCluster, moving: Proxy) -> None:
    with moving.connect() as wire:
        answers(wire, ["DEL a b c", "MULTI", "INCR a", "INCR b"], True)
        for key in (b"a", b"b", b"c"):
            own.migrate_slot(slot_of(key), other(own, slot_of(key)).port)
        replies = answers(wire, ["INCR c", "MGET a b c", "EXEC", "MGET a b c"], False)
    ones = b"*3\r\n" + b"$1\r\n1\r\n" * 3
    assert replies[2:] == [b"*4\r\n" + b":1\r\n" * 3 + ones, ones]


def test_nothing_is_lost_or_done_twice_while_slots_move(own: LocalCluster, moving: Proxy) -> None:
    """Each key's counter goes up by one with every transaction."""
    keys = ["one", "two", "three"]
    with moving.connect() as wire:
        answers(wire, [f"DEL {key}" for key in keys], True)
        for turn in range(12):
            slot = slot_of(keys[turn % 3].encode())
            own.begin_migration(slot, other(own, slot).port)
            lines = ["MULTI", *[f"INCR {key}" for key in keys], "EXEC"] * 10
            first = answers(wire, lines, True)[4::5]
            own.move_keys(slot)
            second = answers(wire, lines, True)[4::5]
            own.finish_migration(slot)
            assert first + second == [
                b"*3\r\n" + b":%d\r\n" % number * 3
                for number in range(turn * 20 + 1, turn * 20 + 21)
            ]


def test_with_the_default_it_is_refused(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        replies = answers(wire, ["MULTI", "SET a 1", "SET b 1", "EXEC"], True)
    assert replies[2].startswith(b"-CROSSSLOT")
    assert replies[3].startswith(b"-EXECABORT")
