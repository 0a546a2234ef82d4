"""How much memory the proxy takes: idle clients, a reader that does not read, and after a burst.

    python benchmarks/memory.py
    python benchmarks/memory.py --clients 2000 --json result.json

Strategy: a local cluster of three masters, and for each question a fresh proxy with one worker,
whose resident set is read from /proc before, at its highest (the kernel keeps that mark) and
after. "After" is the lowest of the seconds that follow, because memory is given back when the
event loop next has time. Every client is a plain blocking socket, so nothing is read that a step
does not read.
"""

import contextlib
import json
import platform
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import rproxy
from load import family
from rproxy.demo import LocalCluster
from rproxy.demo_run import own_command, own_environment
from rproxy.demo_servers import HOST, call, find_server, free_port, server_version, wait_until
from rproxy.errors import RproxyError
from rproxy.wire.frames import pack

MIB = 1 << 20
# What idle clients may add, in MiB, for each ten thousand of them.
IDLE_GOAL = 150
# The large reply, and how much of it a client that is dropped may not exceed.
LARGE, SMALL_LIMIT = 100_000_000, 32 * MIB
# The burst: clients, and how often each asks for a value of that size before it reads anything.
BURST_CLIENTS, BURST_DEPTH, BURST_VALUE = 50, 20, MIB // 4
# Seconds in which memory has to come back, and in which anything else has to happen.
CALM, PATIENCE = 5.0, 60.0
# File descriptors that a process needs beside its clients.
SPARE_FILES = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of the result; sizes in MiB of resident memory."""

    question: str
    before: float
    highest: float
    after: float
    # What was seen, in words.
    remark: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    port: int
    pid: int

    def resident(self) -> float:
        """Resident memory now, in MiB."""
        return sum(status(pid, "VmRSS") for pid in family(self.pid))

    def highest(self) -> float:
        """The most since forget(), in MiB."""
        return sum(status(pid, "VmHWM") for pid in family(self.pid))

    def forget(self) -> None:
        """Begin a new highest mark."""
        for pid in family(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def lowest_soon(self) -> float:
        """The least resident memory of the next seconds."""
        seen: list[float] = []

        def never() -> bool:
            seen.append(self.resident())
            return False

        with contextlib.suppress(RproxyError):
            wait_until(never, CALM, "the seconds to pass")
        return min(seen)

    def connect(self) -> socket.socket:
        """A client."""
        return socket.create_connection((HOST, self.port), PATIENCE)


def status(pid: int, name: str) -> float:
    """A size from /proc/PID/status, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def proxy_for(cluster: LocalCluster, **clients: int) -> Iterator[Proxy]:
    """A proxy in front of the cluster; `clients` are options of that name's table."""
    port = free_port()
    options = [f"clients.{name} = {value}" for name, value in clients.items()]
    config = Path(cluster.nodes[0].directory, f"rproxy-{port}.toml")
    config.write_text("\n".join([f'listen = ["{HOST}:{port}"]', *options]))
    seeds = [word for address in cluster.addresses for word in ("--seed", address)]
    argv = [*own_command(), "serve", str(config), "--log-level", "error", *seeds]
    process = cluster.spawn(argv, own_environment())
    try:
        wait_until(lambda: serves(port), PATIENCE, "the proxy to serve")
        yield Proxy(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def serves(port: int) -> bool:
    """Whether a command with a key is answered."""
    try:
        call(HOST, port, "EXISTS", "key", timeout=1.0)
    except (OSError, RproxyError):
        return False
    return True


def store(cluster: LocalCluster, key: str, size: int) -> None:
    """Put a value of this size into the cluster, past the proxy."""
    owner = cluster.slot_owner(cluster.nodes[0].call("CLUSTER", "KEYSLOT", key))
    owner.call("SET", key, b"x" * size, timeout=PATIENCE)


# Questions


def idle_clients(cluster: LocalCluster, count: int) -> Answer:
    """Clients that connected, said PING once, and wait."""
    with proxy_for(cluster, max_clients=count + SPARE_FILES) as proxy:
        before = proxy.resident()
        proxy.forget()
        with contextlib.ExitStack() as clients:
            for _ in range(count):
                client = clients.enter_context(proxy.connect())
                client.sendall(b"PING\r\n")
                client.recv(16)
            with_all = proxy.resident()
        added = with_all - before
        allowed = IDLE_GOAL * count / 10_000
        remark = (
            f"{added:.0f} MiB more, {added * 1024 / count:.1f} KiB each (goal {allowed:.0f} MiB)"
        )
        return Answer(f"{count} idle clients", before, proxy.highest(), proxy.lowest_soon(), remark)


def late_reader(cluster: LocalCluster) -> Answer:
    """A client that asks for a large value, reads nothing for a while, then all of it."""
    store(cluster, "large", LARGE)
    with proxy_for(cluster) as proxy, proxy.connect() as client:
        before = proxy.resident()
        proxy.forget()
        client.sendall(pack([b"GET", b"large"]))
        proxy.lowest_soon()
        received = read_reply(client, LARGE)
        remark = f"{received / 1e6:.0f} MB came after {CALM:g} s without reading"
        return Answer("100 MB, late reader", before, proxy.highest(), proxy.lowest_soon(), remark)


def dropped_reader(cluster: LocalCluster) -> Answer:
    """The same with an output limit that the value exceeds: this client goes, others stay."""
    store(cluster, "large", LARGE)
    limits = {"output_limit": SMALL_LIMIT, "pause_output": MIB}
    with proxy_for(cluster, **limits) as proxy, proxy.connect() as client:
        before = proxy.resident()
        proxy.forget()
        client.sendall(pack([b"GET", b"large"]))
        proxy.lowest_soon()
        received = read_reply(client, LARGE)
        fate = "dropped" if received < LARGE else "NOT dropped"
        others = "served" if serves(proxy.port) else "NOT served"
        remark = f"limit {SMALL_LIMIT // MIB} MiB: the client was {fate}, others were {others}"
        return Answer("100 MB over the limit", before, proxy.highest(), proxy.lowest_soon(), remark)


def burst(cluster: LocalCluster) -> Answer:
    """Many clients ask for many values, read nothing for a while, then all, and leave."""
    store(cluster, "burst", BURST_VALUE)
    asked = pack([b"GET", b"burst"]) * BURST_DEPTH
    with proxy_for(cluster) as proxy:
        before = proxy.resident()
        proxy.forget()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(proxy.connect()) for _ in range(BURST_CLIENTS)]
            for client in clients:
                client.sendall(asked)
            proxy.lowest_soon()
            received = sum(read_reply(client, BURST_VALUE * BURST_DEPTH) for client in clients)
        remark = f"{received / 1e6:.0f} MB for {BURST_CLIENTS} clients"
        return Answer("burst", before, proxy.highest(), proxy.lowest_soon(), remark)


def read_reply(client: socket.socket, size: int) -> int:
    """Read at least so many bytes, or all there are before the connection ends; their number."""
    received = 0
    with contextlib.suppress(ConnectionError):
        while received < size and (piece := client.recv(MIB)):
            received += len(piece)
    return received


# Telling


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--clients", default=10_000, show_default=True, help="Idle clients.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the results here.")
def main(clients: int, output: Path | None) -> None:
    """Measure the memory that the proxy takes."""
    clients = min(clients, allowed_files() - SPARE_FILES)
    told = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "rproxy": rproxy.__version__,
        "server": server_version(find_server()),
        "idle clients": str(clients),
    }
    for name, value in told.items():
        click.echo(f"{name + ':':17}{value}")
    questions: tuple[Callable[[LocalCluster], Answer], ...] = (
        lambda cluster: idle_clients(cluster, clients),
        late_reader,
        dropped_reader,
        burst,
    )
    try:
        with LocalCluster(masters=3, replicas=0) as cluster:
            answers = [question(cluster) for question in questions]
    except RproxyError as error:
        raise click.ClickException(str(error)) from error
    show(answers)
    if output:
        report = {"conditions": told, "results": [asdict(answer) for answer in answers]}
        output.write_text(json.dumps(report, indent=1))


def allowed_files() -> int:
    """Raise the limit of open files as far as the system lets us; the proxy inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def show(answers: list[Answer]) -> None:
    """The table."""
    table = Table("", "before", "highest", "after", "", title="resident memory of the proxy, MiB")
    for column in table.columns[1:4]:
        column.justify = "right"
    for answer in answers:
        sizes = (answer.before, answer.highest, answer.after)
        table.add_row(answer.question, *(f"{size:.1f}" for size in sizes), answer.remark)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
