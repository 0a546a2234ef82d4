"""A node on loopback that answers as the test says, and a loop that skips waiting.

The node is a whole cluster in one: unless told otherwise it owns every slot.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import defaultdict
from typing import Any, Self

from rproxy.config import Address
from rproxy.engine.replies import encode
from rproxy.wire.frames import FrameReader, Scratch
from tests.fakes import node_reply

HANG_UP = b"hang up"
"""As an answer: the node closes the connection."""


class TinyNode:
    """Remembers what it was asked; `answers` overrides what it says.

    Its keys are a command's first words in capitals (b"CLUSTER SHARDS", b"GET"); None as an answer
    is silence. `deserted` is set while nobody is connected.
    """

    def __init__(self) -> None:
        self.answers: dict[bytes, bytes | None] = {
            b"AUTH": b"+OK\r\n",
            b"CLIENT": b"+OK\r\n",
            b"HELLO": encode({"server": "redis"}, 3),
            b"COMMAND": b"*0\r\n",
            b"INFO": encode("# Server\r\nredis_version:7.0.15\r\n"),
            b"CLUSTER INFO": encode("cluster_state:ok\r\ncluster_current_epoch:7\r\n"),
        }
        self.heard: list[list[bytes]] = []
        self._hears: defaultdict[bytes, asyncio.Event] = defaultdict(asyncio.Event)
        self.connections: list[asyncio.Transport] = []
        self.opened = 0
        self.deserted = asyncio.Event()
        self.deserted.set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.address = Address(*self._server.sockets[0].getsockname())
        self.answers[b"CLUSTER SHARDS"] = encode([self.shard((0, 16383))])
        self.answers[b"CLUSTER SLOTS"] = encode([[0, 16383, [*self.address, "a" * 40]]])
        return self

    async def __aexit__(self, *error: object) -> None:
        # Nobody is accepted any more, and who is being accepted arrives: a server that closes
        # meanwhile would lose that socket.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(10):
            await asyncio.sleep(0)
        self._server.close()
        self.hang_up()
        await asyncio.wait_for(self.deserted.wait(), 10.0)

    def shard(self, *spans: tuple[int, int]) -> dict[str, Any]:
        """This node as the master of those slots, in CLUSTER SHARDS."""
        host, port = self.address
        about = {"id": "a" * 40, "port": port, "ip": host, "endpoint": host, "role": "master"}
        bounds = [slot for span in spans for slot in span]
        return {"slots": bounds, "nodes": [{**about, "health": "online"}]}

    async def hears(self, name: bytes) -> None:
        """Wait until it has been sent a command of that name, in capitals."""
        await self._hears[name].wait()

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in self.connections:
            connection.close()

    def answer(self, words: list[bytes]) -> bytes | None:
        """What it says to a request."""
        self.heard.append(words)
        command = [word.upper() for word in words[:2]]
        self._hears[command[0]].set()
        for name in (b" ".join(command), command[0]):
            if name in self.answers:
                return self.answers[name]
        return node_reply(words)


class _Connection(asyncio.Protocol):
    def __init__(self, node: TinyNode) -> None:
        self.node = node
        self.reader = FrameReader(Scratch())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.node.opened += 1
        self.node.deserted.clear()
        self.node.connections.append(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.node.connections.remove(self.transport)
        if not self.node.connections:
            self.node.deserted.set()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while isinstance(words := self.reader.request(), list):
            reply = self.node.answer(words)
            if reply == HANG_UP:
                self.transport.close()
                return
            self.transport.write(reply or b"")


async def all_ends() -> None:
    """Every other task ends, and soon."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, pending = await asyncio.wait(others, timeout=5.0)
        assert not pending


class _SkippingSelector(selectors.DefaultSelector):
    """Does not wait: it moves the loop's clock to when the next thing is due."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that never comes"
        self.now += max(0.0, timeout)
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on which seconds pass at once, in the right order; not for real sockets."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now
