"""A Stream behind an asyncio transport: how TLS connections reach the same verbs as plain sockets.

The transport writes straight into the stream's FrameReader (BufferedProtocol), and tells the
stream when it has enough.
"""

from __future__ import annotations

import asyncio
from typing import cast

from rproxy.transport.stream import Stream


class StreamProtocol(asyncio.BufferedProtocol):
    """Passes a transport's events on to one Stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream.attach_transport(cast(asyncio.Transport, transport))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.stream.room_view()

    def buffer_updated(self, nbytes: int) -> None:
        self.stream.updated(nbytes)

    def eof_received(self) -> bool:
        self.stream.peer_ended()
        return True

    def pause_writing(self) -> None:
        self.stream.pause_writing()

    def resume_writing(self) -> None:
        self.stream.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream.connection_gone(str(exc) if exc else "the peer closed the connection")
