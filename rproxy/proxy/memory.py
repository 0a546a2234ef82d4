"""Memory goes back to the system after a burst.

The C library keeps freed blocks for itself, and buffers of many sizes leave its heap full of holes.
`Trimmer` has it give whole pages back, now and then, while the process has much more memory than it
started with. Where the C library cannot (musl), nothing happens.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

TRIM_LEAST = 32 << 20
"""Bytes above the start from which memory is given back."""
PAUSE = 5.0
"""Seconds between two times: looking through a large heap takes milliseconds."""

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Trimmer:
    """Gives memory back; `round` is called every second or so."""

    def __init__(
        self, measure: Callable[[], int] = resident, trim: Callable[[int], int] | None = None
    ) -> None:
        self._measure = measure
        self._trim = trim or getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._start = measure()
        self._not_before = 0.0

    def round(self, now: float) -> bool:
        """Whether memory was given back, at `now` (monotonic seconds)."""
        if self._trim is None or now < self._not_before:
            return False
        if self._measure() - self._start < TRIM_LEAST:
            return False
        self._not_before = now + PAUSE
        self._trim(0)
        return True
