"""A plain server beside the cluster: the judge of what a reply has to be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rproxy.demo_servers import (
    HOST,
    ServerGroup,
    call,
    free_port,
    server_version,
    wait_until,
)
from rproxy.errors import RproxyError
from tests.live.proxies import START_LIMIT, Wire

NO_COMMAND = {b"*1\r\n*-1\r\n", b"*1\r\n$-1\r\n", b"*1\r\n_\r\n"}
"""COMMAND INFO's reply for a command that the server does not have."""

OPTIONS = ("--bind", HOST, "--save", "", "--appendonly", "no", "--logfile", os.devnull)


class Plain:
    """A server without a cluster."""

    def __init__(self, port: int, modern: bool) -> None:
        self.port = port
        self.modern = modern
        """Whether its version is 7.0 or newer."""

    def connect(self) -> Wire:
        """A bare connection."""
        return Wire(self.port)

    def knows(self, command: bytes) -> bool:
        """Whether this version of the server has the command."""
        with self.connect() as wire:
            return wire.ask(b"COMMAND", b"INFO", command) not in NO_COMMAND


def is_modern(program: Path) -> bool:
    """Whether the server's version is 7.0 or newer."""
    return not server_version(program).startswith(("5.", "6."))


@contextmanager
def plain_server(program: Path, *options: str) -> Iterator[Plain]:
    """A running server, ended with the block."""
    group = ServerGroup()
    try:
        port = free_port()
        group.spawn([str(program), "--port", str(port), *OPTIONS, *options], group.directory)
        wait_until(lambda: _answers(port), START_LIMIT, "the plain server to answer")
        yield Plain(port, modern=is_modern(program))
    finally:
        group.close()


def _answers(port: int) -> bool:
    try:
        return bool(call(HOST, port, "PING", timeout=1.0))
    except (OSError, RproxyError):
        return False
