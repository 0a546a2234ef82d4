"""One pool in front of a tiny node, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rproxy.config import Address, Config, Upstream
from rproxy.probe import Probe
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import Cluster
from rproxy.upstream.sink import call
from rproxy.wire.frames import pack
from tests.nodes import TinyNode, all_ends

QUICK: dict[str, Any] = {"reconnect_delay": 0.001, "reconnect_delay_max": 0.001}
"""Options of tests that are not about the pauses between attempts."""


class Notes(Probe):
    """Remembers how links fare; `down` has a reason for each link that was lost or never was."""

    def __init__(self) -> None:
        self.up: list[int] = []
        self.again = asyncio.Event()
        self.shut = asyncio.Event()
        self.down: asyncio.Queue[str] = asyncio.Queue()

    def link_up(self, node: str, protocol: int) -> None:
        self.up.append(protocol)
        if len(self.up) > 1:
            self.again.set()

    def gate_closed(self, reason: str, slot: int) -> None:
        self.shut.set()

    def link_down(self, node: str, protocol: int, reason: str) -> None:
        self.down.put_nowait(reason)


class Scene:
    """The pool of one node, and requests for its one slot."""

    def __init__(self, address: Address, protocol: int = 2, **upstream: Any) -> None:
        self.notes = Notes()
        config = Config(seeds=(address,), upstream=Upstream(**upstream))
        self.cluster = Cluster(config, Tick(asyncio.get_running_loop()), self.notes)
        self.lane = self.cluster.lanes[protocol]
        self.cluster.moved(7, address, "the test")
        self.pool = self.lane.pool(address)
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def is_shut(self) -> bool:
        """Whether requests wait at the gate."""
        return self.lane.table[7] is self.pool.sink is self.pool.gate

    def send(self, *words: bytes) -> None:
        self.lane.table.route(call(pack(list(words)), self.replies.put_nowait, 7))

    async def reply(self) -> bytes:
        return await asyncio.wait_for(self.replies.get(), 10.0)

    async def ask(self, *words: bytes) -> bytes:
        self.send(*words)
        return await self.reply()

    async def trouble(self) -> str:
        """Why the next link is lost or cannot be had."""
        return await asyncio.wait_for(self.notes.down.get(), 10.0)


def with_node(
    test: Callable[[Scene, TinyNode], Coroutine[Any, Any, None]],
    protocol: int = 2,
    answers: dict[bytes, bytes | None] | None = None,
    **upstream: Any,
) -> None:
    """Run the test with a pool of a node that answers like this."""

    async def main() -> None:
        async with TinyNode() as node:
            node.answers.update(answers or {})
            scene = Scene(node.address, protocol, **{**QUICK, **upstream})
            async with asyncio.timeout(10.0):
                await test(scene, node)
            await scene.cluster.close()
            await asyncio.wait_for(node.deserted.wait(), 10.0)
        await all_ends()

    asyncio.run(main())
