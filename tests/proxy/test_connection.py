"""A client's stream and its session: each tells the other what happens, and lets go in the end."""

from __future__ import annotations

import asyncio
import gc
import os
import socket

import pytest

from rproxy.config import Clients
from rproxy.engine.session import Session
from rproxy.probe import Probe
from rproxy.proxy.connection import ClientStream
from rproxy.wire.frames import pack
from tests.fakes import FakeClient, FakeProxy, bulk, serve

PONG = b"+PONG\r\n"


def test_bytes_reach_the_session_and_replies_the_stream() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.stream.feed(pack([b"GET", b"b"]))
    assert client.stream.session.under_way == 1
    serve(proxy.cluster)
    assert client.stream.take() == bulk(b"of b")


def test_end_of_the_peers_bytes_reaches_the_session() -> None:
    client = FakeProxy().client()
    client.say(b"GET", b"b")
    client.stream.peer_ended()
    assert client.session.is_ending
    assert not client.stream.is_closed


@pytest.mark.parametrize("reason", ["Connection reset by peer", "the peer closed the connection"])
def test_loss_reaches_the_session_once(reason: str) -> None:
    client = FakeProxy().client()
    client.stream.connection_gone(reason)
    client.stream.connection_gone("again")
    client.session.close("ours")
    assert client.reasons == [reason]


def test_nothing_is_kept_of_a_lost_client() -> None:
    client = FakeProxy().client()
    client.say(b"GET", b"b")
    session = client.session
    client.session.close("it left")
    client.stream.feed(pack([b"PING"]))
    assert session.commands_seen == 1
    kept = [found for found in gc.get_referrers(session) if isinstance(found, ClientStream)]
    assert kept == []


def test_written_replies_let_a_choked_session_read_on() -> None:
    """The stream tells when everything is written."""
    client = FakeProxy(Clients(pause_output=100)).client()  # type: ignore[arg-type]
    client.send(pack([b"ECHO", b"x" * 60]) * 4)
    assert not client.stream.is_reading
    heard = client.hear()
    assert len(heard) < 4 * len(bulk(b"x" * 60))
    while more := client.hear():
        heard += more
    assert heard == bulk(b"x" * 60) * 4
    assert client.stream.is_reading


def test_locked_stream_reads_little() -> None:
    proxy = FakeProxy()
    locked = ClientStream(proxy.cluster.tick, proxy.engine.shared, None, True)
    locked.feed(b"*11\r\n")
    assert b"unauthenticated multibulk length" in locked.take()
    assert locked.is_closed


def test_bug_in_a_command_costs_one_client(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenProbe(Probe):
        def client_broke_protocol(self, client: str, trouble: str) -> None:
            raise ValueError("a bug")

    proxy = FakeProxy()
    client, other = proxy.client(), proxy.client()
    monkeypatch.setattr(client.identity, "probe", BrokenProbe())
    client.send(b"*1\r\n$x\r\n")
    assert client.reasons == ["internal error"]
    assert "a bug" in caplog.text
    assert other.ask(b"PING") == PONG


# -- on a socket --


async def attach(proxy: FakeProxy) -> tuple[FakeClient, socket.socket]:
    """A client with a real socket, and the peer's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    client = proxy.client()
    client.stream.attach(asyncio.get_running_loop(), ours.detach())
    return client, theirs


def test_half_close_on_a_socket() -> None:
    async def main() -> None:
        proxy = FakeProxy()
        loop = asyncio.get_running_loop()
        client, theirs = await attach(proxy)
        with theirs:
            theirs.sendall(pack([b"GET", b"b"]) + pack([b"PING"]))
            theirs.shutdown(socket.SHUT_WR)
            for _ in range(5):
                await asyncio.sleep(0)
            assert client.session.is_ending
            assert client.reasons == []
            serve(proxy.cluster)
            proxy.run()
            heard = b""
            while more := await asyncio.wait_for(loop.sock_recv(theirs, 100), 10.0):
                heard += more
            assert heard == bulk(b"of b") + PONG
        assert client.reasons == ["closed"]

    asyncio.run(main())


def test_last_words_arrive_although_bytes_are_left_unread() -> None:
    """Closing over unread bytes would reset the connection, and the error would be lost."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        ours.setblocking(False)
        theirs.setblocking(False)
        proxy = FakeProxy()
        client = proxy.client()
        client.stream.attach(loop, ours.detach())
        with theirs:
            theirs.sendall(b"*1\r\n$x\r\n" + b"y" * 600_000)
            for _ in range(5):
                await asyncio.sleep(0)
                proxy.run()
            heard = await asyncio.wait_for(loop.sock_recv(theirs, 100), 10.0)
            assert heard == b"-ERR Protocol error: invalid bulk length\r\n"
            assert await asyncio.wait_for(loop.sock_recv(theirs, 100), 10.0) == b""
        assert client.reasons == ["closed"]

    asyncio.run(main())


def test_socket_is_closed_with_the_last_reference() -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        client, theirs = await attach(FakeProxy())
        client.session.close("it left")
        theirs.close()
        assert len(os.listdir("/proc/self/fd")) == before
        assert isinstance(client.session, Session)

    asyncio.run(main())
