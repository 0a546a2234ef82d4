"""Commands that need more than one link or one node, through rproxy and at a plain server.

    python benchmarks/commands.py                # everything
    python benchmarks/commands.py --quick        # does it run? The numbers mean little

Processor time is that of all the target's processes, per operation; times are wall clock. What an
operation is:

- transaction: MULTI, ten SET, EXEC in one write; plain: the same ten SET in one write
- blocking pop: BLPOP that waits, answered by another client's RPUSH
- publish: one message to 1,000 subscribers, until the last has it; CPU is for one of them
- scan: one key of a walk through all keys, COUNT 1000
- evalsha: one EVALSHA with a key, 50 connections (redis-benchmark)
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

import click
import hiredis
from rich.console import Console
from rich.table import Table

from load import Case, Run, cpu_seconds, measure
from proxy import conditions, show_conditions
from rproxy.wire.frames import pack
from targets import Stage, Target, staged, start_rproxy, use_plain

SUBSCRIBERS = 1000
SCRIPT = b"return redis.call('GET', KEYS[1])"
WRITE = [b"SET", b"{bench}key", b"xxx"]


@dataclass(frozen=True)
class Cost:
    """One number pair."""

    cpu_us: float
    """Processor time of the target for one operation."""
    wall_us: float
    """Time until it was done."""


class Client:
    """A connection that sends bytes and reads whole replies."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.create_connection((target.host, target.port), 30.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def send(self, *words: bytes) -> None:
        """Send one command."""
        self.socket.sendall(pack(list(words)))

    def read(self) -> object:
        """The next reply."""
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self.socket.recv(1 << 16))
        if isinstance(reply, hiredis.ReplyError):
            raise click.ClickException(f"the target answers: {reply}")
        return reply

    def ask(self, *words: bytes) -> object:
        """Send one command and read its reply."""
        self.send(*words)
        return self.read()

    def close(self) -> None:
        """End the connection."""
        self.socket.close()


@contextmanager
def clients(target: Target, count: int) -> Iterator[list[Client]]:
    """So many connections."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(Client(target))
            stack.callback(found[-1].close)
        yield found


def timed(target: Target, count: int, work: Callable[[], object]) -> Cost:
    """What `work`, which does `count` operations, costs for one."""
    cpu, begin = cpu_seconds(target.pids), time.perf_counter()
    work()
    wall = time.perf_counter() - begin
    return Cost((cpu_seconds(target.pids) - cpu) / count * 1e6, wall / count * 1e6)


def pipelined(target: Target, scale: float, commands: list[list[bytes]], replies: int) -> Cost:
    """The commands in one write, again and again."""
    count, wire = int(3000 * scale), b"".join(map(pack, commands))
    with clients(target, 1) as (client,):

        def work() -> None:
            for _ in range(count):
                client.socket.sendall(wire)
                for _ in range(replies):
                    client.read()

        return timed(target, count, work)


def transactions(target: Target, scale: float) -> Cost:
    return pipelined(target, scale, [[b"MULTI"], *[WRITE] * 10, [b"EXEC"]], 12)


def plain_writes(target: Target, scale: float) -> Cost:
    return pipelined(target, scale, [WRITE] * 10, 10)


def blocking_pops(target: Target, scale: float) -> Cost:
    count = int(2000 * scale)
    with clients(target, 2) as (waiter, pusher):

        def work() -> None:
            for _ in range(count):
                waiter.send(b"BLPOP", b"{bench}queue", b"0")
                pusher.ask(b"RPUSH", b"{bench}queue", b"job")
                waiter.read()

        return timed(target, count, work)


def publishing(target: Target, scale: float) -> Cost:
    count = max(1, int(100 * scale))
    with clients(target, SUBSCRIBERS + 1) as (publisher, *subscribers):
        selector = selectors.DefaultSelector()
        for client in subscribers:
            client.ask(b"SUBSCRIBE", b"bench")
            client.socket.setblocking(False)
            selector.register(client.socket, selectors.EVENT_READ)
        size = len(b"*3\r\n$7\r\nmessage\r\n$5\r\nbench\r\n$3\r\nxxx\r\n")

        def work() -> None:
            for _ in range(count):
                publisher.ask(b"PUBLISH", b"bench", b"xxx")
                missing = size * len(subscribers)
                while missing:
                    for key, _ in selector.select(30.0):
                        missing -= len(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]

        cost = timed(target, count, work)
        return Cost(cost.cpu_us / SUBSCRIBERS, cost.wall_us)


def scanning(target: Target, scale: float) -> Cost:
    keys = int(1_000_000 * scale)
    with clients(target, 1) as (client,):
        client.ask(b"FLUSHALL")
        for first in range(0, keys, 1000):
            words = [w for n in range(first, first + 1000) for w in (b"scan:%d" % n, b"x")]
            client.ask(b"MSET", *words)

        def work() -> None:
            cursor, seen = b"0", -1
            while seen < 0 or cursor != b"0":
                page = client.ask(b"SCAN", cursor, b"COUNT", b"1000")
                assert isinstance(page, list)
                cursor, seen = page[0], max(seen, 0) + len(page[1])
            if seen < keys:
                raise click.ClickException(f"SCAN showed {seen} of {keys} keys")

        cost = timed(target, keys, work)
        client.ask(b"FLUSHALL")
        return cost


def evalsha(target: Target, scale: float) -> Cost:
    with clients(target, 1) as (client,):
        name = client.ask(b"SCRIPT", b"LOAD", SCRIPT)
    assert isinstance(name, bytes)
    case = Case("evalsha", ("EVALSHA", name.decode(), "1", "key:__rand_int__"))
    sample = measure(case, Run(target.host, target.port, target.pids), int(60_000 * scale))
    return Cost(sample.cpu_us, 1e6 / sample.rate)


CASES: dict[str, Callable[[Target, float], Cost]] = {
    "ten SET": plain_writes,
    "transaction of ten SET": transactions,
    "blocking pop": blocking_pops,
    "publish to 1,000": publishing,
    "scan, one key": scanning,
    "evalsha": evalsha,
}


def measure_all(stage: Stage, rounds: int, scale: float) -> dict[tuple[str, str], Cost]:
    """Medians by case and target; the targets take turns."""
    targets = [start_rproxy(stage), use_plain(stage)]
    found: dict[tuple[str, str], Cost] = {}
    for name, run in CASES.items():
        samples = [(t.name, run(t, scale)) for _ in range(rounds) for t in targets]
        for target in targets:
            costs = [cost for told, cost in samples if told == target.name]
            found[name, target.name] = Cost(
                median(cost.cpu_us for cost in costs), median(cost.wall_us for cost in costs)
            )
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=3, show_default=True, help="Runs of each case at each target.")
@click.option("--quick", is_flag=True, help="One round of short runs, to see that it works.")
def main(rounds: int, quick: bool) -> None:
    """Measure what transactions, blocking, Pub/Sub, SCAN and scripts cost."""
    show_conditions(conditions())
    with staged(None) as stage:
        results = measure_all(stage, 1 if quick else rounds, 0.02 if quick else 1.0)
    table = Table("operation", "target", "CPU us", "time us", title="medians, for one operation")
    for (name, target), cost in results.items():
        table.add_row(name, target, f"{cost.cpu_us:.2f}", f"{cost.wall_us:.1f}")
    Console().print(table)
    plain, whole = (results[name, "rproxy"] for name in ("ten SET", "transaction of ten SET"))
    if plain.cpu_us:
        ratio = whole.cpu_us / plain.cpu_us
        click.echo(f"a transaction of ten SET: {ratio:.2f} times the CPU of ten SET (goal 2)")


if __name__ == "__main__":
    main()
