"""Nanoseconds a frame, a slot, a command: rproxy's compiled parts alone, in one process.

    python benchmarks/frames.py [--rounds 7] [--json FILE]

Each case is measured in turn, round after round, in CPU time of this process; the median counts.
The slot function is called from Python, so a Python call is in its figure; crcmod's own function,
called the same way, is there to compare. A command through is all that the proxy itself does for
it, from the client's bytes to the node's and back, without the kernel's part: no socket takes part.
"Pinned" is the same where keys that begin with `key:` are pinned.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import crcmod  # type: ignore[import-untyped]

from rproxy import __version__
from rproxy.engine.session import Shared
from rproxy.proxy.connection import ClientStream
from rproxy.routing.commands import built_in
from rproxy.routing.pins import Pins
from rproxy.routing.slots import slot_of
from rproxy.transport.stream import Tick
from rproxy.upstream.link import Link
from rproxy.upstream.sink import LinkTable
from rproxy.wire.frames import FrameReader, Scratch, pack

FRAMES = 400
"""Frames in one buffer: what a busy connection brings at once."""
REPEATS = 100
"""Buffers in one round."""

REQUESTS = {
    "request GET": pack([b"GET", b"key:000000012345"]),
    "request SET 64 B": pack([b"SET", b"key:000000012345", b"v" * 64]),
    "request MGET 10 keys": pack([b"MGET", *[b"key:%012d" % number for number in range(10)]]),
}
REPLIES = {
    "reply status": b"+OK\r\n",
    "reply bulk 64 B": b"$64\r\n" + b"v" * 64 + b"\r\n",
    "reply array of 10": b"*10\r\n" + b"$3\r\nabc\r\n" * 10,
}
COMMANDS = {
    "GET through": (REQUESTS["request GET"], REPLIES["reply bulk 64 B"]),
    "SET through": (REQUESTS["request SET 64 B"], REPLIES["reply status"]),
}
KEYS = {"slot of 16 bytes": b"key:000000012345", "slot of a tag": b"{user:1000}.friends.of.friends"}


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every case (default 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    cases = all_cases()
    figures = measure(cases, options.rounds)
    print(
        f"rproxy {__version__}, Python {platform.python_version()}, {platform.machine()};", end=" "
    )
    print(f"CPU time, median of {options.rounds} rounds")
    for name, nanoseconds in figures.items():
        print(f"{name:28} {nanoseconds:8.1f} ns")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def all_cases() -> dict[str, Callable[[], int]]:
    """Name -> a function that does the work once and returns how many pieces of it there were."""
    crc16 = crcmod.mkCrcFun(0x11021, initCrc=0, rev=False)
    cases = {name: reading(frame, False) for name, frame in REQUESTS.items()}
    cases |= {name: reading(frame, True) for name, frame in REPLIES.items()}
    pins = Pins([(b"key:", b"key:")])
    for name, frames in COMMANDS.items():
        cases[name] = passing(*frames)
        cases[f"{name}, pinned"] = passing(*frames, pins)
    cases |= {name: calling(slot_of, key) for name, key in KEYS.items()}
    return cases | {"crcmod's CRC of 16 bytes": calling(crc16, KEYS["slot of 16 bytes"])}


def reading(frame: bytes, replies: bool) -> Callable[[], int]:
    """Finds the ends of many such frames."""
    reader = FrameReader(Scratch(1 << 20))
    wire = frame * FRAMES

    def work() -> int:
        found = 0
        for _ in range(REPEATS):
            reader.feed(wire)
            found += reader.pass_over(replies)
        return found

    return work


class StillLoop:
    """Where nothing is ever due: what would be written at the end of a turn is taken away."""

    def call_soon(self, *call: object) -> None:
        """Nothing is called."""

    def time(self) -> float:
        """Always the same moment."""
        return 0.0


def passing(request: bytes, reply: bytes, pins: Pins | None = None) -> Callable[[], int]:
    """Brings many such requests to a link, and their replies back to the client."""
    tick = Tick(StillLoop())
    link = Link(tick)
    link.open()
    table = LinkTable(link)
    shared = Shared(tick, built_in(), print, table, table)
    shared.pins = pins
    stream = ClientStream(tick, shared)
    requests, replies = request * FRAMES, reply * FRAMES

    def work() -> int:
        for _ in range(REPEATS):
            stream.feed(requests)
            link.stream.take()
            link.stream.feed(replies)
            stream.take()
        return FRAMES * REPEATS

    return work


def calling(function: Callable[[bytes], int], key: bytes) -> Callable[[], int]:
    """Calls the function many times."""

    def work() -> int:
        for _ in range(FRAMES * REPEATS):
            function(key)
        return FRAMES * REPEATS

    return work


def measure(cases: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median nanoseconds of each case's piece of work, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, work in cases.items():
            start = time.process_time_ns()
            count = work()
            if turn:
                times[name].append((time.process_time_ns() - start) / count)
    return {name: statistics.median(taken) for name, taken in times.items()}


if __name__ == "__main__":
    main()
