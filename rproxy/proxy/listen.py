"""Listening sockets from the configuration's addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any

from rproxy.config import Address, Config, UnixPath
from rproxy.errors import UsageError


def open_listeners(config: Config) -> list[list[socket.socket]]:
    """One list of listening sockets a worker; raises UsageError where an address cannot be had.

    Several workers listen with SO_REUSEPORT: the kernel spreads the clients over them.
    """
    shares: list[list[socket.socket]] = [[] for _ in range(config.workers)]
    try:
        for where in config.listen:
            if isinstance(where, UnixPath):
                _share_unix(where, config, shares)
            else:
                _share_tcp(where, config, shares)
    except BaseException:
        close_all(shares)
        raise
    return shares


def close_all(shares: list[list[socket.socket]]) -> None:
    """Close every socket of the shares."""
    for share in shares:
        for sock in share:
            sock.close()


def _share_tcp(where: Address, config: Config, shares: list[list[socket.socket]]) -> None:
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UsageError(_why(where, error)) from error
    except UnicodeError as error:  # an empty or too long part of a name; the resolver is not asked
        raise UsageError(f"cannot listen on {where}: no host has such a name") from error
    if len(shares) > 1:
        # Without SO_REUSEPORT, to find out a port that is taken; gives one for port 0, too.
        with _bound(family, kind, place, where, shared=False) as first:
            place = first.getsockname()
    for share in shares:
        sock = _bound(family, kind, place, where, shared=len(shares) > 1)
        share.append(sock)
        sock.listen(config.clients.backlog)


def _bound(family: int, kind: int, place: Any, where: Address, shared: bool) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place)
    except OSError as error:
        sock.close()
        raise UsageError(_why(where, error)) from error
    return sock


def _why(where: Address | UnixPath, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: another process has it"
    return f"cannot listen on {where}: {error.strerror or error}"


def _share_unix(where: UnixPath, config: Config, shares: list[list[socket.socket]]) -> None:
    """A listening Unix socket for all; a file left behind by a dead process is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    shares[0].append(sock)
    try:
        _remove_stale(where.path)
        sock.bind(where.path)
        os.chmod(where.path, int(config.clients.unix_permissions, 8))
    except OSError as error:
        raise UsageError(_why(where, error)) from error
    sock.listen(config.clients.backlog)
    for share in shares[1:]:
        share.append(sock.dup())


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        try:
            visitor.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def remove_files(config: Config) -> None:
    """Remove the files of Unix sockets, when rproxy stops."""
    for where in config.listen:
        if isinstance(where, UnixPath):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(where.path)


def addresses(sockets: list[socket.socket]) -> list[str]:
    """Where the sockets really listen: what `port 0` became."""
    names = [sock.getsockname() for sock in sockets]
    return [f"unix:{name}" if isinstance(name, str) else str(Address(*name[:2])) for name in names]
