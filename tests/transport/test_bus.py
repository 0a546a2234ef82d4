"""The bus between workers, with all of them in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rproxy.transport import bus as module
from rproxy.transport.bus import Bus, open_pairs

Talk = Callable[[list[Bus]], object]


def with_workers(count: int, answers: Callable[[int, list[bytes]], bytes], talk: Talk) -> None:
    """Run the coroutine `talk(buses)`; worker i answers a question with answers(i, words)."""

    async def run() -> None:
        pairs = open_pairs(count)
        buses = [Bus(pairs, index, index << 32) for index in range(count)]
        for index, bus in enumerate(buses):
            bus.start(lambda words, index=index: answers(index, words))  # type: ignore[misc]
        try:
            await talk(buses)  # type: ignore[misc]
        finally:
            for bus in buses:
                bus.close()
            for pair in pairs:
                pair.inbox.close()
                pair.outbox.close()

    asyncio.run(run())


def test_all_others_answer() -> None:
    async def talk(buses: list[Bus]) -> None:
        assert sorted(await buses[1].ask([b"CLIENT", b"LIST"])) == [b"0 LIST", b"2 LIST"]

    with_workers(3, lambda index, words: b"%d %b" % (index, words[1]), talk)


def test_messages_of_any_size_and_many_at_once() -> None:
    large = bytes(range(256)) * 4096

    async def talk(buses: list[Bus]) -> None:
        questions = [bus.ask([large, b"%d" % number]) for bus in buses for number in range(5)]
        for number, answers in enumerate(await asyncio.gather(*questions)):
            assert answers == [large + b"%d" % (number % 5)]

    with_workers(2, lambda index, words: b"".join(words), talk)


def test_an_empty_answer_is_one() -> None:
    async def talk(buses: list[Bus]) -> None:
        assert await buses[0].ask([b"x"]) == [b""]

    with_workers(2, lambda index, words: b"", talk)


def test_a_worker_that_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.05)

    async def talk(buses: list[Bus]) -> None:
        buses[2].close()
        assert await buses[0].ask([b"x"]) == [b"1"]

    with_workers(3, lambda index, words: b"%d" % index, talk)


def test_an_answer_to_an_earlier_worker_is_for_nobody() -> None:
    async def talk(buses: list[Bus]) -> None:
        first = asyncio.create_task(buses[0].ask([b"old"]))
        await asyncio.sleep(0)
        first.cancel()
        assert await buses[0].ask([b"new"]) == [b"new"]

    with_workers(2, lambda index, words: words[0], talk)


def test_what_waits_for_a_worker_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_LIMIT", 3)
    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.05)

    async def talk(buses: list[Bus]) -> None:
        assert await buses[0].ask([bytes(10 * module.CHUNK)]) == []
        assert await buses[0].ask([b"x"]) == [b"x"]

    with_workers(2, lambda index, words: words[0], talk)
