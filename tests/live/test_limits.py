"""Who may connect, and how much of rproxy one client may take: that client alone is stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from rproxy.errors import AUTH_NEEDED, HELLO_NEEDS_AUTH, MAX_CLIENTS, WRONG_PASSWORD
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.live.proxies import Proxy, Wire, resident, running

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""
PASSWORD, WRONG = "open sesame", "open barley"
MIB = 1 << 20


def ends(wire: Wire) -> bytes:
    """What the connection still brings before it is closed, in whatever way."""
    rest = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := wire.socket.recv(1 << 16):
            rest += chunk
    return rest


# -- the password --


@pytest.fixture(scope="module", params=["file", "environment"])
def locked(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A proxy that asks for a password; afterwards its log must not have it, nor a wrong one."""
    config, environment = f'clients.password = "{PASSWORD}"', {"RPROXY_PASSWORD": PASSWORD}
    given = {"config": config} if request.param == "file" else environment
    with running(cluster, "--log-level", "debug", **given) as proxy:
        yield proxy
        assert "gave a wrong password" in proxy.text()
        assert PASSWORD not in proxy.text()
        assert WRONG not in proxy.text()


def test_nothing_is_served_without_the_password(locked: Proxy) -> None:
    with locked.connect() as wire:
        for words in ([b"PING"], [b"GET", b"a"], [b"NoSuch", b"a"], [b"MGET", b"a", b"b"]):
            assert wire.ask(*words) == AUTH_NEEDED
        assert wire.ask(b"HELLO", b"3") == HELLO_NEEDS_AUTH
        assert wire.ask(b"AUTH", WRONG.encode()) == WRONG_PASSWORD
        assert wire.ask(b"AUTH", b"root", PASSWORD.encode()) == WRONG_PASSWORD
        assert wire.ask(b"HELLO", b"3", b"AUTH", b"default", WRONG.encode()) == WRONG_PASSWORD
        assert wire.ask(b"GET", b"a") == AUTH_NEEDED
        assert wire.ask(b"QUIT") == b"+OK\r\n"
        assert wire.rest() == b""


@pytest.mark.parametrize("user", [(), (b"default",)], ids=["no user", "user"])
def test_the_password_opens(locked: Proxy, user: tuple[bytes, ...]) -> None:
    with locked.connect() as wire:
        words = (b"AUTH", *user, PASSWORD.encode())
        wire.raw(pack([b"GET", b"none"]) + pack([*words]) + pack([b"GET", b"none"]))
        assert wire.replies(3) == [AUTH_NEEDED, b"+OK\r\n", b"$-1\r\n"]
        assert wire.ask(b"RESET") == b"+RESET\r\n"
        assert wire.ask(b"GET", b"none") == AUTH_NEEDED


def test_hello_with_the_password_opens(locked: Proxy) -> None:
    with locked.connect() as wire:
        greeting = wire.ask(b"HELLO", b"3", b"AUTH", b"default", PASSWORD.encode())
        assert greeting.startswith(b"%7\r\n")
        assert wire.ask(b"GET", b"none") == b"_\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_librarys_login(locked: Proxy, protocol: int) -> None:
    assert locked.client(protocol, password=PASSWORD).set("locked", "1")
    with pytest.raises(redis.AuthenticationError):
        locked.client(protocol, password=WRONG, retry=Retry(NoBackoff(), 0)).ping()


@pytest.mark.parametrize(
    ("request_start", "trouble"),
    [
        (b"*11\r\n", b"unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"unauthenticated bulk length"),
    ],
)
def test_strangers_send_little(locked: Proxy, request_start: bytes, trouble: bytes) -> None:
    with locked.connect() as wire:
        wire.raw(request_start)
        assert wire.rest() == b"-ERR Protocol error: %b\r\n" % trouble


# -- limits --


def test_too_many_clients(cluster: LocalCluster) -> None:
    with (
        running(cluster, config="clients.max_clients = 3") as proxy,
        proxy.connect() as first,
        proxy.connect() as second,
    ):

        def are(count: int) -> bool:
            return first.ask(b"CLIENT", b"LIST").count(b"laddr=") == count

        # One more was there for a moment: whoever looked whether rproxy listens.
        wait_until(lambda: are(2), PATIENCE, "the leave of others")
        third = proxy.connect()
        assert third.ask(b"PING") == b"+PONG\r\n"
        with proxy.connect() as refused:
            assert ends(refused) == MAX_CLIENTS
        assert second.ask(b"PING") == b"+PONG\r\n"
        assert "refused: too many clients" in proxy.text()
        third.close()
        wait_until(lambda: are(2), PATIENCE, "the leave of the third")
        with proxy.connect() as fourth:
            assert fourth.ask(b"PING") == b"+PONG\r\n"


def test_idle_clients_are_closed(cluster: LocalCluster) -> None:
    with (
        running(cluster, config='clients.idle_timeout = "1s"') as proxy,
        proxy.connect() as idle,
        proxy.connect() as busy,
    ):
        assert idle.ask(b"PING") == b"+PONG\r\n"
        idle.socket.setblocking(False)

        def is_closed() -> bool:
            assert busy.ask(b"PING") == b"+PONG\r\n"
            with contextlib.suppress(BlockingIOError):
                return idle.socket.recv(1) == b""
            return False

        wait_until(is_closed, PATIENCE, "the end of the idle client")
        assert busy.ask(b"PING") == b"+PONG\r\n"


@pytest.fixture(scope="module")
def small(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy whose clients may have little."""
    limits = '[clients]\noutput_limit = "8mb"\nmax_in_flight = 8\n'
    with running(cluster, config=limits) as proxy:
        yield proxy


def test_reply_over_the_limit_drops_that_client(cluster: LocalCluster, small: Proxy) -> None:
    """100 MB for one who may have 8: nobody else notices, and the memory is not taken."""
    owner = cluster.slot_owner(slot_of(b"huge"))
    owner.call("SETRANGE", "huge", 100_000_000, "x", timeout=PATIENCE)
    before = resident(small.process.pid)
    try:
        with small.connect() as greedy, small.connect() as other:
            greedy.raw(pack([b"GET", b"huge"]))
            for _ in range(200):
                assert other.ask(b"PING") == b"+PONG\r\n"
                assert other.ask(b"STRLEN", b"huge") == b":100000001\r\n"
            assert not ends(greedy).startswith(b"$")
            assert resident(small.process.pid) - before < 32 * MIB
        wait_until(lambda: "dropped: output limit" in small.text(), PATIENCE, "a word in the log")
    finally:
        owner.call("DEL", "huge")


def test_unread_replies_over_the_limit_drop_that_client(small: Proxy) -> None:
    """Each reply is small enough; all of them, unread, are not."""
    small.client().set("piece", b"x" * (3 * MIB))
    with small.connect() as lazy, small.connect() as other:
        assert lazy.ask(b"CLIENT", b"SETNAME", b"lazy") == b"+OK\r\n"
        lazy.raw(pack([b"GET", b"piece"]) * 8)
        wait_until(
            lambda: b" name=lazy " not in other.ask(b"CLIENT", b"LIST"),
            PATIENCE,
            "the end of the lazy client",
        )
        assert other.ask(b"STRLEN", b"piece") == b":3145728\r\n"
    small.client().delete("piece")


def test_long_pipeline_is_read_in_portions(cluster: LocalCluster, small: Proxy) -> None:
    """While a node does not answer, no more than max_in_flight commands of a client are read."""
    owner = cluster.slot_owner(slot_of(b"portion"))
    client = small.client()
    client.delete("portion")
    with small.connect() as wire:
        name = b"portions"
        assert wire.ask(b"CLIENT", b"SETNAME", name) == b"+OK\r\n"

        def under_way() -> int:
            (entry,) = [e for e in client.client_list() if e["name"] == name.decode()]
            return int(entry["oll"])

        owner.freeze()
        try:
            wire.raw(pack([b"INCR", b"portion"]) * 1000)
            wait_until(lambda: under_way() == 8, PATIENCE, "a full house")
            assert under_way() == 8
        finally:
            owner.thaw()
        assert wire.replies(1000) == [b":%d\r\n" % number for number in range(1, 1001)]
    client.delete("portion")


def test_memory_comes_back_after_a_burst(cluster: LocalCluster) -> None:
    """200 clients with replies of 1 MB each, and pipelines; then silence."""
    with running(cluster) as proxy:
        client = proxy.client()
        client.set("burst", b"x" * MIB)
        before = resident(proxy.process.pid)
        wires = [proxy.connect() for _ in range(200)]
        for wire in wires:
            wire.raw(pack([b"GET", b"burst"]) + pack([b"GET", b"none"]) * 500)
        size = len(b"$%d\r\n" % MIB) + MIB + 2
        for wire in wires:
            assert len(wire.reply()) == size
            assert wire.replies(500) == [b"$-1\r\n"] * 500
        at_most = before + 40 * MIB
        wait_until(lambda: resident(proxy.process.pid) < at_most, PATIENCE, "the memory")
        for wire in wires:
            wire.close()
        client.delete("burst")
