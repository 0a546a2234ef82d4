"""Trimmer: memory is given back while there is much of it, and not all the time."""

from __future__ import annotations

from rproxy.proxy.memory import PAUSE, TRIM_LEAST, Trimmer, resident


class Heap:
    """A process's memory, and how often it was trimmed."""

    def __init__(self) -> None:
        self.size = 1000
        self.trims = 0

    def measure(self) -> int:
        return self.size

    def trim(self, pad: int) -> int:
        self.trims += 1
        return 1


def test_little_memory_is_left_alone() -> None:
    heap = Heap()
    trimmer = Trimmer(heap.measure, heap.trim)
    heap.size += TRIM_LEAST - 1
    assert not trimmer.round(0.0)
    assert heap.trims == 0


def test_much_memory_is_given_back_now_and_then() -> None:
    heap = Heap()
    trimmer = Trimmer(heap.measure, heap.trim)
    heap.size += TRIM_LEAST
    assert [trimmer.round(at) for at in (0.0, 1.0, PAUSE - 0.1, PAUSE)] == [
        True,
        False,
        False,
        True,
    ]
    assert heap.trims == 2


def test_this_process_is_measured() -> None:
    assert resident() > 1 << 20
