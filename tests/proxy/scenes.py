"""A worker in front of a tiny node, on real sockets, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rproxy.config import Address, Clients, Config, Seconds, UnixPath
from rproxy.probe import Probe
from rproxy.proxy.listen import open_listeners
from rproxy.proxy.server import Server
from rproxy.wire.frames import pack
from tests.nodes import TinyNode, all_ends

ANY_PORT = Address("127.0.0.1", 0)


class Notes(Probe):
    """Remembers how clients fare; an event for what tests wait for."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.left: list[str] = []
        self.dropped: list[tuple[str, str]] = []
        self.failures: asyncio.Queue[str] = asyncio.Queue()
        self.gone: asyncio.Queue[str] = asyncio.Queue()

    def client_accepted(self, client: str) -> None:
        self.accepted.append(client)

    def client_refused(self, client: str, reason: str) -> None:
        self.refused.append((client, reason))

    def client_left(self, client: str) -> None:
        self.left.append(client)
        self.gone.put_nowait(client)

    def client_dropped(self, client: str, reason: str) -> None:
        self.dropped.append((client, reason))
        self.gone.put_nowait(client)

    def accept_failed(self, reason: str) -> None:
        self.failures.put_nowait(reason)


class Caller:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        where = writer.get_extra_info("sockname")
        self.address = f"{where[0]}:{where[1]}" if isinstance(where, tuple) else where

    def say(self, *commands: str) -> None:
        """Send commands as one pipeline."""
        self.writer.write(b"".join(pack(command.encode().split()) for command in commands))

    async def hear(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def ask(self, command: str) -> bytes:
        """A command whose reply is one line."""
        self.say(command)
        return await self.reader.readline()

    async def rest(self) -> bytes:
        """What comes until rproxy closes the connection."""
        return await self.reader.read()


class Scene:
    """A worker in front of one node that is the whole cluster."""

    def __init__(self, node: TinyNode, config: Config, serial: int) -> None:
        self.node = node
        self.notes = Notes()
        (self.sockets,) = open_listeners(config)
        self.server = Server(config, self.sockets, self.notes, serial)
        self.callers: list[Caller] = []

    async def call(self) -> Caller:
        """Another client connects."""
        where = self.sockets[0].getsockname()
        if isinstance(where, str):
            streams = await asyncio.open_unix_connection(where)
        else:
            streams = await asyncio.open_connection(*where[:2])
        self.callers.append(Caller(*streams))
        return self.callers[-1]


Test = Callable[[Scene], Coroutine[Any, Any, None]]


def serve(
    test: Test,
    listen: Address | UnixPath = ANY_PORT,
    serial: int = 0,
    drain: float = 10.0,
    **clients: Any,
) -> None:
    """Run the test with a worker; nothing may be left of it afterwards."""

    async def main() -> None:
        async with TinyNode() as node, asyncio.timeout(20.0):
            config = Config(
                listen=(listen,),
                seeds=(node.address,),
                drain_timeout=Seconds(drain),
                clients=Clients(**clients),
            )
            scene = Scene(node, config, serial)
            await scene.server.start()
            await test(scene)
            if not scene.server.draining:
                scene.server.stop_accepting()
            await scene.server.close()
            assert not scene.server.clients
            for caller in scene.callers:
                caller.writer.close()
            await node.deserted.wait()
        await all_ends()

    asyncio.run(main())
