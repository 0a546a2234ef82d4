"""Commands that rproxy answers itself say what Redis 7.0 says, to the byte, in RESP2 and RESP3."""

from __future__ import annotations

import time

import pytest

from rproxy.config import Clients, Secret
from rproxy.engine.numbers import integer
from rproxy.routing.slots import slot_of
from tests.fakes import FakeClient, FakeProxy, bulk, serve

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NEEDS_AUTH = b"-NOAUTH Authentication required.\r\n"
HELLO_NEEDS_AUTH = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
    b"<user> <pass> option can be used to authenticate the client and select the RESP protocol "
    b"version at the same time\r\n"
)
NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"
NOT_A_VERSION = b"-ERR Protocol version is not an integer or out of range\r\n"
NO_SUCH_VERSION = b"-NOPROTO unsupported protocol version\r\n"
NO_CLUSTER = b"-ERR This instance has cluster support disabled\r\n"
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"


def arity(name: str) -> bytes:
    return f"-ERR wrong number of arguments for '{name}' command\r\n".encode()


def greeting(version: int, number: int = 1) -> bytes:
    """HELLO's reply."""
    head = b"%7\r\n" if version == 3 else b"*14\r\n"
    fields = [
        bulk(b"server") + bulk(b"redis"),
        bulk(b"version") + bulk(b"7.0.0"),
        bulk(b"proto") + b":%d\r\n" % version,
        bulk(b"id") + b":%d\r\n" % number,
        bulk(b"mode") + bulk(b"standalone"),
        bulk(b"role") + bulk(b"master"),
        bulk(b"modules") + b"*0\r\n",
    ]
    return head + b"".join(fields)


def secured() -> FakeClient:
    """A client that has to authenticate."""
    return FakeProxy(Clients(password=Secret("secret"))).client()


EXACT: list[tuple[str, bytes]] = [
    ("PING", PONG),
    ("PING x", bulk(b"x")),
    ("PING x y", arity("ping")),
    ("ECHO x", bulk(b"x")),
    ("ECHO", arity("echo")),
    ("ECHO x y", arity("echo")),
    ("TIME x", arity("time")),
    ("SELECT 0", OK),
    ("SELECT 1", b"-ERR SELECT is not allowed in cluster mode\r\n"),
    ("SELECT -1", b"-ERR SELECT is not allowed in cluster mode\r\n"),
    ("SELECT x", NOT_AN_INTEGER),
    ("SELECT 00", NOT_AN_INTEGER),
    ("SELECT +1", NOT_AN_INTEGER),
    ("SELECT 1_0", NOT_AN_INTEGER),
    ("SELECT " + "9" * 5000, NOT_AN_INTEGER),
    ("SELECT", arity("select")),
    ("READONLY", OK),
    ("READWRITE", OK),
    ("ASKING", OK),
    ("CLUSTER KEYSLOT foo", b":12182\r\n"),
    ("CLUSTER KEYSLOT {foo}x", b":12182\r\n"),
    ("CLUSTER INFO", NO_CLUSTER),
    ("CLUSTER NODES", NO_CLUSTER),
    ("CLUSTER", arity("cluster")),
    (
        "AUTH x",
        b"-ERR AUTH <password> called without any password configured for the default user. "
        b"Are you sure your configuration is correct?\r\n",
    ),
    ("AUTH default anything", OK),
    ("AUTH somebody x", WRONG_PASSWORD),
    ("AUTH a b c", b"-ERR syntax error\r\n"),
    ("AUTH", arity("auth")),
    ("HELLO 1", NO_SUCH_VERSION),
    ("HELLO 4", NO_SUCH_VERSION),
    ("HELLO -1", NO_SUCH_VERSION),
    ("HELLO x", NOT_A_VERSION),
    ("HELLO 03", NOT_A_VERSION),
    ("HELLO " + "9" * 5000, NOT_A_VERSION),
    ("HELLO 2 FOO", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
    ("HELLO 2 AUTH x", b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
    ("HELLO 2 SETNAME", b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
    ("HELLO 2 SETNAME a\tb", BAD_NAME),
    ("HELLO 2 AUTH u p", WRONG_PASSWORD),
    ("HELLO 2 AUTH x y SETNAME a\tb", WRONG_PASSWORD),
    ("HELLO", greeting(2)),
    ("HELLO 2", greeting(2)),
    ("HELLO 3", greeting(3)),
    ("hello 3 setname me auth default any", greeting(3)),
    ("RESET", b"+RESET\r\n"),
    ("RESET x", arity("reset")),
    ("QUIT", OK),
    ("QUIT x", OK),
]


@pytest.mark.parametrize(("command", "expected"), EXACT, ids=lambda part: str(part)[:30])
def test_reply(command: str, expected: bytes) -> None:
    client = FakeProxy().client()
    assert client.ask(*command.encode().split(b" ")) == expected
    assert client.reasons == (["closed"] if command.startswith("QUIT") else [])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("GET", arity("get")),
        ("GET a", NEEDS_AUTH),
        ("PING", NEEDS_AUTH),
        ("NONSENSE", NEEDS_AUTH),
        ("CLIENT ID", NEEDS_AUTH),
        ("MULTI", NEEDS_AUTH),
        ("HELLO", HELLO_NEEDS_AUTH),
        ("HELLO 3", HELLO_NEEDS_AUTH),
        ("HELLO 2 SETNAME x", HELLO_NEEDS_AUTH),
        ("HELLO 2 FOO", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
        ("HELLO 9", NO_SUCH_VERSION),
        ("HELLO 3 AUTH default bad", WRONG_PASSWORD),
        ("HELLO 3 AUTH default secret", greeting(3)),
        ("AUTH bad", WRONG_PASSWORD),
        ("AUTH secret", OK),
        ("AUTH default secret", OK),
        ("AUTH other secret", WRONG_PASSWORD),
        ("AUTH a b c", b"-ERR syntax error\r\n"),
        ("RESET", b"+RESET\r\n"),
        ("QUIT", OK),
    ],
)
def test_reply_before_authentication(command: str, expected: bytes) -> None:
    assert secured().ask(*command.encode().split(b" ")) == expected


def test_wrong_password_changes_nothing() -> None:
    client = secured()
    assert client.ask(b"AUTH", b"secret") == OK
    assert client.ask(b"AUTH", b"bad") == WRONG_PASSWORD
    assert client.ask(b"HELLO", b"3", b"AUTH", b"default", b"bad") == WRONG_PASSWORD
    assert client.ask(b"PING") == PONG
    assert client.session.protocol == 2


def test_hello_logs_in_before_it_looks_at_the_name() -> None:
    client = secured()
    assert (
        client.ask(b"HELLO", b"3", b"AUTH", b"default", b"secret", b"SETNAME", b"a b") == BAD_NAME
    )
    assert client.ask(b"PING") == PONG
    assert client.session.protocol == 2


def test_hello_without_a_version_changes_none() -> None:
    client = FakeProxy().client()
    client.ask(b"HELLO", b"3")
    assert client.ask(b"HELLO") == greeting(3)
    assert client.ask(b"HELLO", b"2") == greeting(2)


def test_hello_gives_a_name() -> None:
    client = FakeProxy().client()
    assert client.ask(b"CLIENT", b"GETNAME") == b"$-1\r\n"
    client.ask(b"HELLO", b"3", b"SETNAME", b"me")
    assert client.ask(b"CLIENT", b"GETNAME") == bulk(b"me")
    client.ask(b"HELLO", b"3", b"SETNAME", b"")
    assert client.ask(b"CLIENT", b"GETNAME") == b"_\r\n"


def test_reset_makes_a_new_connection_of_it() -> None:
    client = secured()
    client.ask(b"HELLO", b"3", b"AUTH", b"default", b"secret", b"SETNAME", b"me")
    client.ask(b"CLIENT", b"NO-EVICT", b"on")
    assert client.ask(b"CLIENT", b"REPLY", b"OFF") == b""
    assert client.ask(b"RESET") == b"+RESET\r\n"
    assert client.ask(b"PING") == NEEDS_AUTH
    assert client.ask(b"AUTH", b"secret") == OK
    assert client.session.protocol == 2
    assert client.ask(b"CLIENT", b"GETNAME") == b"$-1\r\n"
    assert client.identity.flags == "N"


def test_time() -> None:
    head, _, seconds, _, micros, end = FakeProxy().client().ask(b"TIME").split(b"\r\n")
    assert (head, end) == (b"*2", b"")
    assert abs(int(seconds) - time.time()) < 5
    assert 0 <= int(micros) < 1_000_000


def test_keyslot_agrees_with_the_slot_function() -> None:
    client = FakeProxy().client()
    for key in (b"", b"{}", b"foo{}{bar}", b"\0\r\n\xff"):
        assert client.ask(b"CLUSTER", b"KEYSLOT", key) == b":%d\r\n" % slot_of(key)


def test_quit_answers_what_was_asked_before() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"GET", b"b")
    client.say(b"QUIT")
    client.say(b"PING")
    serve(proxy.cluster)
    assert client.hear() == bulk(b"of b") + OK
    assert client.reasons == ["closed"]


@pytest.mark.parametrize(
    ("word", "number"),
    [
        (b"0", 0),
        (b"-1", -1),
        (b"42", 42),
        (b"9223372036854775807", (1 << 63) - 1),
        (b"-9223372036854775808", -(1 << 63)),
        (b"9223372036854775808", None),
        (b"-0", None),
        (b"", None),
        (b"+1", None),
        (b"01", None),
        (b" 1", None),
        (b"1\n", None),
        (b"1" * 5000, None),
    ],
)
def test_integer(word: bytes, number: int | None) -> None:
    assert integer(word) == number
