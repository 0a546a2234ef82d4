"""Session: what a client can make big is bounded, and costs that client alone."""

from __future__ import annotations

import pytest

from rproxy.config import Clients, Secret
from rproxy.wire.frames import pack
from tests.fakes import FakeProxy, array, bulk, serve

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
PONG = b"+PONG\r\n"


def limited(**limits: int) -> FakeProxy:
    return FakeProxy(Clients(**limits))  # type: ignore[arg-type]


def wire(*commands: bytes) -> bytes:
    """Commands, each as its words with spaces between them, as one pipeline."""
    return b"".join(pack(command.split()) for command in commands)


# -- limits --


def test_too_many_under_way_choke_the_client() -> None:
    proxy = limited(max_in_flight=4)
    client = proxy.client()
    client.send(wire(*[b"GET b"] * 10))
    assert len(proxy.cluster.sent(0)) == client.session.under_way == 4
    proxy.cluster.answer(0, b"+1\r\n")
    proxy.run()
    assert proxy.cluster.sent(0) == []
    proxy.cluster.answer(0, b"+2\r\n")
    proxy.run()
    assert len(proxy.cluster.sent(0)) == 2
    proxy.cluster.answer(0, b"+3\r\n+4\r\n+5\r\n+6\r\n")
    proxy.run()
    assert len(proxy.cluster.sent(0)) == 4
    proxy.cluster.answer(0, b"+7\r\n+8\r\n+9\r\n+10\r\n")
    assert client.hear() == b"".join(b"+%d\r\n" % number for number in range(1, 11))


def test_too_much_unsent_chokes_the_client() -> None:
    """What is unsent is written: that alone lets the client be read again."""
    proxy = limited(pause_output=1000)
    client = proxy.client()
    client.send(wire(*[b"ECHO %b" % (b"%03d" % number * 100) for number in range(20)]))
    heard = [client.hear() for _ in range(10)]
    assert b"".join(heard) == b"".join(bulk(b"%03d" % number * 100) for number in range(20))
    assert len(heard[0]) == 4 * len(bulk(b"x" * 300))


def test_client_that_does_not_read_is_dropped_alone() -> None:
    proxy = limited(output_limit=10_000)
    slow, quick = proxy.client(), proxy.client()
    for _ in range(3):
        slow.say(b"GET", b"b")
        quick.say(b"GET", b"b")
        reply = bulk(b"v" * 4000)
        proxy.cluster.answer(0, reply * 2)
        assert quick.hear() == reply
    assert slow.reasons == ["output limit"]
    assert quick.reasons == []
    assert not proxy.cluster.link(0).stream.is_closed


def test_client_is_dropped_before_a_reply_that_it_can_never_take() -> None:
    proxy = limited(output_limit=2_000_000)
    greedy, other = proxy.client(), proxy.client()
    greedy.say(b"GET", b"b")
    other.say(b"GET", b"b")
    size = 50_000_000
    proxy.cluster.answer(0, b"$%d\r\n" % size)
    assert greedy.reasons == ["output limit"]
    for _ in range(50):
        proxy.cluster.answer(0, b"v" * 1_000_000)
        assert proxy.cluster.link(0).stream.is_closed is False
    proxy.cluster.answer(0, b"\r\n+mine\r\n")
    assert other.hear() == b"+mine\r\n"


def test_large_array_of_small_elements_counts_as_well() -> None:
    proxy = limited(output_limit=2_000_000)
    client = proxy.client()
    client.say(b"GET", b"b")
    proxy.cluster.answer(0, b"*5000000\r\n")
    for _ in range(30):
        proxy.cluster.answer(0, b":1234567\r\n" * 10_000)
    assert client.reasons == ["output limit"]


def test_muted_client_may_ask_for_anything() -> None:
    proxy = limited(output_limit=2_000_000)
    client = proxy.client()
    client.send(wire(b"CLIENT REPLY OFF", b"GET b"))
    proxy.cluster.answer(0, bulk(b"v" * 3_000_000))
    assert client.reasons == []
    assert client.hear() == b""


def test_pieces_of_a_split_reply_count() -> None:
    proxy = limited(output_limit=10_000)
    client = proxy.client()
    client.say(b"MGET", b"a", b"b", b"c")
    proxy.cluster.answer(0, array([b"v" * 6000]))
    assert client.reasons == []
    assert "6013 bytes stored" in repr(client.session)
    proxy.cluster.answer(1, array([b"v" * 6000]))
    assert client.reasons == ["output limit"]
    proxy.cluster.answer(2, array([b"v"]))


def test_pieces_of_a_split_reply_are_counted_once() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET a", b"MGET a b c"))
    proxy.cluster.answer(0, array([b"v" * 600]))
    proxy.cluster.answer(1, array([b"v" * 600]))
    proxy.cluster.answer(2, b"+a\r\n" + array([b"v"]))
    assert client.hear() == b"+a\r\n" + array([b"v", b"v" * 600, b"v" * 600])
    assert " 0 bytes stored" in repr(client.session)


# -- limits before authentication --


def test_locked_session() -> None:
    proxy = FakeProxy(Clients(password=Secret("secret")))
    client = proxy.client()
    client.send(wire(b"GET b", b"MGET a b", b"PING"))
    assert client.hear() == b"-NOAUTH Authentication required.\r\n" * 3
    assert client.ask(b"AUTH", b"wrong").startswith(b"-WRONGPASS")
    assert client.ask(b"AUTH", b"secret") == b"+OK\r\n"
    client.send(wire(b"GET b"))
    serve(proxy.cluster)
    assert client.hear() == bulk(b"of b")
    assert client.ask(b"RESET") == b"+RESET\r\n"
    assert client.ask(b"GET", b"b") == b"-NOAUTH Authentication required.\r\n"


@pytest.mark.parametrize(
    ("sent", "trouble"),
    [
        (b"*11\r\n", b"unauthenticated multibulk length"),
        (b"*1\r\n$16385\r\n", b"unauthenticated bulk length"),
    ],
)
def test_small_limits_while_locked(sent: bytes, trouble: bytes) -> None:
    client = FakeProxy(Clients(password=Secret("secret"))).client()
    client.send(sent)
    assert client.hear() == b"-ERR Protocol error: " + trouble + b"\r\n"
    assert client.reasons == ["closed"]
