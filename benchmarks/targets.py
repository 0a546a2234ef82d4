"""What is measured: rproxy, the proxies beside it, and a plain server, each started on loopback.

The cluster is three masters without replicas. rproxy and Envoy stand in front of it. A connection
to one node of a cluster would be redirected for most keys, so "direct" and HAProxy, which only
copies bytes, lead to a plain server of the same version that holds the same keys: direct is what
no proxy costs, HAProxy what copying costs. Every target gets one thread. All processes belong to
one group and end with this one.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import hiredis

from load import (
    LARGE_KEY,
    LARGE_KEYS,
    LARGE_VALUE,
    SMALL_KEY,
    SMALL_KEYS,
    SMALL_VALUE,
    family,
)
from rproxy.cli import slot_owners
from rproxy.config import Address
from rproxy.demo import LocalCluster
from rproxy.demo_run import own_command, own_environment
from rproxy.demo_servers import HOST, ServerGroup, call, find_server, free_port, wait_until
from rproxy.errors import RproxyError, UsageError
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack

# Seconds that a target may take to serve its first command.
START_TIMEOUT = 15.0
# Commands that are sent before their replies are read, when keys are written beforehand.
FILL_BATCH = 1000
# rproxy with two workers only tells something about throughput.
THROUGHPUT_CASES = frozenset({"get", "get-p16", "get-p100", "get-c500"})

PLAIN_OPTIONS = ("--bind", HOST, "--save", "", "--appendonly", "no", "--logfile", os.devnull)

HAPROXY = """\
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen redis
    bind {host}:{port}
    server plain {host}:{plain}
"""

ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: {host}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.redis_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy
          stat_prefix: redis
          settings:
            op_timeout: 5s
            enable_redirection: true
          prefix_routes: {{catch_all_route: {{cluster: redis}}}}
  clusters:
  - name: redis
    connect_timeout: 1s
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.redis
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.redis.v3.RedisClusterConfig
        cluster_refresh_rate: 30s
    load_assignment:
      cluster_name: redis
      endpoints:
      - lb_endpoints:
{endpoints}
"""
ENVOY_ENDPOINT = """\
        - endpoint: {{address: {{socket_address: {{address: "{host}", port_value: {port}}}}}}}"""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that redis-benchmark can be pointed at."""

    name: str
    host: str
    port: int
    # The processes whose processor time counts.
    pids: tuple[int, ...]
    # Names of the cases that make sense; None: all.
    cases: frozenset[str] | None = None


class Missing(UsageError):
    """A peer's program is not on this machine."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the targets stand in front of, and where they are started."""

    # The processes that this benchmark started, and their files.
    group: ServerGroup
    # Nodes of the cluster, as "host:port".
    seeds: Sequence[str]
    # The plain server's port and process.
    plain_port: int
    plain_pid: int

    def spawn(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program; what it prints is in NAME.log in the group's directory."""
        with (self.group.directory / f"{name}.log").open("ab") as log:
            return self.group.spawn(argv, env=env, log=log)

    def file(self, name: str, text: str) -> Path:
        """A configuration file with this text."""
        path = self.group.directory / name
        path.write_text(text)
        return path

    def serving(
        self, name: str, process: subprocess.Popen[bytes], port: int, cases: Iterable[str] = ()
    ) -> Target:
        """The target that the process is, once it answers a command with a key."""

        def serves_or_ended() -> bool:
            return process.poll() is not None or answers(port)

        wait_until(serves_or_ended, START_TIMEOUT, f"{name} to serve")
        if process.returncode is not None:
            log = (self.group.directory / f"{name}.log").read_text(errors="replace")
            raise RproxyError(f"{name} ended at once: {log.strip()[-300:]}")
        return Target(name, HOST, port, tuple(family(process.pid)), frozenset(cases) or None)


def answers(port: int) -> bool:
    """Whether a command with a key is served on this port."""
    try:
        call(HOST, port, "EXISTS", "key", timeout=1.0)
    except (OSError, RproxyError):
        return False
    return True


@contextmanager
def staged(seed: str | None) -> Iterator[Stage]:
    """A stage on the cluster that has this seed, or on a new one, with all keys in place."""
    if seed is None:
        with LocalCluster(masters=3, replicas=0) as cluster, staged(cluster.addresses[0]) as stage:
            yield stage
        return
    seeds = sorted(set(slot_owners([seed])) - {"-"})
    group = ServerGroup()
    try:
        port = free_port()
        process = group.spawn([str(find_server()), "--port", str(port), *PLAIN_OPTIONS])
        wait_until(lambda: answers(port), START_TIMEOUT, "the plain server to answer")
        fill_plain(port)
        fill_cluster(seed)
        yield Stage(group, seeds, port, process.pid)
    finally:
        group.close()


# Keys


def all_keys() -> Iterator[tuple[str, str]]:
    """Every key that is read while measuring, and its value."""
    for name, count, value in (
        (SMALL_KEY, SMALL_KEYS, SMALL_VALUE),
        (LARGE_KEY, LARGE_KEYS, LARGE_VALUE),
    ):
        for number in range(count):
            yield name.replace("__rand_int__", f"{number:012d}"), value


def fill_plain(port: int) -> None:
    """Write all keys to one server."""
    write(f"{HOST}:{port}", all_keys())


def fill_cluster(seed: str) -> None:
    """Write all keys to their owners in a cluster."""
    owners = slot_owners([seed])
    shares: dict[str, list[tuple[str, str]]] = {}
    for key, value in all_keys():
        shares.setdefault(owners[slot_of(key.encode())], []).append((key, value))
    for owner, pairs in shares.items():
        write(owner, pairs)


def write(address: str, pairs: Iterable[tuple[str, str]]) -> None:
    """SET every pair on one connection."""
    reader = hiredis.Reader()
    waiting = [pack([b"SET", key.encode(), value.encode()]) for key, value in pairs]
    with socket.create_connection(Address.parse(address), 10) as sock:
        for first in range(0, len(waiting), FILL_BATCH):
            batch = waiting[first : first + FILL_BATCH]
            sock.sendall(b"".join(batch))
            for _ in batch:
                while (reply := reader.gets()) is False:
                    reader.feed(sock.recv(65536))
                if reply != b"OK":
                    raise RproxyError(f"{address} does not take the keys: {reply}")


# Targets


def start_rproxy(stage: Stage, workers: int = 1, name: str = "rproxy") -> Target:
    """rproxy as it comes, in front of the cluster."""
    port = free_port()
    seeds = [word for seed in stage.seeds for word in ("--seed", seed)]
    argv = [*own_command(), "serve", "--listen", f"{HOST}:{port}", "--workers", str(workers)]
    process = stage.spawn(name, [*argv, *seeds], own_environment())
    return stage.serving(name, process, port, THROUGHPUT_CASES if workers > 1 else ())


def start_two_workers(stage: Stage) -> Target:
    """rproxy with two workers; for throughput."""
    return start_rproxy(stage, workers=2, name="rproxy-2w")


def use_plain(stage: Stage) -> Target:
    """The plain server itself."""
    return Target("direct", HOST, stage.plain_port, (stage.plain_pid,))


def start_haproxy(stage: Stage) -> Target:
    """HAProxy, copying bytes to the plain server and back."""
    port = free_port()
    text = HAPROXY.format(host=HOST, port=port, plain=stage.plain_port)
    config = stage.file("haproxy.cfg", text)
    process = stage.spawn("haproxy", [find_program("haproxy"), "-db", "-f", str(config)])
    return stage.serving("haproxy", process, port)


def start_envoy(stage: Stage) -> Target:
    """Envoy's redis_proxy: learns the topology from the cluster and follows redirections."""
    port = free_port()
    nodes = [Address.parse(seed)._asdict() for seed in stage.seeds]
    endpoints = "\n".join(ENVOY_ENDPOINT.format(**node) for node in nodes)
    config = stage.file("envoy.yaml", ENVOY.format(host=HOST, port=port, endpoints=endpoints))
    options = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    process = stage.spawn("envoy", [find_program("envoy"), "-c", str(config), *options])
    return stage.serving("envoy", process, port)


STARTERS: Mapping[str, Callable[[Stage], Target]] = MappingProxyType(
    {
        "rproxy": start_rproxy,
        "direct": use_plain,
        "haproxy": start_haproxy,
        "envoy": start_envoy,
        "rproxy-2w": start_two_workers,
    }
)


def find_program(name: str) -> str:
    """A program on the PATH, in /usr/sbin or beside this Python; Missing where there is none."""
    places = (os.environ.get("PATH", ""), "/usr/sbin", str(Path(sys.executable).parent))
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def parse_peer(text: str) -> Target:
    """The target that "NAME=HOST:PORT:PID" describes: something that already runs."""
    name, equals, rest = text.partition("=")
    address, colon, pid = rest.rpartition(":")
    if not (name and equals and colon and pid.isdecimal()):
        raise UsageError(f"{text!r} is not NAME=HOST:PORT:PID")
    host, port = Address.parse(address)
    return Target(name, host, port, tuple(family(int(pid))))
