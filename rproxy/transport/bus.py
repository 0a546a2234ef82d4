"""What the workers of one rproxy ask each other: CLIENT LIST and the like concern all of them.

Strategy. The parent makes a pair of datagram sockets for each worker before it forks: one end is
that worker's inbox, the other is what everybody writes to. The pairs have no name in the file
system, so nobody else can write to them, and they outlive a worker: its successor reads on. A
message is cut into datagrams small enough for every system, each with its place in the message.

Rules. A question goes to all other workers; those that do not answer in time are left out, so a
worker that just ends holds up nobody for longer. Nothing here blocks: what a full inbox does not
take waits, and is dropped where too much waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

CHUNK = 1500
"""Bytes of a message in one datagram: some systems take no more than 2048."""
PENDING_LIMIT = 65536
"""Datagrams that may wait for one worker."""
UNFINISHED_LIMIT = 256
"""Messages of which only a part has come: their writers may be gone."""
ANSWER_LIMIT = 1.0
"""Seconds that the other workers have to answer."""

Answer = Callable[[list[bytes]], bytes]
"""A question from another worker -> the answer."""


class Chunk(NamedTuple):
    """One datagram."""

    sender: int
    """Index of the worker that sends it."""
    number: int
    """The question's number, the asker's own; the answer has the same."""
    is_answer: bool
    place: int
    """Which chunk of the message it is."""
    total: int
    """Chunks of the message."""
    part: bytes


_decode = msgspec.msgpack.Decoder(tuple[int, int, bool, int, int, bytes]).decode
_decode_words = msgspec.msgpack.Decoder(list[bytes]).decode
_encode = msgspec.msgpack.encode


class Pair(NamedTuple):
    """One worker's two ends."""

    inbox: socket.socket
    outbox: socket.socket


def open_pairs(count: int) -> list[Pair]:
    """Pairs for so many workers, to be made before they are forked."""
    pairs = [Pair(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(count)]
    for end in itertools.chain.from_iterable(pairs):
        end.setblocking(False)
    return pairs


class Bus:
    """One worker's seat: it asks the others, and answers them."""

    def __init__(self, pairs: Sequence[Pair], index: int, first_number: int) -> None:
        """`first_number` differs from that of earlier workers with this index, whose answers may
        still come.
        """
        self._pairs = pairs
        self._index = index
        self._numbers = itertools.count(first_number)
        self._pending: list[deque[bytes]] = [deque() for _ in pairs]
        self._parts: dict[tuple[int, int, bool], dict[int, bytes]] = {}
        self._asked: dict[int, dict[int, bytes]] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._answer: Answer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, answer: Answer) -> None:
        """Read the inbox; `answer` is called with each question."""
        self._answer, self._loop = answer, asyncio.get_running_loop()
        self._loop.add_reader(self._pairs[self._index].inbox.fileno(), self._read)

    def close(self) -> None:
        """Read and write no more; the sockets are the parent's."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._pairs[self._index].inbox.fileno())
        for pair in self._pairs:
            self._loop.remove_writer(pair.outbox.fileno())

    async def ask(self, words: Sequence[bytes]) -> list[bytes]:
        """The answers of the other workers, in no order, as far as they come in time."""
        number = next(self._numbers)
        found = self._asked[number] = {}
        done = self._waiting[number] = asyncio.get_running_loop().create_future()
        question = _encode(list(words))
        for peer in range(len(self._pairs)):
            if peer != self._index:
                self._send(peer, number, False, question)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done, ANSWER_LIMIT)
        finally:
            del self._asked[number], self._waiting[number]
        return list(found.values())

    # -- out --

    def _send(self, peer: int, number: int, is_answer: bool, message: bytes) -> None:
        count = max(1, -(-len(message) // CHUNK))
        pending = self._pending[peer]
        if len(pending) + count > PENDING_LIMIT:
            return
        for index in range(count):
            part = message[index * CHUNK : (index + 1) * CHUNK]
            pending.append(_encode(Chunk(self._index, number, is_answer, index, count, part)))
        self._flush(peer)

    def _flush(self, peer: int) -> None:
        """Write what waits for the worker, as far as its inbox takes it."""
        assert self._loop is not None
        outbox, pending = self._pairs[peer].outbox, self._pending[peer]
        while pending:
            try:
                outbox.send(pending[0])
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(outbox.fileno(), self._flush, peer)
                return
            pending.popleft()
        self._loop.remove_writer(outbox.fileno())

    # -- in --

    def _read(self) -> None:
        inbox = self._pairs[self._index].inbox
        while True:
            try:
                raw = inbox.recv(2 * CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            self._take(Chunk(*_decode(raw)))

    def _take(self, chunk: Chunk) -> None:
        """Note a chunk; act when its message is complete."""
        name = chunk.sender, chunk.number, chunk.is_answer
        parts = self._parts.setdefault(name, {})
        parts[chunk.place] = chunk.part
        if len(parts) < chunk.total:
            if len(self._parts) > UNFINISHED_LIMIT:
                del self._parts[next(iter(self._parts))]
            return
        del self._parts[name]
        message = b"".join(parts[index] for index in range(chunk.total))
        if chunk.is_answer:
            self._note(chunk, message)
        elif self._answer is not None:
            reply = self._answer(_decode_words(message))
            self._send(chunk.sender, chunk.number, True, reply)

    def _note(self, chunk: Chunk, message: bytes) -> None:
        """An answer; one that comes too late is for nobody."""
        found = self._asked.get(chunk.number)
        if found is None:
            return
        found[chunk.sender] = message
        done = self._waiting[chunk.number]
        if len(found) == len(self._pairs) - 1 and not done.done():
            done.set_result(None)
