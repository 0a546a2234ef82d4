"""Transactions over several slots, where the operator allows them: one MULTI/EXEC for each slot.

The slot of a transaction's first key has the leased link, as always: its commands are queued at
their node, and its part runs first, under its WATCH. Commands for other slots are checked by the
command table, answered QUEUED and kept here; those that can be cut (MGET, MSET, ...) are cut, and a
piece for the first slot is queued with the rest of its part. Once the first part has run the others
go out, slot by slot, each as one request with several replies on the shared link, as bundle.pyx has
them; so redirections move a part as a whole. At last the elements of all parts are put in the order
in which their commands came.

Rules. Each part is atomic, the whole is not. Nothing else runs if the first part was refused, or
is nil because a watched key was touched. A part that fails has its error in each of its elements:
the client hears of it where it looks for the result, and of the parts that did run. A client that
leaves when its first part is under way has the others run all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rproxy import errors
from rproxy.engine.bundle import gather, several
from rproxy.engine.transactions import EXEC, QUEUED, Transaction
from rproxy.routing.specs import CommandFlag, CommandSpec
from rproxy.routing.split import cut_request, elements
from rproxy.upstream.sink import answer
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

FRAME_SIZE = 128
"""Bytes that a frame takes besides its own, and its reply's place."""

NO_PROPER_REPLY = b"-ERR a node gave no proper reply to its part of the transaction\r\n"


class Stray(NamedTuple):
    """A command for other slots than the first part's, or not only for that."""

    spec: CommandSpec
    frames: list[bytes]
    """What is sent: the command itself, or its pieces."""
    slots: list[int]
    """Of each frame."""
    merge: Callable[[list[bytes]], bytes]
    """Makes one element of the frames' elements."""
    own: int
    """Which frame belongs to the first part, or -1."""


class Strays:
    """Such commands of one transaction, and what became of them."""

    def __init__(self, engine: Engine, protocol: int) -> None:
        self.engine = engine
        self.table = engine.cluster.table(protocol)
        self.by_place: dict[int, Stray] = {}
        """By their places among all commands of the transaction."""
        self._found: dict[int, list[bytes]] = {}
        self._missing = 0

    def __len__(self) -> int:
        return len(self.by_place)

    def __repr__(self) -> str:
        return f"<Strays {len(self)}>"

    def run(self, first: list[bytes], whole: Request, done: Callable[[bytes], object]) -> None:
        """Run all parts after the first, whose elements these are; `done` gets EXEC's reply."""
        parts: dict[int, list[tuple[int, int]]] = {}
        for place, stray in self.by_place.items():
            self._found[place] = [b""] * len(stray.frames)
            for at, slot in enumerate(stray.slots):
                if at != stray.own:
                    parts.setdefault(slot, []).append((place, at))
        self._missing = len(parts)
        for slot, members in parts.items():
            frames = [self.by_place[place].frames[at] for place, at in members]
            note = partial(self._note, members, first, whole, done)
            self.table.route(several(frames, slot, whole, note))

    def _note(
        self,
        members: list[tuple[int, int]],
        first: list[bytes],
        whole: Request,
        done: Callable[[bytes], object],
        reply: bytes,
    ) -> None:
        """A part's reply."""
        gather(whole, len(reply))
        found = elements(reply)
        if found is None or len(found) != len(members):
            found = [reply if reply.startswith(b"-") else NO_PROPER_REPLY] * len(members)
        for (place, at), element in zip(members, found, strict=True):
            self._found[place][at] = element
        self._missing -= 1
        if not self._missing:
            done(self._merged(first))

    def _merged(self, first: list[bytes]) -> bytes:
        """All elements, in the order of the commands."""
        ours = iter(first)
        elements = []
        for place in self._places(len(first)):
            stray, found = self.by_place.get(place), self._found.get(place, [])
            if stray is None:
                elements.append(next(ours))
                continue
            if stray.own >= 0:
                found[stray.own] = next(ours)
            elements.append(stray.merge(found))
        return b"*%d\r\n" % len(elements) + b"".join(elements)

    def specs(self, first: list[CommandSpec | None]) -> list[CommandSpec | None]:
        """The specs of all commands in their order; `first` are those of the first part."""
        ours = iter(first)
        strays = [self.by_place.get(place) for place in self._places(len(first))]
        return [next(ours) if one is None or one.own >= 0 else one.spec for one in strays]

    def _places(self, first: int) -> range:
        """Of all commands, where the first part has so many."""
        return range(first + sum(stray.own < 0 for stray in self.by_place.values()))


class ScatteredTransaction(Transaction):
    """A transaction that may have keys of several slots."""

    def __init__(self, engine: Engine, session: Session) -> None:
        super().__init__(engine, session)
        self.strays = Strays(engine, session.protocol)
        self.whole: Request | None = None
        """The client's EXEC, where `last` is only the first part's."""

    def stray(self, request: Request) -> None:
        """Keep a command for other slots until EXEC."""
        size = len(request.frame_bytes)
        if self.size + size > self.limit:
            self.refuse(request, errors.LARGE_TRANSACTION)
        elif request.slot >= 0:
            self._keep_whole(request)
        elif request.spec.flags & CommandFlag.MULTI_SHARD:
            self._keep_pieces(request)
        else:
            self.refuse(request, errors.CROSS_SLOT)

    def _keep_whole(self, request: Request) -> None:
        self._keep(request, Stray(request.spec, [request.frame_bytes], [request.slot], _only, -1))

    def _keep_pieces(self, request: Request) -> None:
        try:
            plan = cut_request(self.engine.meant, request.argv())
        except OverflowError:
            self.refuse(request, errors.TAIL_TOO_LONG)
            return
        if self.slot < 0:
            self.slot = plan.slots[0]
        own = plan.slots.index(self.slot) if self.slot in plan.slots else -1
        stray = Stray(request.spec, plan.frames, plan.slots, plan.merge, own)
        if self._keep(request, stray) and own >= 0:
            self.keep(self.silent(plan.frames[own], request.spec))
            self._send_last()

    def _keep(self, request: Request, stray: Stray) -> bool:
        """Answer QUEUED; whether the command may ever run."""
        may_run = not self.spoiled and not self.doomed
        self.session.answer(QUEUED, request)
        if may_run:
            self.strays.by_place[self.depth] = stray
            self.size += sum(FRAME_SIZE + len(frame) for frame in stray.frames)
        self.depth += 1
        return may_run

    def exec(self, request: Request) -> None:
        """Run the first part, then those of the other slots."""
        if self.spoiled or self.doomed or not self.strays:
            super().exec(request)
            return
        self.whole, self.collecting = request, True
        self.session.enter(request)
        own = Request(request.frame_bytes)
        own.deadline = request.deadline
        self.last, self.ending, self.queueing = own, EXEC, False
        self.keep(own)
        self._send_last()

    def finished(self) -> None:
        """The first part has run: the others follow."""
        if self.whole is None:
            super().finished()
            return
        if self.lease is not None:
            self.lease.give_back()
            self.lease = None
        specs = [one.spec for one in self.kept if one is not self.last]
        reply = self.collected or NO_PROPER_REPLY
        gather(self.whole, len(reply))
        first = elements(reply)
        if first is None:
            self._answer(reply)
        elif len(first) != len(specs):
            self._answer(NO_PROPER_REPLY)
        else:
            self.order = self.strays.specs(specs)
            self.strays.run(first, self.whole, self._answer)

    def _answer(self, reply: bytes) -> None:
        assert self.whole is not None
        answer(self.whole, reply)
        self._over()


def _only(found: list[bytes]) -> bytes:
    return found[0]
