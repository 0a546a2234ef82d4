"""A proxy in a process of its own, and ways to talk to it, for live tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from rproxy.demo import LocalCluster
from rproxy.demo_run import own_command, own_environment
from rproxy.demo_servers import HOST, free_port, wait_until
from rproxy.wire.frames import FrameReader, Scratch, pack

START_LIMIT = 20.0
"""Seconds that a proxy may take to serve; it takes a fraction of one."""


class Proxy:
    """A running `rproxy serve`; its log is in `log`."""

    def __init__(self, seeds: list[str], *words: str, config: str = "", **environment: str) -> None:
        self.port = free_port()
        self._files = tempfile.TemporaryDirectory()
        self.log = Path(self._files.name) / "log"
        command = [*own_command(), "serve"]
        if config:
            file = Path(self._files.name) / "rproxy.toml"
            file.write_text(config)
            command.append(str(file))
        command += ["--listen", f"{HOST}:{self.port}", *words]
        command += [word for seed in seeds for word in ("--seed", seed)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**own_environment(), **environment}
            )

    def wait_listening(self) -> None:
        """Return when it accepts clients."""
        wait_until(self._accepts, START_LIMIT, f"the proxy to listen; its log: {self.text()}")

    def _accepts(self) -> bool:
        assert self.process.poll() is None, self.text()
        try:
            socket.create_connection((HOST, self.port), 1.0).close()
        except OSError:
            return False
        return True

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def client(self, protocol: int = 2, **options: Any) -> redis.Redis:
        """A redis-py client with a time limit."""
        options = {"socket_timeout": 30.0, "protocol": protocol, **options}
        return redis.Redis(host=HOST, port=self.port, **options)

    def connect(self) -> Wire:
        """A bare connection."""
        return Wire(self.port)

    def stop(self) -> int:
        """End it in good order; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._text = self.text()
            self._files.cleanup()


@contextmanager
def running(cluster: LocalCluster, *words: str, **options: Any) -> Iterator[Proxy]:
    """A proxy in front of the cluster, stopped at the end of the block."""
    proxy = Proxy(cluster.addresses, *words, **options)
    try:
        proxy.wait_listening()
        yield proxy
    finally:
        proxy.stop()


class Wire:
    """A bare connection that speaks frames."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), 10.0)
        self.socket.settimeout(30.0)
        self._reader = FrameReader(Scratch())

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(self, *words: bytes) -> None:
        """Send one request."""
        self.raw(pack(list(words)))

    def raw(self, wire: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(wire)

    def reply(self) -> bytes:
        """The next reply's bytes; EOFError where the proxy has closed."""
        while not isinstance(found := self._reader.reply(), bytes):
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise EOFError("the proxy has closed the connection")
            self._reader.feed(chunk)
        return found

    def ask(self, *words: bytes) -> bytes:
        """Send one request and return its reply's bytes."""
        self.send(*words)
        return self.reply()

    def replies(self, count: int) -> list[bytes]:
        """The next `count` replies."""
        return [self.reply() for _ in range(count)]

    def rest(self) -> bytes:
        """Everything until the proxy closes."""
        parts = []
        while chunk := self.socket.recv(1 << 16):
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
