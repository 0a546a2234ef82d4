"""Stream: what is appended arrives, whole and in order, whatever the kernel takes at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from rproxy.transport.protocol import StreamProtocol
from rproxy.transport.stream import Tick
from rproxy.upstream.link import Link
from rproxy.upstream.sink import call
from rproxy.wire.frames import pack
from tests.fakes import FakeLoop


class Loss:
    """Remembers why its links were lost."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.happened = asyncio.Event()

    def lost(self, link: Link, reason: str, again: list[object], was_ready: bool) -> None:
        self.reasons.append(reason)
        self.happened.set()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking sockets."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def attach(ours: socket.socket, loss: Loss) -> Link:
    link = Link(Tick(asyncio.get_running_loop()), None, loss)
    link.stream.attach(asyncio.get_running_loop(), ours.detach())
    link.open()
    return link


async def attach_transport(ours: socket.socket, loss: Loss) -> Link:
    loop = asyncio.get_running_loop()
    link = Link(Tick(loop), None, loss)
    await loop.create_connection(lambda: StreamProtocol(link.stream), sock=ours)
    link.open()
    return link


Attach = Callable[[socket.socket, Loss], Awaitable[Link]]
both = pytest.mark.parametrize("attach", [attach, attach_transport], ids=["direct", "transport"])


@both
def test_megabytes_both_ways(attach: Attach) -> None:
    """Far more than the kernel buffers: large and small frames in turn arrive in order."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = pair()
        link = await attach(ours, Loss())
        values = [b"%d" % n * (500_000 if n % 3 == 0 else 10) for n in range(12)]
        replies: asyncio.Queue[bytes] = asyncio.Queue()
        for value in values:
            link.take(call(pack([b"ECHO", value]), replies.put_nowait))
        expected = b"".join(pack([b"ECHO", value]) for value in values)
        received = b""
        while len(received) < len(expected):
            received += await loop.sock_recv(theirs, 1 << 16)
        assert received == expected
        answer = [b"$%d\r\n%b\r\n" % (len(value), value) for value in values]
        await loop.sock_sendall(theirs, b"".join(answer))
        assert [await replies.get() for _ in values] == answer
        link.close("done")
        theirs.close()

    asyncio.run(main())


@both
def test_one_write_a_turn(attach: Attach) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = pair()
        link = await attach(ours, Loss())
        for number in range(100):
            link.take(call(pack([b"GET", b"%d" % number]), lambda reply: None))
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        assert len(await loop.sock_recv(theirs, 1 << 16)) == link.stream.unsent + sum(
            len(pack([b"GET", b"%d" % number])) for number in range(100)
        )
        link.close("done")
        theirs.close()

    asyncio.run(main())


@both
def test_peer_closes(attach: Attach) -> None:
    async def main() -> None:
        ours, theirs = pair()
        loss = Loss()
        link = await attach(ours, loss)
        theirs.close()
        await asyncio.wait_for(loss.happened.wait(), 10.0)
        assert loss.reasons == ["the peer closed the connection"]
        assert link.stream.is_closed

    asyncio.run(main())


def test_nothing_is_told_after_close() -> None:
    loss = Loss()
    link = Link(Tick(FakeLoop()), None, loss)
    link.close("first")
    link.close("second")
    link.stream.feed(b"+late\r\n")
    assert loss.reasons == ["first"]


def test_failing_reader_costs_its_own_stream(caplog: pytest.LogCaptureFixture) -> None:
    def fail(reply: bytes) -> None:
        raise ValueError("a bug")

    loss = Loss()
    link = Link(Tick(FakeLoop()), None, loss)
    link.take(call(pack([b"GET", b"a"]), fail))
    link.stream.feed(b"+OK\r\n")
    assert loss.reasons == ["internal error"]
    assert "a bug" in caplog.text


def test_memory_of_large_writes_is_given_back() -> None:
    link = Link(Tick(FakeLoop()), None, Loss())
    for _ in range(100):
        link.take(call(pack([b"SET", b"k", b"v" * 10_000]), lambda reply: None))
    assert link.stream.unsent > 1_000_000
    assert len(link.stream.take()) > 1_000_000
    assert link.stream.unsent == 0
