"""CLIENT and its subcommands say what Redis 7.0 says, to the byte; what is newer, what 7.4 says."""

from __future__ import annotations

import pytest

from rproxy.config import Clients, Secret
from rproxy.wire.frames import pack
from tests.fakes import FakeClient, FakeProxy, bulk, serve

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
SYNTAX = b"-ERR syntax error\r\n"
NONE_SUCH = b"-ERR No such client\r\n"
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
BAD_ID = b"-ERR client-id should be greater than 0\r\n"
BAD_LIST_ID = b"-ERR Invalid client ID\r\n"
BAD_TYPE = b"-ERR Unknown client type 'foo'\r\n"
NOBODY = b":0\r\n"
EMPTY = bulk(b"")


def arity(name: str) -> bytes:
    return f"-ERR wrong number of arguments for '{name}' command\r\n".encode()


def wire(*commands: bytes) -> bytes:
    """Commands, each as its words with spaces between them, as one pipeline."""
    return b"".join(pack(command.split()) for command in commands)


EXACT: list[tuple[str, bytes]] = [
    ("CLIENT", arity("client")),
    ("CLIENT FOO", b"-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
    ("CLIENT ID", b":1\r\n"),
    ("client iD", b":1\r\n"),
    ("CLIENT ID x", arity("client|id")),
    ("CLIENT GETNAME", b"$-1\r\n"),
    ("CLIENT GETNAME x", arity("client|getname")),
    ("CLIENT SETNAME", arity("client|setname")),
    ("CLIENT SETNAME a b", arity("client|setname")),
    ("CLIENT SETNAME abc", OK),
    ("CLIENT SETNAME a\tb", BAD_NAME),
    ("CLIENT SETNAME \x7f", BAD_NAME),
    ("CLIENT SETNAME \u00e9", BAD_NAME),
    ("CLIENT SETINFO", arity("client|setinfo")),
    ("CLIENT SETINFO lib-name", arity("client|setinfo")),
    ("CLIENT SETINFO lib-name x y", arity("client|setinfo")),
    ("CLIENT SETINFO LIB-NAME x", OK),
    ("CLIENT SETINFO foo x", b"-ERR Unrecognized option 'foo'\r\n"),
    (
        "CLIENT SETINFO lib-ver a\tb",
        b"-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n",
    ),
    ("CLIENT INFO x", arity("client|info")),
    ("CLIENT LIST foo", SYNTAX),
    ("CLIENT LIST foo bar", SYNTAX),
    ("CLIENT LIST ID", SYNTAX),
    ("CLIENT LIST ID x", BAD_LIST_ID),
    ("CLIENT LIST ID 1 x", BAD_LIST_ID),
    ("CLIENT LIST ID 0", EMPTY),
    ("CLIENT LIST ID -1", EMPTY),
    ("CLIENT LIST ID 99999", EMPTY),
    ("CLIENT LIST TYPE", SYNTAX),
    ("CLIENT LIST TYPE foo", BAD_TYPE),
    ("CLIENT LIST TYPE normal normal", SYNTAX),
    ("CLIENT LIST TYPE pubsub", EMPTY),
    ("CLIENT LIST TYPE master", EMPTY),
    ("CLIENT LIST TYPE replica", EMPTY),
    ("CLIENT LIST TYPE SLAVE", EMPTY),
    ("CLIENT KILL", arity("client|kill")),
    ("CLIENT KILL 1.2.3.4:5", NONE_SUCH),
    ("CLIENT KILL ID", NONE_SUCH),
    ("CLIENT KILL ID x", BAD_ID),
    ("CLIENT KILL ID 0", BAD_ID),
    ("CLIENT KILL ID -5", BAD_ID),
    ("CLIENT KILL ID 1 ID x", BAD_ID),
    ("CLIENT KILL ID 99999", NOBODY),
    ("CLIENT KILL ID 99999 foo", SYNTAX),
    ("CLIENT KILL foo bar", SYNTAX),
    ("CLIENT KILL TYPE foo", BAD_TYPE),
    ("CLIENT KILL TYPE pubsub SKIPME no", NOBODY),
    ("CLIENT KILL USER nobody", b"-ERR No such user 'nobody'\r\n"),
    ("CLIENT KILL USER default", NOBODY),
    ("CLIENT KILL ADDR 1.2.3.4:5", NOBODY),
    ("CLIENT KILL LADDR 1.2.3.4:5 SKIPME no", NOBODY),
    ("CLIENT KILL SKIPME maybe", SYNTAX),
    ("CLIENT KILL SKIPME YES", NOBODY),
    ("CLIENT KILL SKIPME no SKIPME yes", NOBODY),
    ("CLIENT KILL MAXAGE x", b"-ERR maxage is not an integer or out of range\r\n"),
    ("CLIENT KILL MAXAGE 0", b"-ERR maxage should be greater than 0\r\n"),
    ("CLIENT KILL MAXAGE 100000 SKIPME no", NOBODY),
    ("CLIENT REPLY", arity("client|reply")),
    ("CLIENT REPLY x", SYNTAX),
    ("CLIENT REPLY ON x", arity("client|reply")),
    ("CLIENT NO-EVICT", arity("client|no-evict")),
    ("CLIENT NO-EVICT x", SYNTAX),
    ("CLIENT NO-EVICT ON", OK),
    ("CLIENT NO-EVICT off", OK),
    ("CLIENT NO-TOUCH", arity("client|no-touch")),
    ("CLIENT NO-TOUCH x", SYNTAX),
    ("CLIENT NO-TOUCH on", OK),
]


@pytest.mark.parametrize(("command", "expected"), EXACT, ids=lambda part: str(part)[:40])
def test_reply(command: str, expected: bytes) -> None:
    client = FakeProxy().client()
    assert client.ask(*command.encode().split(b" ")) == expected
    assert client.reasons == []


# -- what a client tells of itself --


def test_name() -> None:
    client = FakeProxy().client()
    client.ask(b"CLIENT", b"SETNAME", b"me")
    assert client.ask(b"CLIENT", b"GETNAME") == bulk(b"me")
    assert client.ask(b"CLIENT", b"SETNAME", b"not me") == BAD_NAME
    assert client.ask(b"CLIENT", b"GETNAME") == bulk(b"me")
    assert client.ask(b"CLIENT", b"SETNAME", b"") == OK
    assert client.ask(b"CLIENT", b"GETNAME") == b"$-1\r\n"


def test_library() -> None:
    client = FakeProxy().client()
    client.ask(b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis-py")
    client.ask(b"CLIENT", b"SETINFO", b"lib-ver", b"5.0")
    assert client.ask(b"CLIENT", b"INFO").endswith(b" lib-name=redis-py lib-ver=5.0\n\r\n")
    client.ask(b"CLIENT", b"SETINFO", b"lib-name", b"")
    assert client.ask(b"CLIENT", b"INFO").endswith(b" lib-name= lib-ver=5.0\n\r\n")


def test_flags() -> None:
    client = FakeProxy().client()
    seen = []
    for command in (b"NO-EVICT on", b"NO-TOUCH on", b"NO-EVICT off", b"NO-TOUCH OFF"):
        client.ask(b"CLIENT", *command.split())
        seen.append(client.identity.flags)
    assert seen == ["e", "eT", "T", "N"]


def test_bytes_of_the_own_request_are_shown() -> None:
    """As Redis does: those of CLIENT LIST itself, and what is behind it."""
    client = FakeProxy().client()
    whole = pack([b"CLIENT", b"LIST"])
    assert f" qbuf={len(whole)} ".encode() in client.ask(b"CLIENT", b"LIST")
    client.send(whole + b"*1\r\n$4")
    assert f" qbuf={len(whole) + 6} ".encode() in client.hear()
    assert " qbuf=6 " in client.identity.line(0.0)


def test_line() -> None:
    """The fields of Redis, in its order; what rproxy does not have is zero."""
    proxy = FakeProxy()
    client = proxy.client()
    client.ask(b"HELLO", b"3", b"SETNAME", b"me")
    client.say(b"GET", b"b")
    client.say(b"ECHO", b"waits for the reply to GET")
    identity = client.identity
    identity.since = client.session.active_at - 30.5
    assert identity.line(client.session.active_at + 2.5) == (
        "id=1 addr=127.0.0.1:1 laddr=127.0.0.1:6379 fd=1 name=me age=33 idle=2 flags=N db=0 sub=0 "
        "psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=2 "
        "omem=0 tot-mem=0 events=r cmd=echo user=default redir=-1 resp=3 lib-name= lib-ver="
    )


def test_line_tells_what_is_unsent() -> None:
    client = FakeProxy().client()
    client.say(b"ECHO", b"x" * 100)
    assert " omem=108 tot-mem=108 " in client.identity.line(0.0)


@pytest.mark.parametrize("version", [b"2", b"3"])
def test_info_and_list_are_verbatim_texts(version: bytes) -> None:
    client = FakeProxy().client()
    client.ask(b"HELLO", version)
    for command, name in ((b"INFO", b"client|info"), (b"LIST", b"client|list")):
        head, _, body = client.ask(b"CLIENT", command).partition(b"\r\n")
        assert head == (b"=%d" if version == b"3" else b"$%d") % (len(body) - 2)
        text = body.removeprefix(b"txt:") if version == b"3" else body
        assert text.startswith(b"id=1 addr=127.0.0.1:1 ")
        assert b" cmd=" + name + b" " in text
        assert text.endswith(b"\n\r\n")


# -- the others --


def listed(client: FakeClient, *options: bytes) -> list[bytes]:
    """The ids of CLIENT LIST, in its order."""
    lines = client.ask(b"CLIENT", b"LIST", *options).split(b"\r\n")[1].splitlines()
    return [line.partition(b" ")[0].removeprefix(b"id=") for line in lines]


def test_list() -> None:
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(12)]
    everyone = [b"%d" % number for number in range(1, 13)]
    assert listed(clients[0]) == everyone
    assert listed(clients[0], b"TYPE", b"Normal") == everyone
    assert listed(clients[3], b"ID", b"11", b"2", b"77", b"2") == [b"2", b"11"]
    clients[1].session.close("it left")
    assert listed(clients[0], b"id", b"2", b"3") == [b"3"]


def crowd() -> tuple[FakeProxy, list[FakeClient]]:
    """Four clients; the last has connected elsewhere, the first three are old."""
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(4)]
    clients[3].identity.local_address = "127.0.0.1:7777"
    for client in clients[:3]:
        client.identity.since -= 1000.0
    return proxy, clients


@pytest.mark.parametrize(
    ("filters", "killed"),
    [
        ("127.0.0.1:3", {3}),
        ("127.0.0.1:1", {1}),
        ("ADDR 127.0.0.1:3", {3}),
        ("ADDR 127.0.0.1:1", set()),
        ("ADDR 127.0.0.1:1 SKIPME no", {1}),
        ("LADDR 127.0.0.1:7777", {4}),
        ("laddr 127.0.0.1:6379", {2, 3}),
        ("ID 2", {2}),
        ("ID 1", set()),
        ("ID 1 SKIPME no", {1}),
        ("ID 2 ADDR 127.0.0.1:3", set()),
        ("ID 2 ADDR 127.0.0.1:2", {2}),
        ("MAXAGE 900", {2, 3}),
        ("MAXAGE 900 SKIPME no", {1, 2, 3}),
        ("MAXAGE 1100", set()),
        ("TYPE normal", {2, 3, 4}),
        ("TYPE normal TYPE pubsub", set()),
        ("USER default", {2, 3, 4}),
        ("SKIPME yes", {2, 3, 4}),
        ("SKIPME no", {1, 2, 3, 4}),
        ("USER default LADDR 127.0.0.1:6379 SKIPME no MAXAGE 900", {1, 2, 3}),
    ],
)
def test_kill(filters: str, killed: set[int]) -> None:
    _, clients = crowd()
    reply = clients[0].ask(b"CLIENT", b"KILL", *filters.encode().split())
    assert reply == (b":%d\r\n" % len(killed) if " " in filters else OK)
    gone = {client.identity.id for client in clients if client.stream.is_closed}
    assert gone == killed
    for client in clients[1:]:
        assert client.reasons == (["CLIENT KILL"] if client.identity.id in killed else [])


def test_a_mistake_among_the_filters_kills_nobody() -> None:
    _, clients = crowd()
    assert clients[0].ask(b"CLIENT", b"KILL", b"ID", b"2", b"foo", b"bar") == SYNTAX
    assert clients[0].ask(b"CLIENT", b"KILL", b"ID", b"2", b"MAXAGE", b"-1").startswith(b"-ERR max")
    assert not any(client.stream.is_closed for client in clients)


def test_killed_client_is_answered_no_more_and_harms_nobody() -> None:
    proxy = FakeProxy()
    first, second = proxy.client(), proxy.client()
    second.say(b"GET", b"b")
    first.say(b"GET", b"b")
    assert first.ask(b"CLIENT", b"KILL", b"ID", b"2") == b""
    proxy.cluster.answer(0, b"+its\r\n+mine\r\n")
    assert first.hear() == b"+mine\r\n:1\r\n"
    assert second.hear() == b""
    assert second.reasons == ["CLIENT KILL"]


def test_who_kills_itself_gets_its_replies_and_nothing_behind_them_is_done() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b", b"CLIENT KILL SKIPME no", b"SET b 1", b"PING"))
    assert client.reasons == []
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]
    proxy.cluster.answer(0, b"$1\r\nx\r\n")
    assert client.hear() == b"$1\r\nx\r\n:1\r\n"
    assert client.reasons == ["closed"]
    assert proxy.cluster.sent(0) == []


# -- CLIENT REPLY --

MODES: dict[str, tuple[bytes, bytes]] = {
    "on": (wire(b"CLIENT REPLY ON"), OK),
    "off": (wire(b"CLIENT REPLY OFF", b"PING", b"CLIENT ID"), b""),
    "off and on": (wire(b"CLIENT REPLY OFF", b"PING", b"CLIENT REPLY oN", b"PING"), OK + PONG),
    "skip": (wire(b"CLIENT REPLY SKIP", b"PING", b"CLIENT ID"), b":1\r\n"),
    "skip twice": (wire(b"CLIENT REPLY SKIP", b"CLIENT REPLY SKIP", b"PING", b"PING"), PONG),
    "skip, then on": (wire(b"CLIENT REPLY SKIP", b"CLIENT REPLY ON", b"PING"), OK + PONG),
    "skip, then off": (
        wire(b"CLIENT REPLY SKIP", b"CLIENT REPLY OFF", b"PING", b"CLIENT REPLY ON", b"PING"),
        OK + PONG,
    ),
    "off, then skip": (
        wire(b"CLIENT REPLY OFF", b"CLIENT REPLY SKIP", b"PING", b"PING", b"CLIENT REPLY ON"),
        OK,
    ),
    "mistake while off": (
        wire(b"CLIENT REPLY OFF", b"CLIENT REPLY x", b"CLIENT REPLY ON"),
        OK,
    ),
    "mistake skipped": (wire(b"CLIENT REPLY SKIP", b"CLIENT REPLY x", b"PING"), PONG),
    "wrong number skipped": (wire(b"CLIENT REPLY SKIP", b"CLIENT", b"PING"), PONG),
    "unknown skipped": (wire(b"CLIENT REPLY SKIP", b"CLIENT FOO", b"PING"), PONG),
}


@pytest.mark.parametrize("name", MODES)
def test_reply_modes(name: str) -> None:
    sent, expected = MODES[name]
    client = FakeProxy().client()
    client.send(sent)
    assert client.hear() == expected


@pytest.mark.parametrize("name", MODES)
def test_reply_modes_behind_a_command_under_way(name: str) -> None:
    """What is under way is answered: it came before."""
    sent, expected = MODES[name]
    proxy = FakeProxy()
    client = proxy.client()
    client.send(wire(b"GET b") + sent)
    assert client.hear() == b""
    serve(proxy.cluster)
    assert client.hear() == bulk(b"of b") + expected


def test_every_client_has_modes_of_its_own() -> None:
    proxy = FakeProxy(Clients(password=Secret("x")))
    quiet, loud = proxy.client(), proxy.client()
    for client in (quiet, loud):
        assert client.ask(b"AUTH", b"x") == OK
    quiet.say(b"CLIENT", b"REPLY", b"OFF")
    assert quiet.ask(b"PING") == b""
    assert loud.ask(b"PING") == PONG
