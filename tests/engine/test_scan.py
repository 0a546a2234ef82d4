"""SCAN over a cluster that changes all the while: no key that stays is missed.

The nodes here have their keys in an order of their own, which a failover changes, and visit them as
a server does: whoever is there from the first page to the last is shown.
"""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rproxy.config import Address
from rproxy.engine.scan import NO_PINS, Cursor, Options, Walk, read_cursor, scan
from rproxy.routing.slots import slot_of

KEYS = [b"key:%d" % number for number in range(40)]
SLOTS = sorted(slot_of(key) for key in KEYS)
LAST = 16383


class Server:
    """A master: its keys, its slots, and its own order of keys."""

    def __init__(self, number: int) -> None:
        self.address = Address("node", number)
        self.keys: set[bytes] = set()
        self.slots: set[int] = set()
        self.runs = ""
        self.leaving: dict[int, Server] = {}
        self.epoch = number
        self.restart(number)

    def restart(self, seed: int) -> None:
        """Another process takes over: another id, another order."""
        self.id = f"{self.address.port}-{seed}"
        self.order = random.Random(seed).sample(KEYS, len(KEYS))

    def scan(self, own: int, count: int) -> list[Any]:
        page = [key for key in self.order[own : own + count] if key in self.keys]
        return [b"%d" % (own + count if own + count < len(KEYS) else 0), page]


class Nodes:
    """Three servers, and the part of a Cluster that a Walk uses."""

    def __init__(self) -> None:
        self.servers = [Server(number) for number in range(1, 4)]
        self.by_address = {server.address: server for server in self.servers}
        for slot in range(LAST + 1):
            self.servers[slot * 3 // (LAST + 1)].slots.add(slot)
        for server in self.servers:
            server.runs = runs_of(server.slots)
        for key in KEYS:
            self.owner(slot_of(key)).keys.add(key)
        self.lanes = {2: SimpleNamespace(owner=self.known_owner, pool=self.by_address.get)}
        self.known = {slot: self.owner(slot) for slot in SLOTS}
        self.config = SimpleNamespace(upstream=SimpleNamespace(hold_time=0.2))
        self.asked: list[tuple[Server, tuple[bytes, ...]]] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def owner(self, slot: int) -> Server:
        return next(server for server in self.servers if slot in server.slots)

    def known_owner(self, slot: int) -> Server | None:
        """By the slot map, which may be old."""
        return self.known.get(slot) or next((s for s in self.servers if slot in s.slots), None)

    def refresh(self, reason: str) -> None:
        self.known.clear()

    async def tell(self, server: Server, *words: bytes) -> Any:
        self.asked.append((server, words))
        if words[0] == b"SCAN":
            count = int(words[words.index(b"COUNT") + 1]) if b"COUNT" in words else 10
            return server.scan(int(words[1]), count)
        if words[1] == b"NODES":
            return self.nodes(server)
        return [key for key in server.keys if slot_of(key) == int(words[2])]

    async def route(self, slot: int, *words: bytes) -> bytes:
        return b"string"

    def nodes(self, asked: Server) -> bytes:
        """CLUSTER NODES."""
        lines = []
        for server in self.servers:
            flags = "myself,master" if server is asked else "master"
            runs = server.runs
            leaving = "".join(f" [{s}->-{to.id}]" for s, to in server.leaving.items())
            lines.append(
                f"{server.id} {server.address}@1 {flags} - 0 0 {server.epoch} connected "
                + runs
                + (leaving if server is asked else "")
            )
        return "\n".join(lines).encode()

    # -- changes --

    def move_key(self, key: bytes, target: Server) -> None:
        """One more step of the slot's move: it begins, takes the key with it, or ends."""
        slot = slot_of(key)
        source = self.owner(slot)
        goal = source.leaving.setdefault(slot, target)
        if goal is source:
            del source.leaving[slot]
        elif key in source.keys:
            source.keys.remove(key)
            goal.keys.add(key)
        else:
            rest = {k for k in source.keys if slot_of(k) == slot}
            source.keys -= rest
            goal.keys |= rest
            source.slots.remove(slot)
            del source.leaving[slot]
            goal.slots.add(slot)
            source.runs, goal.runs = runs_of(source.slots), runs_of(goal.slots)
            goal.epoch = max(server.epoch for server in self.servers) + 1


def runs_of(slots: set[int]) -> str:
    """As CLUSTER NODES writes them."""
    starts = sorted(slot for slot in slots if slot - 1 not in slots)
    ends = sorted(slot for slot in slots if slot + 1 not in slots)
    return " ".join(f"{first}-{last}" for first, last in zip(starts, ends, strict=True))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rproxy.engine.scan.PAUSE", 0)


def walk(
    nodes: Any, changes: list[tuple[int, int, int]], count: int, burst: int = 1
) -> list[bytes]:
    """All keys that SCAN shows while some changes happen between two pages."""

    async def run() -> list[bytes]:
        cursor, seen, left = 0, [], list(changes)
        for _ in range(10_000):
            options = Options.read([b"COUNT", b"%d" % count])
            start = read_cursor(b"%d" % cursor)
            assert start is not None
            cursor, keys = await Walk(nodes, options).page(start)
            seen += keys
            if cursor == 0:
                return seen
            now, left = left[:burst], left[burst:]
            for key, target, restart in now:
                nodes.move_key(KEYS[key], nodes.servers[target])
                if restart:
                    nodes.servers[target].restart(restart)
        raise AssertionError("SCAN never ends")

    return asyncio.run(run())


def test_every_key_once_while_nothing_changes() -> None:
    assert sorted(walk(Nodes(), [], 7)) == sorted(KEYS)


changes = st.lists(
    st.tuples(
        st.integers(0, len(KEYS) - 1),
        st.integers(0, 2),
        st.sampled_from([0, 0, 0, 11, 12]),
    ),
    max_size=60,
)


@settings(max_examples=120)
@given(changes, st.integers(1, 15), st.integers(1, 9))
def test_no_key_is_missed(changes: list[tuple[int, int, int]], count: int, burst: int) -> None:
    assert set(walk(Nodes(), changes, count, burst)) == set(KEYS)


def test_slot_that_leaves_and_comes_back_between_two_pages() -> None:
    """Its keys have other places now; only a new beginning finds them."""
    nodes: Any = Nodes()
    home, away, _ = nodes.servers
    late = [key for key in home.order if key in home.keys][-1]
    assert home.order.index(late) > 10

    async def run() -> list[bytes]:
        options = Options.read([b"COUNT", b"10"])
        cursor, seen = await Walk(nodes, options).page(Cursor(0))
        for target in (away, away, away, home, home, home):
            nodes.move_key(late, target)
        home.order.remove(late)
        home.order.insert(0, late)
        while cursor:
            cursor, keys = await Walk(nodes, options).page(Cursor.unpack(cursor))
            seen += keys
        return seen

    assert {*asyncio.run(run())} == {*KEYS}


@given(st.integers(0, LAST), st.integers(0, 2**40), st.integers(0, 0xFFFF))
def test_cursors_come_back(slot: int, own: int, mark: int) -> None:
    packed = Cursor(slot, own, mark).pack()
    back = Cursor.unpack(packed)
    assert (back.slot, back.own) == (slot, own)
    assert back.is_of(mark)
    assert own == 0 or not back.is_of(mark ^ 1)
    assert packed < 1 << 64
    if own < 1 << 30:
        assert packed < 1 << 53


def test_first_cursor_is_zero() -> None:
    assert read_cursor(b"0") == Cursor(0)
    assert Cursor(0).pack() == 0


@pytest.mark.parametrize("word", [b"", b"x", b"-1", b"1 ", b"9" * 21])
def test_what_is_no_cursor(word: bytes) -> None:
    assert read_cursor(word) is None


def test_errors_of_a_node_are_passed_on() -> None:
    class Grumpy(Nodes):
        async def tell(self, server: Server, *words: bytes) -> Any:
            if words[0] == b"SCAN":
                return hiredis.ReplyError("ERR syntax error")
            return await super().tell(server, *words)

    nodes: Any = Grumpy()
    assert asyncio.run(scan(nodes, [b"SCAN", b"0", b"FOO"], NO_PINS)) == b"-ERR syntax error\r\n"
    assert asyncio.run(scan(nodes, [b"SCAN", b"x"], NO_PINS)) == b"-ERR invalid cursor\r\n"


def test_slot_that_nobody_owns_is_not_passed_over() -> None:
    nodes: Any = Nodes()
    for server in nodes.servers:
        server.slots.discard(0)
        server.runs = runs_of(server.slots)
    assert asyncio.run(scan(nodes, [b"SCAN", b"0"], NO_PINS)).startswith(b"-CLUSTERDOWN")


def test_keys_of_a_leaving_slot_are_chosen_by_match_and_type() -> None:
    nodes: Any = Nodes()
    key = KEYS[0]
    source = nodes.owner(slot_of(key))
    target = next(server for server in nodes.servers if server is not source)
    nodes.move_key(key, target)

    async def left(*words: bytes) -> list[bytes]:
        return await Walk(nodes, Options.read([*words]))._left(slot_of(key), target)

    assert asyncio.run(left(b"match", b"key:0")) == [key]
    assert asyncio.run(left(b"MATCH", b"x*")) == []
    assert asyncio.run(left(b"TYPE", b"String")) == [key]
    assert asyncio.run(left(b"TYPE", b"list")) == []
