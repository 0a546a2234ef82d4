"""`rproxy demo`: a local cluster with the proxy in front of it, until somebody stops them.

Strategy: the signals are turned into SystemExit before anything starts, so being asked to stop
takes the same way out as an error, from any point: back through the `with` blocks, each of which
removes what it had started. The proxy is a process like any other `rproxy serve`; it is started
inside the cluster's group, so it too ends when this process is killed outright.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

from rproxy.config import ENVIRONMENT
from rproxy.demo import LocalCluster
from rproxy.demo_servers import HOST, call, is_free, signals_held, wait_until
from rproxy.errors import RproxyError, UsageError

# Seconds that the proxy may take to serve its first command, and to end when asked to.
START_TIMEOUT, STOP_TIMEOUT = 15.0, 12.0

READY = """\
Ready: the proxy on {host}:{port}, {masters} masters and {replicas} replicas behind it \
on ports {first} to {last}.

Try in another terminal:
  redis-cli -p {port} set hello world
  redis-cli -p {port} mget hello user:1 user:2      # keys of three slots
  redis-cli -p {first} cluster nodes                # what is behind the proxy
  rproxy slot hello user:1 user:2 --seed {host}:{first}

Or in Python (pip install redis):
  import redis
  client = redis.Redis(port={port}, decode_responses=True)
  client.mset({{"user:1": "Ann", "user:2": "Bob"}})
  print(client.mget("user:1", "user:2"))

Ctrl-C stops the proxy and the cluster and leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What `rproxy demo` is asked to start."""

    # Where the proxy listens, on loopback.
    port: int
    # The first node's port; None picks free ones.
    cluster_port: int | None
    masters: int
    # Replicas of each master.
    replicas: int
    # Worker processes of the proxy.
    workers: int


def run_demo(plan: DemoPlan) -> None:
    """Start it all, say what to try, and wait; being asked to stop is SystemExit(0).

    Raises UsageError for a taken port or a missing server, RproxyError where a part does not start
    or the proxy ends by itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if not is_free(plan.port):
        raise UsageError(f"port {plan.port} on {HOST} is taken: choose another with --port")
    click.echo("Starting a Redis Cluster on this machine ...", err=True)
    cluster = LocalCluster(plan.masters, plan.replicas, base_port=plan.cluster_port)
    with cluster, _proxy(plan, cluster) as proxy:
        click.echo(_ready_text(plan, [node.port for node in cluster.nodes]))
        proxy.wait()
        raise RproxyError(f"the proxy ended by itself (exit code {proxy.returncode})")


def _ready_text(plan: DemoPlan, ports: list[int]) -> str:
    return READY.format(
        host=HOST,
        port=plan.port,
        masters=plan.masters,
        replicas=plan.masters * plan.replicas,
        first=min(ports),
        last=max(ports),
    )


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


@contextmanager
def _proxy(plan: DemoPlan, cluster: LocalCluster) -> Iterator[subprocess.Popen[bytes]]:
    """The proxy's process, already serving; it is ended in good order at the end of the block."""
    seeds = [word for address in cluster.addresses for word in ("--seed", address)]
    where = ["--listen", f"{HOST}:{plan.port}", "--workers", str(plan.workers)]
    process = cluster.spawn([*own_command(), "serve", *where, *seeds], own_environment())
    try:
        _wait_serving(process, plan.port)
        yield process
    finally:
        with signals_held():
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_serving(process: subprocess.Popen[bytes], port: int) -> None:
    def serves_or_ended() -> bool:
        if process.poll() is not None:
            return True
        try:
            # A command with a key: PING would be answered before the cluster is known.
            return bool(call(HOST, port, "EXISTS", "hello", timeout=1.0) in (0, 1))
        except (OSError, RproxyError):
            return False

    wait_until(serves_or_ended, START_TIMEOUT, f"the proxy on port {port} to serve")
    if process.returncode is not None:
        raise RproxyError(f"the proxy did not start (exit code {process.returncode})")


def own_command() -> list[str]:
    """The words that run this rproxy again, whatever the current directory holds."""
    return [sys.executable, "-P", "-m", "rproxy"]


def own_environment() -> dict[str, str]:
    """The environment for own_command(): modules are found where this process found them.

    Without the variables that hold passwords: the demo cluster asks for none.
    """
    kept = {name: text for name, text in os.environ.items() if name not in ENVIRONMENT.values()}
    return kept | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
