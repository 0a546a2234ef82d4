"""SCAN over the whole cluster, with cursors that any worker can continue.

Strategy. Keys are visited in the order of their slots. A *run* is a stretch of neighbouring slots
of one node; to visit it, that node is scanned with its own cursor, and only keys of the run are
shown. Then comes the run behind it, wherever that is now. So a slot that moves is found where it is
when its turn comes, whatever has been scanned before; an index of nodes in the cursor could not do
that.

A cursor holds the run's first slot, the node's own cursor, and a fingerprint of what the node said
of itself when the run began: its id, its config epoch and the run's end. With each page the node
says it again. Where it differs (a failover: other cursors; slots lost or got) the run begins anew:
keys may come twice, as SCAN allows, but none that stays is missed.

While a slot migrates, some of its keys lie at the node that takes it. At the end of a run its node
says which slots are leaving it, and their keys at the other node are added.

    cursor = own cursor | fingerprint | 1 bit: 16 or 8 bits of fingerprint | 14 bits: slot

The fingerprint is the short one where the node's own cursor is large. The whole fits 53 bits as
long as the node's own cursor has up to 30.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import hiredis

from rproxy import errors
from rproxy.engine.replies import encode
from rproxy.routing.globs import matches
from rproxy.routing.pins import Pins
from rproxy.routing.slots import slot_of
from rproxy.topology.nodes import OwnView, parse_own_view
from rproxy.topology.slotmap import SLOTS

if TYPE_CHECKING:
    from rproxy.upstream.cluster import Cluster
    from rproxy.upstream.pool import Pool

SLOT_BITS = 14
LONG_MARK, SHORT_MARK = 16, 8
"""Bits of the fingerprint, where the node's own cursor is small, and where it is large."""
LARGE = 1 << 22
"""Own cursors from which the fingerprint is short."""
PAUSE = 0.05
"""Seconds between two tries while nobody owns the slot, or the map is not yet true."""
NO_PINS = Pins(())
MOST_KEYS = 1_000_000
"""Keys of one migrating slot that are asked for: more than any server holds in one."""


class ScanRefused(Exception):
    """The reply is this error."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class Cursor(NamedTuple):
    """Where a walk through the keys stands."""

    slot: int
    """First slot of the run."""
    own: int = 0
    """The node's own cursor; 0 at the run's beginning."""
    mark: int = 0
    """The run's fingerprint, 16 bits."""

    def pack(self) -> int:
        """The number that the client gets."""
        large = self.own >= LARGE
        bits = SHORT_MARK if large else LONG_MARK
        mark = self.mark & ((1 << bits) - 1)
        return ((self.own << bits | mark) << 1 | large) << SLOT_BITS | self.slot

    @classmethod
    def unpack(cls, number: int) -> Cursor:
        """The cursor that a client sent back."""
        slot, rest = number & (SLOTS - 1), number >> SLOT_BITS
        bits = SHORT_MARK if rest & 1 else LONG_MARK
        rest >>= 1
        return cls(slot, rest >> bits, rest & ((1 << bits) - 1))

    def is_of(self, mark: int) -> bool:
        """Whether the run still has the fingerprint that the cursor was made with."""
        bits = SHORT_MARK if self.own >= LARGE else LONG_MARK
        return self.own == 0 or (self.mark ^ mark) & ((1 << bits) - 1) == 0


class Options(NamedTuple):
    """SCAN's options, as far as they choose keys; the node checks them."""

    words: list[bytes]
    match: bytes | None
    type: bytes | None
    again: bytes | None = None
    """A pattern that clients' names of the keys have to match besides."""

    @classmethod
    def read(cls, words: list[bytes], pins: Pins = NO_PINS) -> Options:
        """The words behind the cursor, as servers are to get them."""
        named = {name.upper(): at for at, name in enumerate(words[:-1]) if at % 2 == 0}
        value = {name: words[at + 1] for name, at in named.items()}
        wanted = value.get(b"MATCH")
        if wanted is None:
            return cls(words, None, value.get(b"TYPE"))
        asked, again = pins.pattern(wanted)
        at = named[b"MATCH"] + 1
        words = [*words[:at], asked, *words[at + 1 :]]
        return cls(words, asked, value.get(b"TYPE"), wanted if again else None)


def read_cursor(word: bytes) -> Cursor | None:
    """A client's cursor, or None where it is none."""
    return Cursor.unpack(int(word)) if word.isdigit() and len(word) <= 20 else None


class Walk:
    """One SCAN command."""

    def __init__(self, cluster: Cluster, options: Options) -> None:
        self.cluster = cluster
        self.options = options
        self.late = cluster.loop.time() + cluster.config.upstream.hold_time

    async def page(self, cursor: Cursor) -> tuple[int, list[bytes]]:
        """The next cursor (0 at the end) and some keys; raises ScanRefused."""
        while True:
            pool = self._owner(cursor.slot)
            page = None if pool is None else await self._ask(pool, cursor)
            if page is not None:
                return page
            if self.cluster.loop.time() > self.late:
                raise ScanRefused(errors.uncovered_reply())
            self.cluster.refresh("SCAN found a slot elsewhere")
            await asyncio.sleep(PAUSE)

    def _owner(self, slot: int) -> Pool | None:
        return self.cluster.lanes[2].owner(slot)

    async def _ask(self, pool: Pool, cursor: Cursor) -> tuple[int, list[bytes]] | None:
        """One page of the run at this node; None where the node does not own its first slot."""
        before, reply, after = await asyncio.gather(
            self._view(pool), self._scan(pool, cursor.own), self._view(pool)
        )
        last = after.last_of_run(cursor.slot)
        if last is None:
            return None
        mark = fingerprint(after, last)
        if before != after or not cursor.is_of(mark):
            return await self._ask(pool, Cursor(cursor.slot))
        own, keys = int(reply[0]), reply[1]
        chosen = [key for key in keys if cursor.slot <= slot_of(key) <= last]
        if own:
            return Cursor(cursor.slot, own, mark).pack(), chosen
        for slot, node in after.leaving.items():
            if cursor.slot <= slot <= last and node in after.addresses:
                chosen += await self._left(slot, self._pool(after, node))
        return (0 if last == SLOTS - 1 else Cursor(last + 1).pack()), chosen

    def _pool(self, view: OwnView, node: str) -> Pool:
        return self.cluster.lanes[2].pool(view.addresses[node])

    async def _scan(self, pool: Pool, own: int) -> Any:
        reply = await self.cluster.tell(pool, b"SCAN", b"%d" % own, *self.options.words)
        return _checked(reply)

    async def _view(self, pool: Pool) -> OwnView:
        return parse_own_view(_checked(await self.cluster.tell(pool, b"CLUSTER", b"NODES")))

    async def _left(self, slot: int, pool: Pool) -> list[bytes]:
        """Keys of a migrating slot that are at the node which takes it."""
        words = (b"CLUSTER", b"GETKEYSINSLOT", b"%d" % slot, b"%d" % MOST_KEYS)
        keys: list[bytes] = _checked(await self.cluster.tell(pool, *words))
        if self.options.match is not None:
            keys = [key for key in keys if matches(self.options.match, key)]
        if self.options.type is None:
            return keys
        kinds = await asyncio.gather(*(self.cluster.route(slot, b"TYPE", key) for key in keys))
        wanted = self.options.type.lower().decode("ascii", "replace")
        return [key for key, kind in zip(keys, kinds, strict=True) if _text(kind) == wanted]


def _checked(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise ScanRefused(errors.reply(str(reply)))
    return reply


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def fingerprint(view: OwnView, last: int) -> int:
    """16 bits that change whenever a run's keys may have changed places."""
    return crc32(f"{view.id} {view.epoch} {last}".encode()) & 0xFFFF


async def scan(cluster: Cluster, argv: list[bytes], pins: Pins) -> bytes:
    """SCAN's reply, with keys as clients call them."""
    cursor = read_cursor(argv[1])
    if cursor is None:
        return errors.reply("ERR invalid cursor")
    try:
        options = Options.read(argv[2:], pins)
        number, keys = await Walk(cluster, options).page(cursor)
    except ScanRefused as refused:
        return refused.raw
    return encode([str(number), pins.found(keys, options.again)])
