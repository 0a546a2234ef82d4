"""Listeners and the life of a worker: accept, count, idle out, drain, stop.

Strategy. Listening sockets are watched by the loop itself and accepted from in small batches;
each accepted socket becomes a ClientStream at once, without a task. A second's round closes
clients that idle too long. Draining closes the listeners, lets every session finish what it has
under way, and closes the rest at a deadline.

Rules. Too many clients are told so in Redis's words. Running out of file descriptors pauses
accepting instead of spinning.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Sequence

from rproxy import errors
from rproxy.config import Config
from rproxy.engine.client import Client
from rproxy.engine.engine import Engine
from rproxy.engine.session import Session
from rproxy.probe import Probe
from rproxy.proxy.connection import ClientStream
from rproxy.proxy.memory import Trimmer
from rproxy.transport.bus import Bus
from rproxy.transport.sockets import keep_alive
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import Cluster

ACCEPT_BATCH = 64
"""Connections accepted in one turn of the loop: those that are there already want their turn,
too.
"""
ACCEPT_PAUSE = 0.5
"""Seconds without accepting after the process ran out of file descriptors."""
ROUND = 1.0
"""Seconds between two looks for idle clients."""
LEFT = {"closed", "the peer closed the connection", os.strerror(errno.ECONNRESET)}
"""Reasons of sessions that ended by the client's will."""
OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server:
    """One worker: its listeners, its clients, its engine."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        probe: Probe,
        serial: int = 0,
        bus: Bus | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.config = config
        self.probe = probe
        self.tick = Tick(loop)
        self.cluster = Cluster(config, self.tick, probe)
        self.engine = Engine(config, self.cluster, self.tick, probe)
        self.engine.bus = bus
        self.clients = self.engine.clients
        self._sockets = list(sockets)
        self._loop = loop
        self._next_id = (serial << 32) + 1
        self._round: asyncio.TimerHandle | None = None
        self.draining = False
        self._all_gone = asyncio.Event()
        self._trimmer = Trimmer()

    async def start(self) -> None:
        """Accept clients; the cluster is learnt meanwhile, and commands wait for it."""
        await self.cluster.start()
        self.engine.start()
        for sock in self._sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), self._accept, sock)
        self._idle_round()

    # -- accepting --

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                connection, where = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                self._pause_accepting(sock, error)
                return
            self._welcome(connection, where)

    def _pause_accepting(self, sock: socket.socket, error: OSError) -> None:
        self.probe.accept_failed(str(error))
        self._loop.remove_reader(sock.fileno())
        self._loop.call_later(ACCEPT_PAUSE, self._resume_accepting, sock)

    def _resume_accepting(self, sock: socket.socket) -> None:
        if not self.draining:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _welcome(self, connection: socket.socket, where: object) -> None:
        limits = self.config.clients
        if len(self.clients) >= limits.max_clients:
            self.probe.client_refused(readable(where, connection), "too many clients")
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # whether it hears why is up to it
                connection.send(errors.MAX_CLIENTS)
            connection.close()
            return
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(connection, limits.tcp_keepalive)
        self._begin(connection, where)

    def _begin(self, connection: socket.socket, where: object) -> None:
        """Give the connection a session and an identity."""
        locked = bool(self.engine.password)
        client = Client(
            self._next_id,
            readable(where, connection),
            readable(connection.getsockname(), connection),
            connection.fileno(),
            not locked,
            self.probe,
        )
        self._next_id += 1
        stream = ClientStream(self.tick, self.engine.shared, client, locked)
        client.session = stream.session
        client.session.on_lost = self._lost
        self.clients.add(client)
        self.probe.client_accepted(client.address)
        stream.attach(self._loop, connection.detach())

    def _lost(self, session: Session, reason: str) -> None:
        client = session.client
        self.clients.discard(client)
        self.engine.hub.leave(session)
        self.engine.tracking.leave(session)
        client.session = None
        if self.draining and not self.clients:
            self._all_gone.set()
        if reason in LEFT:
            self.probe.client_left(client.address)
        else:
            self.probe.client_dropped(client.address, reason)

    # -- the regular round --

    def _idle_round(self) -> None:
        self.probe.flush()
        self._trimmer.round(self._loop.time())
        limit = self.config.clients.idle_timeout
        if limit:
            now = self._loop.time()
            for client in list(self.clients):
                session = client.session
                quiet = session and not session.under_way and now - session.active_at > limit
                # Who only listens is silent by nature; Redis lets such clients be, too.
                if session and quiet and not (session.is_subscribed or session.is_monitor):
                    session.close("idle")
        self._round = self._loop.call_later(ROUND, self._idle_round)

    # -- the end --

    def stop_accepting(self) -> None:
        """Close the listeners, after taking those who are already waiting."""
        self.draining = True
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            self._accept(sock)
            sock.close()
        self._sockets = []

    async def drain(self) -> None:
        """Let every client finish what it has under way; close the rest at the deadline."""
        self.stop_accepting()
        for client in list(self.clients):
            if client.session is not None:
                client.session.end()
        if self.clients:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), self.config.drain_timeout)

    async def close(self) -> int:
        """Stop everything; how many clients had not finished."""
        if self._round is not None:
            self._round.cancel()
        abandoned = list(self.clients)
        for client in abandoned:
            if client.session is not None:
                client.session.close("rproxy stops")
        await self.engine.close()
        await self.cluster.close()
        return len(abandoned)


def readable(where: object, connection: socket.socket) -> str:
    """A socket's address as CLIENT LIST shows it: host:port, [v6]:port or path:0."""
    if connection.family == socket.AF_UNIX:
        path = connection.getsockname()
        return f"{os.fsdecode(path)}:0"
    assert isinstance(where, tuple)
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
