"""Session: every client gets exactly its replies, in its order, within its limits.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import gc
import itertools

import pytest

from rproxy.config import Clients, Upstream
from rproxy.engine.session import Session
from rproxy.wire.frames import pack
from tests.fakes import FakeClient, FakeProxy, array, bulk, node_reply, serve

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
PONG = b"+PONG\r\n"


def limited(**limits: int) -> FakeProxy:
    return FakeProxy(Clients(**limits))  # type: ignore[arg-type]


def wire(*commands: bytes) -> bytes:
    """Commands, each as its words with spaces between them, as one pipeline."""
    return b"".join(pack(command.split()) for command in commands)


def test_straight_path() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"GET", b"b")
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]
    assert client.hear() == b""
    proxy.cluster.answer(0, b"$1\r\nx\r\n")
    assert client.hear() == b"$1\r\nx\r\n"
    assert client.session.under_way == proxy.cluster.tick.under_way == 0


SCENARIOS: dict[str, tuple[bytes, bytes]] = {
    "one": (wire(b"GET b"), bulk(b"of b")),
    "three nodes": (
        wire(b"GET b", b"GET c", b"GET a"),
        bulk(b"of b") + bulk(b"of c") + bulk(b"of a"),
    ),
    "local between": (wire(b"GET a", b"PING", b"GET b"), bulk(b"of a") + PONG + bulk(b"of b")),
    "split between": (
        wire(b"GET a", b"MGET a b c b", b"GET b"),
        bulk(b"of a") + array([b"of a", b"of b", b"of c", b"of b"]) + bulk(b"of b"),
    ),
    "split sums": (wire(b"DEL a b c", b"EXISTS a a b"), b":3\r\n:3\r\n"),
    "split statuses": (wire(b"MSET a 1 b 2 c 3", b"GET a"), b"+OK\r\n" + bulk(b"of a")),
    "errors between": (
        wire(b"GET a", b"GET", b"RENAME a b", b"LPOP b", b"GET c"),
        bulk(b"of a")
        + b"-ERR wrong number of arguments for 'get' command\r\n"
        + CROSS_SLOT
        + b"-WRONGTYPE not a list: b\r\n"
        + bulk(b"of c"),
    ),
    "inline and empty": (b"\r\nGET b\r\n*0\r\n*-1\r\nPING\r\n", bulk(b"of b") + PONG),
    "any case": (wire(b"gEt b", b"pinG"), bulk(b"of b") + PONG),
    "protocol error": (
        wire(b"GET a", b"PING") + b"*1\r\n$-5\r\n" + wire(b"PING"),
        bulk(b"of a") + PONG + b"-ERR Protocol error: invalid bulk length\r\n",
    ),
    "quit": (wire(b"GET a", b"QUIT", b"PING"), bulk(b"of a") + b"+OK\r\n"),
    "muted": (wire(b"GET a", b"CLIENT REPLY OFF", b"GET b", b"PING"), bulk(b"of a")),
    "muted for a while": (
        wire(b"CLIENT REPLY OFF", b"GET b", b"MGET a b", b"CLIENT REPLY ON", b"GET c"),
        b"+OK\r\n" + bulk(b"of c"),
    ),
    "skipped": (
        wire(b"CLIENT REPLY SKIP", b"GET b", b"GET c", b"CLIENT REPLY SKIP", b"PING", b"PING"),
        bulk(b"of c") + PONG,
    ),
    "skipped while muted": (
        wire(b"CLIENT REPLY OFF", b"CLIENT REPLY SKIP", b"GET a", b"GET b", b"CLIENT REPLY ON"),
        b"+OK\r\n",
    ),
    "reset": (wire(b"GET a", b"RESET", b"GET b"), bulk(b"of a") + b"+RESET\r\n" + bulk(b"of b")),
    "http": (wire(b"GET a") + b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", bulk(b"of a")),
}


def settle(proxy: FakeProxy, client: FakeClient, order: tuple[int, ...] = (2, 0, 1)) -> bytes:
    """Let the nodes answer until nothing is under way; what the client hears."""
    heard = client.hear()
    while client.session.under_way:
        serve(proxy.cluster, order)
        heard += client.hear()
        proxy.run()
        heard += client.hear()
    return heard


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_in_any_order_of_replies(name: str) -> None:
    sent, expected = SCENARIOS[name]
    proxy = FakeProxy()
    for order in itertools.permutations(range(3)):
        client = proxy.client()
        client.send(sent)
        assert settle(proxy, client, order) == expected
        assert not client.reasons or client.reasons == ["closed"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_split_at_every_byte(name: str) -> None:
    sent, expected = SCENARIOS[name]
    proxy = FakeProxy()
    for at in range(1, len(sent)):
        client = proxy.client()
        client.send(sent[:at])
        client.send(sent[at:])
        assert settle(proxy, client) == expected


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_byte_by_byte_with_answers_between(name: str) -> None:
    sent, expected = SCENARIOS[name]
    proxy = FakeProxy()
    client = proxy.client()
    heard = b""
    for at in range(len(sent)):
        client.send(sent[at : at + 1])
        serve(proxy.cluster)
        heard += client.hear()
    assert heard + settle(proxy, client) == expected


def test_client_is_told_nothing_before_its_turn() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET a", b"GET b", b"PING"))
    proxy.cluster.answer(0, b"+b\r\n")
    assert client.hear() == b""
    assert "2 bytes" not in repr(client.session)
    assert "11 bytes stored" in repr(client.session)
    proxy.cluster.answer(2, b"+a\r\n")
    assert client.hear() == b"+a\r\n+b\r\n+PONG\r\n"
    assert "0 under way, 0 bytes stored" in repr(client.session)


def test_each_client_gets_its_own() -> None:
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(5)]
    for number, client in enumerate(clients):
        client.send(wire(b"APPEND b %b" % (b"x" * number), b"GET a"))
    serve(proxy.cluster, (2, 1, 0))
    for number, client in enumerate(clients):
        if number:
            assert client.hear() == b":%d\r\n" % number + bulk(b"of a")


# -- large things --


def test_large_requests_and_replies() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    value = bytes(range(256)) * 4000
    sent = pack([b"SET", b"b", value]) + pack([b"GET", b"a"])
    for at in range(0, len(sent), 70_001):
        client.send(sent[at : at + 70_001])
    assert proxy.cluster.sent(0) == [[b"SET", b"b", value]]
    proxy.cluster.answer(2, bulk(value) + b"")
    proxy.cluster.answer(0, b"+OK\r\n")
    assert client.hear() == b"+OK\r\n" + bulk(value)


# -- clients that leave --


def test_client_that_leaves_becomes_ghosts() -> None:
    proxy = FakeProxy()
    gone, there = proxy.client(), proxy.client()
    for number in range(3):
        gone.say(b"GET", b"b")
        there.send(wire(b"APPEND b %b" % (b"x" * (number + 1))))
    gone.session.close("it left")
    assert gone.reasons == ["it left"]
    assert len(proxy.cluster.link(0)) == 6
    serve(proxy.cluster)
    assert there.hear() == b":1\r\n:2\r\n:3\r\n"
    assert gone.stream.unsent == 0
    assert len(proxy.cluster.link(0)) == proxy.cluster.tick.under_way == 0


def test_client_that_leaves_in_the_middle_of_its_reply() -> None:
    reply = bulk(b"gone" * 10) + bulk(b"mine")
    proxy = FakeProxy()
    for at in range(1, len(reply)):
        gone, there = proxy.client(), proxy.client()
        gone.say(b"GET", b"b")
        there.say(b"GET", b"b")
        proxy.cluster.answer(0, reply[:at])
        gone.session.close("it left")
        proxy.cluster.answer(0, reply[at:])
        assert there.hear() == bulk(b"mine")


def sessions() -> int:
    gc.collect()
    return sum(isinstance(found, Session) for found in gc.get_objects())


def test_client_that_leaves_is_freed() -> None:
    before = sessions()
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b", b"MGET a b c", b"PING"))
    client.session.close("it left")
    serve(proxy.cluster)
    del client
    assert sessions() == before


# -- the end --


def test_end_waits_for_replies() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b", b"GET a"))
    client.session.end()
    assert client.session.is_ending
    client.send(wire(b"GET c"))
    assert proxy.cluster.sent(1) == []
    serve(proxy.cluster, (2, 0))
    assert client.reasons == []
    assert client.hear() == bulk(b"of b") + bulk(b"of a")
    assert client.reasons == ["closed"]


def test_end_with_nothing_under_way_closes_at_once() -> None:
    client = FakeProxy().client()
    client.session.end()
    assert client.reasons == ["closed"]
    client.session.end()
    client.session.close("again")
    client.stream.peer_ended()
    assert client.reasons == ["closed"]


def test_half_close_is_answered() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b", b"PING", b"GET a"))
    client.stream.peer_ended()
    serve(proxy.cluster, (2, 0))
    assert client.hear() == bulk(b"of b") + PONG + bulk(b"of a")
    assert client.reasons == ["closed"]


def test_half_close_of_a_choked_client_is_answered() -> None:
    proxy = limited(max_in_flight=2)
    client = proxy.client()
    client.send(wire(*[b"GET b"] * 5))
    client.stream.peer_ended()
    heard = b""
    for _ in range(5):
        serve(proxy.cluster)
        heard += client.hear()
    assert heard == bulk(b"of b") * 5
    assert client.reasons == ["closed"]


def test_end_of_a_choked_client_reads_no_more() -> None:
    """What it has sent meanwhile stays unread; what was under way is answered."""
    proxy = limited(max_in_flight=2)
    client = proxy.client()
    client.send(wire(*[b"GET b"] * 5))
    client.session.end()
    serve(proxy.cluster)
    assert client.hear() == bulk(b"of b") * 2
    assert client.reasons == ["closed"]


# -- held sessions --


def test_hold_waits_for_idleness() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    called: list[int] = []
    client.send(wire(b"GET b"))
    client.session.hold(lambda session: called.append(session.under_way))
    client.send(wire(b"GET a"))
    assert client.session.is_held
    assert proxy.cluster.sent(2) == []
    assert called == []
    serve(proxy.cluster)
    proxy.run()
    assert called == [0]
    assert proxy.cluster.sent(2) == []
    client.session.release()
    proxy.run()
    assert proxy.cluster.sent(2) == [[b"GET", b"a"]]


def test_hold_of_an_idle_session_calls_soon() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    called: list[int] = []
    client.session.hold(lambda session: called.append(session.under_way))
    assert called == []
    proxy.run()
    assert called == [0]


def test_end_waits_for_who_holds() -> None:
    """A request that holds the rest is under way, too."""
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b", b"HELLO 3", b"PING"))
    client.session.end()
    serve(proxy.cluster)
    heard = client.hear()
    assert heard.startswith(bulk(b"of b") + b"%7\r\n")
    assert PONG not in heard
    assert client.reasons == ["closed"]


def test_end_waits_for_release() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.session.hold()
    client.session.end()
    assert client.reasons == []
    client.session.answer(b"+late\r\n")
    client.session.release()
    assert client.hear() == b"+late\r\n"
    assert client.reasons == ["closed"]


# -- protocol versions --


def test_versions_have_links_of_their_own() -> None:
    """The replies to earlier commands come from the RESP2 link, before HELLO's."""
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b", b"HELLO 3", b"GET b"))
    assert proxy.cluster.sent(0, 3) == []
    proxy.cluster.answer(0, b"$-1\r\n")
    assert client.hear().startswith(b"$-1\r\n%7\r\n")
    assert proxy.cluster.sent(0, 3) == [[b"GET", b"b"]]
    proxy.cluster.answer(0, b"_\r\n", 3)
    assert client.hear() == b"_\r\n"
    assert client.session.protocol == 3


def test_late_commands_are_answered_and_become_ghosts() -> None:
    proxy = FakeProxy(upstream=Upstream(command_timeout=30.0))  # type: ignore[arg-type]
    client = proxy.client()
    client.send(wire(b"GET b", b"GET b"))
    link = proxy.cluster.link(0)
    assert link.expire(proxy.cluster.tick.time + 29.0) == 0
    assert link.expire(proxy.cluster.tick.time + 31.0) == 2
    late = b"-ERR no reply within upstream.command_timeout; the command was not executed\r\n"
    assert client.hear() == late * 2
    client.send(wire(b"GET b"))
    proxy.cluster.answer(0, b"+1\r\n+2\r\n+3\r\n")
    assert client.hear() == b"+3\r\n"


def test_node_replies_tell_commands_apart() -> None:
    assert node_reply([b"get", b"k"]) == bulk(b"of k")
