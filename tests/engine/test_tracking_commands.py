"""CLIENT TRACKING, CACHING, GETREDIR, TRACKINGINFO: Redis's words, and what rproxy tells of it."""

from __future__ import annotations

import pytest

from rproxy.engine.replies import encode
from rproxy.engine.tracking_commands import MOST_PREFIXES
from tests.engine.trackers import OK, feed, tracker
from tests.fakes import FakeClient, FakeProxy

SYNTAX = "ERR syntax error"
SWITCH = (
    "ERR You can't switch {} mode{} before disabling tracking for this client, and then "
    "re-enabling it with a different mode."
)


def ready() -> FakeProxy:
    """A proxy whose nodes tell of changes already."""
    proxy = FakeProxy()
    proxy.engine.tracking.invalidations.start()
    for index in range(3):
        feed(proxy, index)
    return proxy


def say(client: FakeClient, commands: str) -> str:
    """The last command's reply, without its line end; the commands are parted by `|`."""
    heard = b""
    for command in commands.split("|"):
        heard = client.ask(*command.encode().split())
    return heard.decode().removeprefix("-").removesuffix("\r\n")


def overlap(first: str, kind: str, second: str) -> str:
    return (
        f"ERR Prefix '{first}' overlaps with {kind} prefix '{second}'. Prefixes for a single "
        "client must not overlap."
    )


WORDS = {
    "CLIENT TRACKING": "ERR wrong number of arguments for 'client|tracking' command",
    "CLIENT TRACKING maybe": SYNTAX,
    "CLIENT TRACKING ON FOO": SYNTAX,
    "CLIENT TRACKING ON REDIRECT": SYNTAX,
    "CLIENT TRACKING ON BCAST PREFIX": SYNTAX,
    "CLIENT TRACKING ON REDIRECT x": "ERR value is not an integer or out of range",
    "CLIENT TRACKING ON REDIRECT 99": "ERR The client ID you want redirect to does not exist",
    "CLIENT TRACKING OFF REDIRECT 99": "ERR The client ID you want redirect to does not exist",
    "CLIENT TRACKING ON REDIRECT 1 REDIRECT 1": (
        "ERR A client can only redirect to a single other client"
    ),
    "CLIENT TRACKING ON PREFIX x": "ERR PREFIX option requires BCAST mode to be enabled",
    "CLIENT TRACKING ON|CLIENT TRACKING ON BCAST": SWITCH.format("BCAST", " on/off"),
    "CLIENT TRACKING ON BCAST|CLIENT TRACKING ON": SWITCH.format("BCAST", " on/off"),
    "CLIENT TRACKING ON BCAST OPTIN": "ERR OPTIN and OPTOUT are not compatible with BCAST",
    "CLIENT TRACKING ON OPTIN OPTOUT": "ERR You can't specify both OPTIN mode and OPTOUT mode",
    "CLIENT TRACKING ON OPTIN|CLIENT TRACKING ON OPTOUT": SWITCH.format("OPTIN/OPTOUT", ""),
    "CLIENT TRACKING ON OPTOUT|CLIENT TRACKING ON OPTIN": SWITCH.format("OPTIN/OPTOUT", ""),
    "CLIENT TRACKING ON BCAST PREFIX FOOBAR PREFIX FOO": overlap(
        "FOOBAR", "another provided", "FOO"
    ),
    "CLIENT TRACKING ON BCAST PREFIX a PREFIX FOO PREFIX FOO": overlap(
        "FOO", "another provided", "FOO"
    ),
    "CLIENT TRACKING ON BCAST PREFIX FOO PREFIX BAR|CLIENT TRACKING ON BCAST PREFIX FO": overlap(
        "FO", "an existing", "FOO"
    ),
    "CLIENT TRACKING ON BCAST|CLIENT TRACKING ON BCAST PREFIX x": overlap("x", "an existing", ""),
    "CLIENT CACHING": "ERR wrong number of arguments for 'client|caching' command",
    "CLIENT CACHING YES": (
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or "
        "OPTOUT mode enabled"
    ),
    "CLIENT TRACKING ON|CLIENT CACHING maybe": SYNTAX,
    "CLIENT TRACKING ON OPTOUT|CLIENT CACHING yes": (
        "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
    ),
    "CLIENT TRACKING ON OPTIN|CLIENT CACHING no": (
        "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."
    ),
    "CLIENT TRACKING ON OPTIN|CLIENT TRACKING ON|CLIENT CACHING YES": (
        "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
    ),
    "CLIENT TRACKING OFF": "+OK",
    "CLIENT TRACKING ON BCAST PREFIX a|CLIENT TRACKING ON BCAST PREFIX b": "+OK",
    "CLIENT GETREDIR": ":-1",
    "CLIENT GETREDIR x": "ERR wrong number of arguments for 'client|getredir' command",
    "CLIENT TRACKING ON|CLIENT GETREDIR": ":0",
    "CLIENT TRACKING ON REDIRECT 1|CLIENT GETREDIR": ":1",
    "CLIENT TRACKING ON REDIRECT 1|CLIENT TRACKING OFF|CLIENT GETREDIR": ":-1",
    "CLIENT TRACKINGINFO x": "ERR wrong number of arguments for 'client|trackinginfo' command",
}


@pytest.mark.parametrize("commands", WORDS)
def test_words(commands: str) -> None:
    assert say(ready().client(), commands) == WORDS[commands]


STATES: dict[str, tuple[list[bytes], int, list[bytes]]] = {
    "PING": ([b"off"], -1, []),
    "CLIENT TRACKING ON": ([b"on"], 0, []),
    "CLIENT TRACKING ON BCAST": ([b"on", b"bcast"], 0, [b""]),
    "CLIENT TRACKING ON BCAST PREFIX b PREFIX a NOLOOP": (
        [b"on", b"bcast", b"noloop"],
        0,
        [b"a", b"b"],
    ),
    "CLIENT TRACKING ON OPTIN REDIRECT 1": ([b"on", b"optin"], 1, []),
    "CLIENT TRACKING ON OPTIN|CLIENT CACHING YES": ([b"on", b"optin", b"caching-yes"], 0, []),
    "CLIENT TRACKING ON OPTOUT|CLIENT CACHING NO": ([b"on", b"optout", b"caching-no"], 0, []),
    "CLIENT TRACKING ON OPTIN|CLIENT CACHING YES|PING": ([b"on", b"optin"], 0, []),
    "CLIENT TRACKING ON BCAST NOLOOP|CLIENT TRACKING OFF": ([b"off"], -1, []),
}


@pytest.mark.parametrize("commands", STATES)
def test_state_is_told(commands: str) -> None:
    flags, redirect, prefixes = STATES[commands]
    client = ready().client()
    say(client, commands)
    told = {"flags": flags, "redirect": redirect, "prefixes": prefixes}
    assert client.ask(b"CLIENT", b"TRACKINGINFO") == encode(told, 2)
    client.ask(b"HELLO", b"3")
    expected = encode(told, 3).replace(b"flags\r\n*", b"flags\r\n~")
    assert client.ask(b"CLIENT", b"TRACKINGINFO") == expected


def test_prefixes_are_limited() -> None:
    client = ready().client()
    words = [word for number in range(MOST_PREFIXES) for word in (b"PREFIX", b"%03d" % number)]
    assert client.ask(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *words) == OK
    heard = client.ask(b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"x")
    assert heard == b"-ERR a client can follow %d prefixes at most\r\n" % MOST_PREFIXES


def test_client_list_shows_it() -> None:
    proxy = ready()
    client = tracker(proxy, b"BCAST", b"REDIRECT", b"1")
    line = client.identity.line(0.0)
    assert " flags=tB " in line
    assert " redir=1 " in line
    assert " redir=-1 " in proxy.client().identity.line(0.0)


def test_caching_lasts_for_one_command() -> None:
    proxy = ready()
    client = tracker(proxy, b"OPTIN")
    say(client, "CLIENT CACHING YES|CLIENT ID")
    assert b"caching-yes" in client.ask(b"CLIENT", b"TRACKINGINFO")
    client.say(b"GET", b"b")
    client.say(b"GET", b"a")
    assert proxy.engine.tracking.table.keys == 1
