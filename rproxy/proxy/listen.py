"""Listening sockets from the configuration's addresses."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import stat

from rproxy.config import Config
from rproxy.errors import UsageError
from rproxy.topology.address import Address

log = logging.getLogger("rproxy")

UNIX = "unix:"


def open_listeners(config: Config) -> list[list[socket.socket]]:
    """One list of listening sockets a worker; raises UsageError where an address cannot be had.

    Listening beyond loopback without a password needs `allow_open`, and is logged.
    """
    shares: list[list[socket.socket]] = [[] for _ in range(config.workers)]
    try:
        for text in config.listen:
            if text.startswith(UNIX):
                sock = _unix(text.removeprefix(UNIX), config)
                for index, share in enumerate(shares):
                    share.append(sock if index == 0 else sock.dup())
            else:
                _tcp(text, config, shares)
    except BaseException:
        close_all(shares)
        raise
    return shares


def close_all(shares: list[list[socket.socket]]) -> None:
    """Close every socket of the shares."""
    for share in shares:
        for sock in share:
            sock.close()


def _tcp(text: str, config: Config, shares: list[list[socket.socket]]) -> None:
    address = Address.parse(text)
    for family, kind, _, _, where in socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        _check_reach(str(where[0]), text, config)
        if config.workers > 1:
            _bound(family, kind, where, text, shared=False).close()  # finds out a port that is taken
        for share in shares:
            sock = _bound(family, kind, where, text, shared=config.workers > 1)
            sock.listen(config.clients.backlog)
            share.append(sock)
        return


def _bound(
    family: int, kind: int, where: tuple[object, ...], text: str, shared: bool
) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise UsageError(_why(text, error)) from error
    return sock


def _why(text: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {text}: the port is taken by another process"
    return f"cannot listen on {text}: {error.strerror or error}"


def _check_reach(host: str, text: str, config: Config) -> None:
    """Refuse to be open to the network by accident."""
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback or config.clients.password.reveal():
        return
    if not config.allow_open:
        raise UsageError(
            f"listening on {text} would let anyone who reaches it in: set clients.password, "
            "or allow_open = true (--allow-open)"
        )
    log.warning("anyone who reaches %s is let in: no password is set (allow_open)", text)


def _unix(path: str, config: Config) -> socket.socket:
    """A listening Unix socket; a file left behind by a dead process is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        os.chmod(path, int(config.clients.unix_permissions, 8))
        sock.listen(config.clients.backlog)
    except OSError as error:
        sock.close()
        raise UsageError(_why(f"{UNIX}{path}", error)) from error
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
