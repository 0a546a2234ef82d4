"""Sockets before a Stream takes them over: connecting, and what the system is asked to do for
them.
"""

from __future__ import annotations

import asyncio
import socket

from rproxy.errors import ConnectFailed


async def connect_socket(host: str, port: int, keepalive: float) -> socket.socket:
    """A connected, non-blocking TCP socket; every address of the name is tried in turn."""
    loop = asyncio.get_running_loop()
    problem: OSError = OSError("the name has no address")
    for family, kind, proto, _, where in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, proto)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock, keepalive)
            await loop.sock_connect(sock, where)
            return sock
        except OSError as error:
            problem = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise ConnectFailed(f"{host}:{port}: {problem.strerror or problem}") from problem


def keep_alive(sock: socket.socket, idle: float) -> None:
    """Have the system probe, after `idle` seconds of silence, whether the peer is there; 0:
    never.
    """
    if idle:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(idle)))
