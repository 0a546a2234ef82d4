"""One measurement: redis-benchmark against one address, and the processor time it costs there.

Processor time is user plus system time of all the target's processes, read from /proc before and
after the run. It has a resolution of 10 ms, so a run lasts a second or so. Unlike throughput and
latency it hardly depends on what else the machine does, so it is what proxies are compared by.
"""

import csv
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rproxy.errors import UsageError

# Keys that exist while measuring: many small ones, and fewer of 4 KiB. redis-benchmark writes a
# random number with twelve digits in place of __rand_int__.
SMALL_KEYS, LARGE_KEYS = 100_000, 1_000
SMALL_VALUE, LARGE_VALUE = "xxx", "x" * 4096
SMALL_KEY, LARGE_KEY = "key:__rand_int__", "large:__rand_int__"

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    name: str
    # The command as redis-benchmark takes it.
    command: tuple[str, ...]
    connections: int = 50
    # Commands that a connection sends before it reads.
    pipeline: int = 1
    # How many numbers __rand_int__ stands for.
    keys: int = SMALL_KEYS


GET = ("GET", SMALL_KEY)
SET = ("SET", SMALL_KEY, SMALL_VALUE)

CASES = (
    Case("get", GET),
    Case("set", SET),
    Case("get-p16", GET, pipeline=16),
    Case("set-p16", SET, pipeline=16),
    Case("get-p100", GET, pipeline=100),
    Case("set-p100", SET, pipeline=100),
    Case("get-c1", GET, connections=1),
    Case("get-c500", GET, connections=500),
    Case("mget10", ("MGET", *[SMALL_KEY] * 10)),
    Case("mset10", ("MSET", *[SMALL_KEY, SMALL_VALUE] * 10)),
    Case("get-4k", ("GET", LARGE_KEY), keys=LARGE_KEYS),
    Case("set-4k", ("SET", LARGE_KEY, LARGE_VALUE), keys=LARGE_KEYS),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run showed."""

    # Microseconds of processor time of the target's processes for one command.
    cpu_us: float
    # Commands a second.
    rate: float
    # Milliseconds until half, and until 99 of 100, replies had come.
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """Where and how much."""

    host: str
    port: int
    # Whose processor time counts.
    pids: Sequence[int]
    # Threads of redis-benchmark.
    threads: int = 1


def find_load() -> str:
    """The redis-benchmark program; UsageError where it is not installed."""
    found = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if found is None:
        raise UsageError("redis-benchmark is not on the PATH (Debian: apt install redis-tools)")
    return found


def measure(case: Case, run: Run, requests: int) -> Sample:
    """Send that many commands and tell what it took; UsageError where the target does not serve."""
    before = cpu_seconds(run.pids)
    row = _benchmark(case, run, requests)
    spent = cpu_seconds(run.pids) - before
    return Sample(
        cpu_us=spent / requests * 1e6,
        rate=float(row["rps"]),
        p50_ms=float(row["p50_latency_ms"]),
        p99_ms=float(row["p99_latency_ms"]),
    )


def _benchmark(case: Case, run: Run, requests: int) -> dict[str, str]:
    options = {
        "-h": run.host,
        "-p": run.port,
        "-c": case.connections,
        "-P": case.pipeline,
        "-n": requests,
        "-r": case.keys,
    }
    words = [str(word) for option in options.items() for word in option]
    if run.threads > 1:
        words += ["--threads", str(run.threads)]
    command = [find_load(), *words, "--csv", *case.command]
    done = subprocess.run(command, capture_output=True, text=True)
    # Before the table, proxies without CONFIG GET cause a warning; it does no harm.
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode or len(lines) != 2:
        said = f"{done.stdout}{done.stderr}".strip().splitlines()[-1:]
        raise UsageError(f"{case.name} at {run.host}:{run.port}: {' '.join(said) or 'no result'}")
    return next(csv.DictReader(lines))


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time that these processes, all their threads included, have spent so far."""
    return sum(_stat_fields(pid)[1] for pid in pids)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents = {int(p.name): _stat_fields(int(p.name))[0] for p in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for member in found:
        # The list grows while it is walked.
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _stat_fields(pid: int) -> tuple[int, float]:
    """Parent, and processor seconds; zeros for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0.0
    # The name before the last parenthesis may hold anything.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
