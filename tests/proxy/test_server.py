"""A worker on real sockets: who gets in, who is told why not, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rproxy.config import Seconds, Secret, UnixPath
from rproxy.proxy import server as server_module
from rproxy.proxy.listen import close_all
from rproxy.proxy.server import readable
from rproxy.wire.frames import pack
from tests.fakes import bulk
from tests.proxy.scenes import Scene, serve

PONG = b"+PONG\r\n"
TOO_MANY = b"-ERR max number of clients reached\r\n"


# -- coming and going --


def test_clients_come_and_go() -> None:
    async def test(scene: Scene) -> None:
        one, two = await scene.call(), await scene.call()
        assert await one.ask("PING") == await two.ask("PING") == PONG
        one.say("SET a 1", "GET a")
        assert await one.hear(15) == b"+OK\r\n" + bulk(b"of a")
        assert scene.notes.accepted == [one.address, two.address]
        assert len(scene.server.clients) == 2
        one.writer.close()
        assert await scene.notes.gone.get() == one.address
        assert two.address in repr(scene.server.clients)
        assert one.address not in repr(scene.server.clients)
        two.say("QUIT")
        assert await two.rest() == b"+OK\r\n"
        assert scene.notes.left == [one.address, two.address]
        assert scene.notes.dropped == []

    serve(test)


def test_reset_connection_is_a_client_that_left() -> None:
    async def test(scene: Scene) -> None:
        caller = await scene.call()
        await caller.ask("PING")
        caller.writer.transport.abort()
        await scene.notes.gone.get()
        assert scene.notes.left == [caller.address]

    serve(test)


def test_client_list_tells_addresses_and_sockets() -> None:
    async def test(scene: Scene) -> None:
        caller = await scene.call()
        host, port = scene.sockets[0].getsockname()
        caller.say("CLIENT INFO", "QUIT")
        line = (await caller.rest()).decode()
        assert f" addr={caller.address} laddr={host}:{port} fd=" in line
        fd = re.search(r" fd=(\d+) ", line)
        assert fd is not None
        assert int(fd[1]) > scene.sockets[0].fileno()

    serve(test)


@pytest.mark.parametrize("serial", [0, 1, 5])
def test_ids_are_unique_among_workers(serial: int) -> None:
    """A worker that replaces another one has a new serial."""

    async def test(scene: Scene) -> None:
        for number in range(1, 4):
            caller = await scene.call()
            assert await caller.ask("CLIENT ID") == b":%d\r\n" % ((serial << 32) + number)
            caller.say("QUIT")
            await caller.rest()

    serve(test, serial=serial)


def test_password_locks() -> None:
    async def test(scene: Scene) -> None:
        caller = await scene.call()
        assert (await caller.ask("GET a")).startswith(b"-NOAUTH")
        assert await caller.ask("AUTH x") == b"+OK\r\n"
        assert await caller.ask("PING") == PONG

    serve(test, password=Secret("x"))


def test_sockets_are_told_to_be_quick_and_to_look_after_the_peer() -> None:
    async def test(scene: Scene) -> None:
        caller = await scene.call()
        await caller.ask("PING")
        (client,) = scene.server.clients
        with socket.socket(fileno=os.dup(client.fd)) as ours:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77

    serve(test, tcp_keepalive=Seconds(77))


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")

    async def test(scene: Scene) -> None:
        caller = await scene.call()
        caller.say("GET a", "CLIENT INFO", "QUIT")
        heard = await caller.rest()
        assert heard.startswith(bulk(b"of a"))
        assert f" addr={path}:0 laddr={path}:0 ".encode() in heard
        assert scene.notes.left == [f"{path}:0"]

    serve(test, UnixPath(path))


@pytest.mark.parametrize(
    ("family", "where", "text"),
    [
        (socket.AF_INET, ("10.0.0.1", 7), "10.0.0.1:7"),
        (socket.AF_INET6, ("::1", 7, 0, 0), "[::1]:7"),
    ],
)
def test_readable(family: int, where: tuple[Any, ...], text: str) -> None:
    with socket.socket(family) as sock:
        assert readable(where, sock) == text


# -- half-closed connections --


def test_half_closed_client_gets_all_its_replies() -> None:
    async def test(scene: Scene) -> None:
        caller = await scene.call()
        caller.say(*[f"GET {number}" for number in range(100)], "PING", "MGET a b")
        caller.writer.write_eof()
        replies = b"".join(bulk(b"of %d" % number) for number in range(100))
        assert (await caller.rest()).startswith(replies + PONG + b"*2\r\n")
        assert scene.notes.left == [caller.address]

    serve(test)


def test_half_closed_client_with_half_a_request() -> None:
    """There is nothing to answer: what never came whole was never asked."""

    async def test(scene: Scene) -> None:
        caller = await scene.call()
        caller.writer.write(pack([b"PING"]) + b"*2\r\n$3\r\nGET\r\n$1\r")
        caller.writer.write_eof()
        assert await caller.rest() == PONG

    serve(test)


# -- limits at the door --


def test_too_many_clients() -> None:
    async def test(scene: Scene) -> None:
        first, second = await scene.call(), await scene.call()
        await first.ask("PING")
        third = await scene.call()
        assert await third.rest() == TOO_MANY
        assert scene.notes.refused == [(third.address, "too many clients")]
        assert await second.ask("PING") == PONG
        first.writer.close()
        await scene.notes.gone.get()
        fourth = await scene.call()
        assert await fourth.ask("PING") == PONG
        assert len(scene.notes.accepted) == 3

    serve(test, max_clients=2)


@contextmanager
def no_more_files() -> Iterator[None]:
    """The process may open no further file, and nothing that ends meanwhile closes one."""
    gc.collect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_wait_while_there_are_no_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are in are served meanwhile, and the loop does not spin."""
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 0.05)

    async def test(scene: Scene) -> None:
        inside = await scene.call()
        assert await inside.ask("PING") == PONG
        await scene.node.hears(b"COMMAND")  # rproxy learns what it wants to know at its start ...
        await scene.server.cluster.mapped.wait()
        await scene.node.deserted.wait()  # ... and has hung up
        visitor = socket.socket()
        with visitor:
            with no_more_files():
                visitor.connect(scene.sockets[0].getsockname())
                assert await scene.notes.failures.get() == "[Errno 24] Too many open files"
                assert await inside.ask("PING") == PONG
                assert scene.notes.failures.empty()
                assert await scene.notes.failures.get() == "[Errno 24] Too many open files"
            await asyncio.get_running_loop().sock_sendall(visitor, pack([b"PING"]))
            visitor.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(visitor, 100) == PONG
        assert len(scene.notes.accepted) == 2

    serve(test)


def test_draining_while_accepting_pauses() -> None:
    async def test(scene: Scene) -> None:
        with socket.socket() as visitor:
            with no_more_files():
                visitor.connect(scene.sockets[0].getsockname())
                await scene.notes.failures.get()
                scene.server.stop_accepting()
            await asyncio.sleep(0)
        assert scene.notes.accepted == []

    serve(test)


def test_idle_clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one who waits for its reply."""
    monkeypatch.setattr(server_module, "ROUND", 0.01)

    async def test(scene: Scene) -> None:
        scene.node.answers[b"GET"] = None
        idle, waiting = await scene.call(), await scene.call()
        waiting.say("PING", "GET a")
        assert await waiting.hear(7) == PONG
        assert await idle.ask("PING") == PONG
        assert await idle.rest() == b""
        assert scene.notes.dropped == [(idle.address, "idle")]
        assert len(scene.server.clients) == 1

    serve(test, idle_timeout=Seconds(0.05))


# -- the end --


def test_drain_answers_what_is_under_way_and_lets_nobody_in() -> None:
    async def test(scene: Scene) -> None:
        scene.node.answers[b"GET"] = None
        where = scene.sockets[0].getsockname()
        idle, busy = await scene.call(), await scene.call()
        assert await idle.ask("PING") == PONG
        busy.say("PING", "GET a", "PING")
        assert await busy.hear(7) == PONG
        await scene.node.hears(b"GET")
        drained = asyncio.ensure_future(scene.server.drain())
        assert await idle.rest() == b""
        with socket.socket() as late:
            assert late.connect_ex(where) != 0
        assert not drained.done()
        scene.node.connections[-1].write(bulk(b"at last"))
        assert await busy.rest() == bulk(b"at last") + PONG
        await drained
        assert await scene.server.close() == 0

    serve(test)


def test_drain_has_a_deadline() -> None:
    async def test(scene: Scene) -> None:
        scene.node.answers[b"GET"] = None
        busy = await scene.call()
        busy.say("PING", "GET a")
        assert await busy.hear(7) == PONG
        await scene.server.drain()
        assert len(scene.server.clients) == 1
        assert await scene.server.close() == 1
        assert await busy.rest() == b""
        assert scene.notes.dropped == [(busy.address, "rproxy stops")]

    serve(test, drain=0.05)


def test_drain_without_clients_takes_no_time() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.wait_for(scene.server.drain(), 5.0)

    serve(test, drain=60.0)


def test_clients_that_wait_at_the_door_are_served_before_it_shuts() -> None:
    async def test(scene: Scene) -> None:
        with socket.create_connection(scene.sockets[0].getsockname()) as visitor:
            visitor.sendall(pack([b"PING"]))
            scene.server.stop_accepting()
            assert len(scene.notes.accepted) == 1
            visitor.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(visitor, 100) == PONG

    serve(test)


def test_listeners_are_closed_in_the_end() -> None:
    async def test(scene: Scene) -> None:
        where = scene.sockets[0].getsockname()
        scene.server.stop_accepting()
        with socket.socket() as late:
            assert late.connect_ex(where) != 0
        close_all([scene.sockets])

    serve(test)
