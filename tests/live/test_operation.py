"""What an operator does with the process: listeners, seeds, workers, signals."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from rproxy.demo import LocalCluster
from rproxy.demo_run import own_command, own_environment
from rproxy.demo_servers import HOST, NodeProcess, free_port, is_free, wait_until
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.live.proxies import Proxy, Wire, running

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""
AT_ONCE = 3.0
"""Seconds that "at once" may take on a busy machine."""


def refuse_to_serve(*words: str) -> str:
    """The one line on stderr of `rproxy serve` that ends with exit code 1 at once."""
    ended = subprocess.run(
        [*own_command(), "serve", *words],
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


# -- listeners --


def test_unix_socket(cluster: LocalCluster, tmp_path: Path) -> None:
    path = tmp_path / "rproxy.sock"
    with running(cluster, "--listen", f"unix:{path}") as proxy:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        client = redis.Redis(unix_socket_path=str(path))
        assert client.set("unix", "1")
        assert client.mget("unix", "none") == [b"1", None]
        assert {entry["addr"] for entry in client.client_list()} == {f"{path}:0"}
        assert proxy.client().delete("unix") == 1
        client.close()
    assert not path.exists()


def test_unix_socket_left_behind_is_replaced(cluster: LocalCluster, tmp_path: Path) -> None:
    path = tmp_path / "rproxy.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with running(cluster, "--listen", f"unix:{path}"):
        with redis.Redis(unix_socket_path=str(path)) as client:
            assert client.ping()
        seed = ("--seed", cluster.addresses[0])
        said = refuse_to_serve("--listen", f"unix:{path}", *seed)
        assert f"cannot listen on unix:{path}: another process has it" in said
        assert path.exists()


def test_ipv6(cluster: LocalCluster) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as found:
            port = found.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    with (
        running(cluster, "--listen", f"[::1]:{port}"),
        redis.Redis(host="::1", port=port) as client,
    ):
        assert client.set("ipv6", "1")
        assert client.client_info()["addr"].startswith("[::1]:")
        assert client.client_info()["laddr"] == f"[::1]:{port}"
        assert client.delete("ipv6") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_taken_port(workers: int) -> None:
    with socket.create_server((HOST, 0)) as taken:
        where = f"{HOST}:{taken.getsockname()[1]}"
        words = ("--listen", where, "--workers", str(workers), "--seed", f"{HOST}:1")
        assert f"cannot listen on {where}: another process has it" in refuse_to_serve(*words)


def test_open_listener_is_refused_unless_allowed(cluster: LocalCluster) -> None:
    """127.1 is this machine, but not known as such: it stands for an address of the outside."""
    where = f"127.1:{free_port()}"
    said = refuse_to_serve("--listen", where, "--seed", cluster.addresses[0])
    assert "no password is asked" in said
    assert "allow_open" in said
    with running(cluster, "--listen", where, "--allow-open") as proxy:
        assert f"{where} is open: whoever reaches it needs no password" in as_given(proxy, where)
    with running(cluster, "--listen", where, RPROXY_PASSWORD="sesame") as proxy:
        assert "is open" not in proxy.text()


def as_given(proxy: Proxy, where: str) -> str:
    """The log, with the address as the command line had it."""
    return proxy.text().replace(where.replace("127.1:", "127.0.0.1:"), where)


# -- seeds --


def test_names_and_dead_nodes_among_the_seeds(cluster: LocalCluster) -> None:
    port = cluster.nodes[1].port
    seeds = [f"{HOST}:{free_port()}", "no-such-host.invalid:6379", f"localhost:{port}"]
    proxy = Proxy(seeds)
    try:
        proxy.wait_listening()
        client = proxy.client()
        keys = [f"seeds:{number}" for number in range(100)]
        assert client.mset(dict.fromkeys(keys, "1"))
        assert client.delete(*keys) == 100
        assert "did not give the slot map" in proxy.text()
    finally:
        proxy.stop()


# -- workers --


def children(pid: int) -> set[int]:
    """The process's children."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def by_worker(proxy: Proxy) -> dict[int, Wire]:
    """A connection to each of the two workers, under the upper half of its client id."""
    found: dict[int, Wire] = {}

    def have_both() -> bool:
        wire = proxy.connect()
        kept = found.setdefault(int(wire.ask(b"CLIENT", b"ID")[1:-2]) >> 32, wire)
        if kept is not wire:
            wire.close()
        return len(found) == 2

    wait_until(have_both, PATIENCE, "both workers")
    return found


def test_workers_share_the_port(cluster: LocalCluster) -> None:
    with running(cluster, "--workers", "2") as proxy:
        for wire in by_worker(proxy).values():
            assert wire.ask(b"SET", b"worker", b"1") == b"+OK\r\n"
            wire.close()
        wires = [proxy.connect() for _ in range(100)]
        ids = {wire.ask(b"CLIENT", b"ID") for wire in wires}
        assert len(ids) == 100
        for wire in wires:
            wire.close()
        parent, workers = proxy.process.pid, children(proxy.process.pid)
    assert len(workers) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in (parent, *workers))


def test_killed_worker_is_replaced(cluster: LocalCluster) -> None:
    with running(cluster, "--workers", "2") as proxy:
        wires = by_worker(proxy)
        before = children(proxy.process.pid)
        os.kill(min(before), signal.SIGKILL)

        def is_replaced() -> bool:
            now = children(proxy.process.pid)
            return len(now) == 2 and now != before

        wait_until(is_replaced, PATIENCE, "another worker")
        assert "has ended" in proxy.text()
        assert sorted(answer_of(wire) for wire in wires.values()) == [b"", b"+PONG\r\n"]
        for wire in (*wires.values(), *(fresh := by_worker(proxy)).values()):
            wire.close()
        assert max(fresh) not in wires


def answer_of(wire: Wire) -> bytes:
    """The reply to PING; nothing where the connection has ended."""
    try:
        return wire.ask(b"PING")
    except (EOFError, OSError):
        return b""


# -- the end --


@contextmanager
def frozen_owner(cluster: LocalCluster, key: bytes) -> Iterator[NodeProcess]:
    """The key's node, which answers nothing until it is thawed, at the end of the block at last."""
    owner = cluster.slot_owner(slot_of(key))
    owner.freeze()
    try:
        yield owner
    finally:
        owner.thaw()


def begun(wire: Wire, other: Wire, *more: bytes) -> None:
    """Send a command that will not be answered soon, and more behind it; return when rproxy has all
    of it under way.
    """
    wire.ask(b"CLIENT", b"SETNAME", b"begun")
    wire.raw(pack([b"SET", b"end", b"1"]) + b"".join(pack([name]) for name in more))
    waiting = b" oll=%d " % (1 + len(more))

    def is_under_way() -> bool:
        lines = other.ask(b"CLIENT", b"LIST").split(b"\n")
        return any(b" name=begun " in line and waiting in line for line in lines)

    wait_until(is_under_way, PATIENCE, "a command under way")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_stop_finishes_what_is_under_way(
    cluster: LocalCluster, number: signal.Signals, workers: str
) -> None:
    with (
        running(cluster, "--workers", workers) as proxy,
        proxy.connect() as busy,
        proxy.connect() as idle,
    ):
        assert busy.ask(b"SET", b"end", b"0") == idle.ask(b"SET", b"end", b"0") == b"+OK\r\n"
        with frozen_owner(cluster, b"end"):
            begun(busy, idle, b"PING")
            proxy.process.send_signal(number)
            assert idle.rest() == b""
            wait_until(lambda: is_free(proxy.port), PATIENCE, "the end of the listener")
        assert busy.rest() == b"+OK\r\n+PONG\r\n"
        assert proxy.process.wait(PATIENCE) == 0
        assert "stopped; 0 clients had not finished" in proxy.text()


def test_stop_has_a_deadline(cluster: LocalCluster) -> None:
    with (
        running(cluster, config='drain_timeout = "300ms"') as proxy,
        proxy.connect() as busy,
        proxy.connect() as other,
    ):
        assert busy.ask(b"SET", b"end", b"0") == b"+OK\r\n"
        with frozen_owner(cluster, b"end"):
            begun(busy, other)
            proxy.process.terminate()
            assert proxy.process.wait(AT_ONCE) == 0
            assert busy.rest() == b""
        assert "stopped; 1 clients had not finished" in proxy.text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_second_signal_stops_at_once(cluster: LocalCluster, workers: str) -> None:
    with (
        running(cluster, "--workers", workers, config='drain_timeout = "1h"') as proxy,
        proxy.connect() as busy,
    ):
        assert busy.ask(b"SET", b"end", b"0") == b"+OK\r\n"
        with frozen_owner(cluster, b"end"):
            busy.send(b"SET", b"end", b"1")
            proxy.process.terminate()
            wait_until(lambda: "stopping" in proxy.text(), PATIENCE, "the first signal")
            with pytest.raises(subprocess.TimeoutExpired):
                proxy.process.wait(0.3)
            proxy.process.terminate()
            assert proxy.process.wait(AT_ONCE) == 0


def test_command_line_errors_are_one_line(tmp_path: Path) -> None:
    """No seeds, a file that is none: what is wrong, where, and no traceback."""
    assert "seeds" in refuse_to_serve("--listen", f"{HOST}:{free_port()}")
    file = tmp_path / "rproxy.toml"
    file.write_text('clients.passwort = "secret word"\nworkers = "many"\n')
    said = refuse_to_serve(str(file), "--seed", f"{HOST}:1")
    assert "clients.passwort" in said
    assert "workers" in said
    assert "secret word" not in said
