"""How a connection to a node is set up, whoever has it: a pool's link, a leased one, a feed.

An Opening is one attempt. Its owner tells it when the connection is lost, so nobody waits for an
answer that cannot come any more. Whoever needs the connection keeps trying.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from rproxy.config import Address, Upstream
from rproxy.errors import ConnectFailed, HandshakeRefused, LinkLost, NetworkError
from rproxy.transport.protocol import StreamProtocol
from rproxy.transport.sockets import connect_socket
from rproxy.transport.stream import Stream
from rproxy.upstream import handshake
from rproxy.upstream.recovery import backoff
from rproxy.upstream.sink import call
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.upstream.cluster import Cluster


class Dialled(Protocol):
    """A connection to a node: a Link or a Feed."""

    @property
    def stream(self) -> Stream:
        """Its socket."""

    def send_setup(self, request: Request) -> None:
        """Write a request of the handshake."""


class Opening:
    """One attempt to set up a connection."""

    __slots__ = ("_done", "_loss", "_tracking")

    def __init__(self, tracking: bool = False) -> None:
        self._tracking = tracking
        self._done: asyncio.Future[None] | None = None
        self._loss = ""

    async def run(self, link: Dialled, address: Address, cluster: Cluster, protocol: int) -> None:
        """Connect and shake hands. Raises NetworkError or OSError: what went wrong."""
        try:
            await dial(link, address, cluster)
        except UnicodeError as error:  # a host name that cannot be one; the resolver says so
            raise ConnectFailed(str(error)) from None
        if not link.stream.is_closed:
            await self._shake_hands(link, cluster, protocol)
        if link.stream.is_closed:
            raise LinkLost(self._loss)

    def lost(self, reason: str) -> None:
        """The connection has ended: nothing more is to be waited for."""
        self._loss = reason
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def _shake_hands(self, link: Dialled, cluster: Cluster, protocol: int) -> None:
        """Send the connection's first requests; over when all answers were good, or one was not."""
        done = self._done = asyncio.get_running_loop().create_future()
        steps = deque(handshake.steps(cluster.config.upstream, protocol, tracking=self._tracking))

        def check(reply: bytes) -> None:
            problem = handshake.check(steps.popleft(), reply)
            if done.done():
                return
            if problem is not None:
                done.set_exception(HandshakeRefused(problem))
            elif not steps:
                done.set_result(None)

        for step in steps:
            link.send_setup(call(step.frame, check))
        await done


async def keep_trying(
    attempt: Callable[[], Awaitable[None]],
    failed: Callable[[str], None],
    is_wanted: Callable[[], bool],
    options: Upstream,
) -> None:
    """Attempt to open a connection until that succeeds or nobody wants it, with back-off between;
    `failed` hears each time what went wrong.
    """
    count = 0
    while is_wanted():
        try:
            await asyncio.wait_for(attempt(), options.connect_timeout)
            return
        except TimeoutError:
            reason = f"no answer within {options.connect_timeout:g} s"
        except (OSError, NetworkError) as error:
            reason = str(error)
        count += 1
        failed(reason)
        delay = backoff(count, options.reconnect_delay, options.reconnect_delay_max, random.random)
        await asyncio.sleep(delay)


async def dial(link: Dialled, address: Address, cluster: Cluster) -> None:
    """Connect the stream to the address, by TLS where that is configured."""
    loop = asyncio.get_running_loop()
    if cluster.tls is None:
        keepalive = cluster.config.upstream.tcp_keepalive
        sock = await connect_socket(address.host, address.port, keepalive)
        link.stream.attach(loop, sock.detach())
        return
    name = cluster.config.upstream.tls.server_name or address.host
    await loop.create_connection(
        lambda: StreamProtocol(link.stream),
        address.host,
        address.port,
        ssl=cluster.tls,
        server_hostname=name,
    )
