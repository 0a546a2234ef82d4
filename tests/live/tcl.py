"""Runs Redis's own test suite against the proxy, and against a plain server to compare with.

    python -m tests.live.tcl ~/redis-7.0.15
    python -m tests.live.tcl ~/redis-7.0.15 --cluster-mode --unit unit/type/list --json result.json

Strategy. Each unit file runs by itself, in external mode and with one database, first against a
plain server, then against the proxy in front of a cluster of the same version. The tree is that of
the server's sources, the folder above tests/test_helper.tcl. What counts are the tests that the
plain server passes: those of them that fail, or do not run, through the proxy are listed. A test
that raises does not end its file, and a script that a failed test leaves running is ended. A unit
that hangs is ended after a while; what it passed counts.

Tests that need what only the server itself has (DEBUG RELOAD, replication ...) carry tags called
`needs:...`. Each unit runs with them and once more without: a test that fails may spoil later ones.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from rproxy.demo import LocalCluster
from rproxy.demo_servers import HOST, call, find_server
from rproxy.errors import RproxyError
from tests.live.plain import plain_server
from tests.live.proxies import running

SERVER_OPTIONS = {
    "enable-debug-command": "yes",
    "enable-protected-configs": "yes",
    "enable-module-command": "yes",
}
"""What the suite's own servers allow, too."""
CONFIG = 'admin_commands = "allow"\n'
NEEDS = (
    "config-maxmemory",
    "config-resetstat",
    "debug",
    "latency",
    "local-process",
    "pfdebug",
    "repl",
    "reset",
    "save",
)
"""What tests may need: their tags behind `needs:`."""
FIRST_PORT, PORTS = 22000, 100
"""Where the suite's own ports begin, and how many one run may use: two runs do not meet."""
FLAGS = ("--singledb", "--ignore-encoding", "--ignore-digest", "--durable", "--clients", "1")
RESULT = re.compile(r"^\[(ok|err|exception)\]: (.*?)(?: \(\d+ ms\)| in tests/\S+)?$", re.MULTILINE)
COLORS = re.compile(r"\x1b\[[0-9;]*m")

Names = Counter[str]
"""Names of tests; some have the same."""


@dataclass
class Unit:
    """How one file went."""

    name: str
    plain: Names
    """Tests that the plain server passes."""
    free: Names
    """Those of them that need nothing special."""
    proxy: Names
    """Tests that pass through the proxy."""
    proxy_free: Names
    """Tests that pass through it when those that need something are left out."""

    @property
    def missing(self) -> Names:
        """Tests that only the plain server passes."""
        return self.plain - self.proxy

    @property
    def missing_free(self) -> Names:
        """Those of them that need nothing special, and fail beside others of that kind."""
        return self.free - self.proxy_free


@dataclass
class Suite:
    """The tree of tests, and how it is run."""

    tree: Path
    cluster_mode: bool
    limit: float

    def units(self) -> list[str]:
        """The unit files in the suite's own order; not those that start servers of their own."""
        text = (self.tree / "tests/test_helper.tcl").read_text()
        found = re.search(r"set ::all_tests \{(.*?)\}", text, re.DOTALL)
        assert found is not None
        names = found.group(1).split()
        return [n for n in names if n.startswith("unit/") and not n.startswith(OTHERS)]

    def run(self, unit: str, port: int, needs: bool = True) -> Names:
        """Names of the tests that pass."""
        denied = ["-slow", *([] if needs else [f"-needs:{need}" for need in NEEDS])]
        command = ["tclsh", "tests/test_helper.tcl", "--host", HOST, "--port", str(port)]
        command += ["--single", unit, "--tags", " ".join(denied), *FLAGS]
        command += ["--cluster-mode"] if self.cluster_mode else []
        command += ["--baseport", str(FIRST_PORT + os.getpid() % 100 * PORTS)]
        output = said(command, self.tree, self.limit)
        text = COLORS.sub("", output.decode("utf-8", "replace")).replace("\r", "")
        return Counter(name for kind, name in RESULT.findall(text) if kind == "ok")


def said(command: list[str], place: Path, limit: float) -> bytes:
    """What the program writes until it ends or is ended; to a terminal, so Tcl writes at once."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        command, cwd=place, stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    output = bytearray()
    end = time.monotonic() + limit
    while select.select([mine], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            output += os.read(mine, 1 << 16)
        except OSError:  # the last one has closed it
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.close(mine)
    return bytes(output)


@contextmanager
def no_endless_scripts(ports: list[int]) -> Iterator[None]:
    """End scripts that a failed test has left running: no later test could pass."""
    done = threading.Event()

    def watch(port: int) -> None:
        busy = 0
        while not done.wait(1.0):
            busy = busy + 1 if is_busy(port) else 0
            if busy > BUSY_LIMIT:
                for kind in ("SCRIPT", "FUNCTION"):
                    with suppress(OSError, RproxyError):
                        call(HOST, port, kind, "KILL", timeout=1.0)

    watchers = [threading.Thread(target=watch, args=(port,)) for port in ports]
    for watcher in watchers:
        watcher.start()
    try:
        yield
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()


def is_busy(port: int) -> bool:
    """Whether the server does nothing but run a script."""
    try:
        call(HOST, port, "PING", timeout=1.0)
    except RproxyError as error:
        return "BUSY" in str(error)
    except OSError:
        pass
    return False


BUSY_LIMIT = 3
"""Seconds that a script may run: no test of the suite has one that runs so long on purpose."""

OTHERS = ("unit/moduleapi", "unit/cluster", "unit/oom-score-adj", "unit/tls", "unit/shutdown")
"""Units about something else than commands."""


def measure(suite: Suite, units: list[str]) -> Iterator[Unit]:
    """Run the units, each against both; servers are new each time, as after a test that fails
    their settings may be any.
    """
    server = find_server()
    options = [word for name, value in SERVER_OPTIONS.items() for word in (f"--{name}", value)]
    for name in units:
        with ExitStack() as stack:
            plain = stack.enter_context(plain_server(server, *options))
            cluster = stack.enter_context(LocalCluster(3, 0, server=server, options=SERVER_OPTIONS))
            proxy = stack.enter_context(running(cluster, config=CONFIG))
            ports = [plain.port, *(node.port for node in cluster.nodes)]
            stack.enter_context(no_endless_scripts(ports))
            yield Unit(
                name,
                suite.run(name, plain.port),
                suite.run(name, plain.port, needs=False),
                suite.run(name, proxy.port),
                suite.run(name, proxy.port, needs=False),
            )


def show_sum(title: str, pairs: list[tuple[Names, Names]]) -> None:
    """How many of the tests that the plain server passes, the proxy passes, too."""
    passed, total = sum((a & b).total() for a, b in pairs), sum(a.total() for a, _ in pairs)
    print(f"{title}: {passed} of {total}, {100 * passed / max(1, total):.1f} %")


@click.command()
@click.argument("tree", type=click.Path(exists=True, path_type=Path))
@click.option("--cluster-mode", is_flag=True, help="Keys of a command in one slot.")
@click.option("--unit", "chosen", multiple=True, help="Only this one, unit/type/list; repeatable.")
@click.option("--limit", default=120.0, show_default=True, help="Seconds for one unit.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the results here.")
def main(
    tree: Path, cluster_mode: bool, chosen: tuple[str, ...], limit: float, output: Path | None
) -> None:
    """Run the suite in TREE, and print what passes."""
    if shutil.which("tclsh") is None:
        sys.exit("tclsh is not on the PATH (Debian: apt install tcl)")
    suite = Suite(tree, cluster_mode, limit)
    done: list[Unit] = []
    for unit in measure(suite, list(chosen) or suite.units()):
        done.append(unit)
        print(f"{unit.name:30} {(unit.plain & unit.proxy).total():4} of {unit.plain.total():4}")
        for name in unit.missing_free:
            print(f"    {name}")
        for name in unit.missing - unit.missing_free:
            print(f"    {'(only beside others)' if name in unit.free else '(needs)'} {name}")
    show_sum("all", [(unit.plain, unit.proxy) for unit in done])
    show_sum("without needs", [(unit.free, unit.proxy_free) for unit in done])
    if output is not None:
        report = {
            u.name: {k: [*v.elements()] for k, v in vars(u).items() if k != "name"} for u in done
        }
        output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
