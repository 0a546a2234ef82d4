"""A cluster whose nodes answer as a test says, on a loop that skips waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from rproxy.config import Address, Config, Topology
from rproxy.errors import ConnectFailed
from rproxy.probe import Probe
from rproxy.topology.refresh import Refresher, View
from rproxy.topology.slotmap import Node, Shard, SlotMap
from tests.nodes import SkippingLoop


class Notes(Probe):
    """Remembers what the refresher tells."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.rounds: list[float] = []
        self.failed: list[tuple[str, str]] = []
        self.waits: list[int] = []
        self.replaced: list[tuple[int, int, int, int]] = []
        self.kept: list[tuple[int, int, int]] = []

    def refresh_started(self, reason: str) -> None:
        self.reasons.append(reason)
        self.rounds.append(asyncio.get_running_loop().time())

    def refresh_failed(self, node: str, reason: str) -> None:
        self.failed.append((node, reason))

    def no_seed_answers(self, seeds: Sequence[str], attempts: int) -> None:
        self.waits.append(attempts)

    def slotmap_replaced(self, masters: int, covered: int, epoch: int, changed: int) -> None:
        self.replaced.append((masters, covered, epoch, changed))

    def slotmap_kept(self, covered: int, offered: int, epoch: int) -> None:
        self.kept.append((covered, offered, epoch))


FULL = ((0, 16383),)
HALF = ((0, 8191),)


def at(number: int) -> Address:
    """Node number `number`."""
    return Address(f"n{number}", 6379)


def view(*owners: tuple[int, tuple[tuple[int, int], ...]], epoch: int = 1) -> View:
    """What a node tells where masters by number own those ranges."""
    shards = [Shard(Node(at(number).host, 6379), (), ranges) for number, ranges in owners]
    return View(SlotMap.of(shards), epoch)


ONE = view((1, FULL))


class World:
    """A cluster that answers as the test says, and a refresher that asks it."""

    def __init__(self, seeds: Sequence[int], chance: float = 0.0, **topology: Any) -> None:
        self.answers: dict[Address, View | Exception | None] = {}
        self.asked: list[Address] = []
        self.maps: list[SlotMap] = []
        self.notes = Notes()
        config = Config(
            seeds=tuple(at(number) for number in seeds),
            topology=msgspec.structs.replace(Topology(), **topology),
        )
        self.refresher = Refresher(config, self.fetch, self.maps.append, self.notes, lambda: chance)

    async def fetch(self, address: Address) -> View:
        self.asked.append(address)
        answer = self.answers.get(address, ConnectFailed("refused"))
        if answer is None:
            await asyncio.sleep(1e6)
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def all_say(self, answer: View, *numbers: int) -> None:
        """From now on the nodes with these numbers tell this."""
        self.answers.update({at(number): answer for number in numbers})

    async def started(self) -> None:
        """Start, and wait for the first map."""
        self.refresher.start()
        await asyncio.sleep(1)
        assert len(self.maps) == 1
        self.asked.clear()

    async def refreshed(self, rounds: int = 1) -> None:
        """Request that many rounds, one after the other."""
        for _ in range(rounds):
            self.refresher.request_refresh("test")
            await asyncio.sleep(0.6)


def scene(
    seeds: Sequence[int], chance: float = 0.0, **topology: Any
) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Makes a coroutine a test: gives it a World, runs it, and closes the refresher."""

    def decorate(play: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def whole() -> None:
            world = World(seeds, chance, **topology)
            await play(world)
            await world.refresher.close()

        def test() -> None:
            with asyncio.Runner(loop_factory=SkippingLoop) as runner:
                runner.run(whole())

        return test

    return decorate
