"""Denied, renamed and paused commands, as a client meets them."""

from __future__ import annotations

import asyncio
from hashlib import sha1

import pytest

from tests.fakes import FakeClient, FakeProxy, bulk, on_a_loop

OF_THE_FIRST = b"bar"
"""A key of the first node's."""

FLUSH_NAMES = {"flushall": "wipe", "get": "fetch", "mget": "all", "config": "konfig", "keys": ""}


def sent(proxy: FakeProxy) -> list[list[bytes]]:
    """What all nodes were asked since the last look."""
    return [words for index in range(3) for words in proxy.cluster.sent(index)]


@pytest.mark.parametrize(
    ("words", "name"),
    [("get k", "get"), ("CONFIG SET a b", "config|set"), ("PING", "ping"), ("MGET a b", "mget")],
)
def test_a_denied_command_gets_redis_s_words(words: str, name: str) -> None:
    proxy = FakeProxy(deny=("get", "config|set", "ping", "mget"))
    expected = f"-NOPERM this user has no permissions to run the '{name}' command\r\n"
    assert proxy.client().ask(*words.encode().split()) == expected.encode()
    assert sent(proxy) == []


def test_nodes_see_the_name_that_they_know() -> None:
    proxy = FakeProxy(rename=FLUSH_NAMES)
    client = proxy.client()
    client.say(b"FETCH", OF_THE_FIRST)
    assert sent(proxy) == [[b"get", OF_THE_FIRST]]
    client.say(b"wipe")
    assert sent(proxy) == [[b"flushall"]] * 3
    client.say(b"all", b"a", b"b")
    assert sorted(sent(proxy)) == [[b"mget", b"a"], [b"mget", b"b"]]
    client.say(b"konfig", b"get", b"x")
    assert sent(proxy) == [[b"config", b"get", b"x"]]


def test_a_long_request_is_renamed_as_well() -> None:
    proxy = FakeProxy(rename={"set": "put"})
    proxy.client().say(b"put", OF_THE_FIRST, b"v" * 100_000)
    assert sent(proxy) == [[b"set", OF_THE_FIRST, b"v" * 100_000]]


def test_the_old_name_is_unknown() -> None:
    proxy = FakeProxy(rename=FLUSH_NAMES)
    expected = b"-ERR unknown command 'KEYS', with args beginning with: 'a' 'b' \r\n"
    assert proxy.client().ask(b"KEYS", b"a", b"b") == expected
    assert sent(proxy) == []


def test_the_wrong_number_of_arguments_is_told_with_the_genuine_name() -> None:
    expected = b"-ERR wrong number of arguments for 'get' command\r\n"
    assert FakeProxy(rename=FLUSH_NAMES).client().ask(b"fetch") == expected


def test_a_denied_command_is_denied_under_its_new_name_with_its_genuine_one() -> None:
    proxy = FakeProxy(deny=("get",), rename={"get": "fetch"})
    expected = b"-NOPERM this user has no permissions to run the 'get' command\r\n"
    assert proxy.client().ask(b"fetch", b"k") == expected


def test_a_renamed_command_waits_for_the_end_of_a_pause() -> None:
    proxy = FakeProxy(rename={"eval": "run"})
    proxy.client().ask(b"CLIENT", b"PAUSE", b"1000", b"WRITE")
    proxy.client().say(b"run", b"return 1", b"1", OF_THE_FIRST)
    assert sent(proxy) == []
    proxy.cluster.loop.advance(1.1)
    assert sent(proxy) == [[b"eval", b"return 1", b"1", OF_THE_FIRST]]


def paused(*mode: bytes) -> tuple[FakeProxy, FakeClient]:
    """A proxy that pauses for a second, and a client."""
    proxy = FakeProxy()
    assert proxy.client().ask(b"CLIENT", b"PAUSE", b"1000", *mode) == b"+OK\r\n"
    return proxy, proxy.client()


def test_a_pause_holds_requests_until_it_ends() -> None:
    proxy, client = paused()
    client.say(b"GET", OF_THE_FIRST)
    client.say(b"PING")
    assert (sent(proxy), client.hear()) == ([], b"")
    proxy.cluster.loop.advance(0.9)
    assert (sent(proxy), client.hear()) == ([], b"")
    proxy.cluster.loop.advance(0.2)
    proxy.run()
    assert sent(proxy) == [[b"GET", OF_THE_FIRST]]
    proxy.cluster.answer(0, bulk(b"v"))
    assert client.hear() == bulk(b"v") + b"+PONG\r\n"
    client.say(b"GET", OF_THE_FIRST)
    assert sent(proxy) == [[b"GET", OF_THE_FIRST]]


def test_a_pause_of_writes_lets_reads_pass() -> None:
    proxy, client = paused(b"WRITE")
    client.say(b"GET", OF_THE_FIRST)
    assert sent(proxy) == [[b"GET", OF_THE_FIRST]]
    client.say(b"SET", OF_THE_FIRST, b"v")
    assert sent(proxy) == []
    assert proxy.client().ask(b"CLIENT", b"UNPAUSE") == b"+OK\r\n"
    proxy.run()
    assert sent(proxy) == [[b"SET", OF_THE_FIRST, b"v"]]


READER = b"#!lua name=x flags=allow-stale,no-writes\nreturn 1"
WRITERS = [b"return 1", b"#!lua\nreturn 1", b"#!lua flags=allow-oom\nreturn 1", b"no-writes"]


@pytest.mark.parametrize("script", [READER, *WRITERS])
def test_a_script_that_says_that_it_only_reads_passes(script: bytes) -> None:
    proxy, client = paused(b"WRITE")
    proxy.cluster.scripts.remember(script)
    by_name = sha1(script).hexdigest().encode()
    for words in ([b"EVAL", script, b"1", OF_THE_FIRST], [b"EVALSHA", by_name, b"1", OF_THE_FIRST]):
        client.say(*words)
        assert sent(proxy) == ([words] if script == READER else [])


@pytest.mark.parametrize("script", [READER, WRITERS[0]])
def test_a_transaction_waits_if_something_in_it_may_write(script: bytes) -> None:
    proxy = FakeProxy()
    client, other = proxy.client(), proxy.client()
    client.say(b"MULTI")
    client.say(b"EVAL", script, b"1", OF_THE_FIRST)
    link = proxy.cluster.lease(0)
    link.stream.feed(b"+OK\r\n+QUEUED\r\n")
    other.ask(b"CLIENT", b"PAUSE", b"1000", b"WRITE")
    proxy.cluster.written(link)
    client.say(b"EXEC")
    assert proxy.cluster.written(link) == ([[b"EXEC"]] if script == READER else [])
    proxy.cluster.loop.advance(1.1)
    assert proxy.cluster.written(link) == ([] if script == READER else [[b"EXEC"]])


@on_a_loop
async def test_a_function_passes_if_the_servers_say_that_it_only_reads() -> None:
    proxy, client = paused(b"WRITE")
    library = [b"library_name", b"l", b"functions", [[b"name", b"f", b"flags", [b"no-writes"]]]]
    proxy.cluster.known[b"LIST"] = [library]
    client.say(b"FCALL", b"f", b"1", OF_THE_FIRST)
    writer = proxy.client()
    writer.say(b"FCALL", b"g", b"1", OF_THE_FIRST)
    assert proxy.engine.pause.waiting == 2
    for _ in range(5):
        await asyncio.sleep(0)
    proxy.run()
    assert sent(proxy) == [[b"FCALL", b"f", b"1", OF_THE_FIRST]]
    assert proxy.engine.pause.waiting == 1


def test_a_shorter_pause_does_not_end_the_longer_one_and_the_stricter_holds() -> None:
    proxy, client = paused(b"WRITE")
    proxy.client().ask(b"CLIENT", b"PAUSE", b"100", b"ALL")
    client.say(b"PING")
    proxy.cluster.loop.advance(0.5)
    assert client.hear() == b""
    proxy.cluster.loop.advance(0.6)
    assert client.hear() == b"+PONG\r\n"


def test_a_client_that_leaves_during_a_pause_is_forgotten() -> None:
    proxy, client = paused()
    client.say(b"SET", OF_THE_FIRST, b"v")
    client.session.close("test")
    proxy.cluster.loop.advance(1.1)
    proxy.run()
    assert sent(proxy) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("PAUSE x", "timeout is not an integer or out of range"),
        ("PAUSE -1", "timeout is negative"),
        ("PAUSE 1 foo", "CLIENT PAUSE mode must be WRITE or ALL"),
        (
            "PAUSE 1 all x",
            "unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.",
        ),
        ("UNBLOCK a", "value is not an integer or out of range"),
        ("UNBLOCK 1 foo", "CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        (
            "UNBLOCK 1 error x",
            "unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.",
        ),
    ],
)
def test_mistakes_get_redis_s_words(words: str, expected: str) -> None:
    raw = FakeProxy().client().ask(b"CLIENT", *words.encode().split())
    assert raw == f"-ERR {expected}\r\n".encode()


def test_only_a_client_that_blocks_can_be_unblocked() -> None:
    proxy = FakeProxy()
    client, other = proxy.client(), proxy.client()
    words = [b"CLIENT", b"UNBLOCK", b"%d" % other.identity.id]
    assert client.ask(*words) == b":0\r\n"
    other.say(b"BLPOP", b"b", b"0")
    link = proxy.cluster.lease(0)
    assert client.ask(*words) == b":1\r\n"
    assert client.ask(*words, b"ERROR") == b":1\r\n"
    assert proxy.cluster.sent(0) == [
        [b"CLIENT", b"UNBLOCK", b"77", how] for how in (b"TIMEOUT", b"ERROR")
    ]
    link.stream.feed(b"*-1\r\n")
    assert other.hear() == b"*-1\r\n"
    assert client.ask(*words) == b":0\r\n"
