"""Pinned prefixes: commands for keys of several slots work on a cluster, and nobody sees how.

Every conversation goes to a plain server and through a proxy that pins the keys it names: the
replies must be the same, to the byte.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import takewhile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from rproxy.demo import LocalCluster
from rproxy.routing.slots import slot_of
from tests.live.plain import Plain
from tests.live.proxies import Proxy, Wire, running
from tests.live.test_blocking import AT_ONCE
from tests.live.test_differential import (
    PROTOCOLS,
    RANDOM,
    TOPICS,
    Send,
    commands,
    kind,
    known_to,
    one_by_one,
    piped,
)
from tests.live.test_server_commands import client_of
from tests.live.test_transactions import KINDS, SCRIPTS, same_words

LETTERS = "abcdefghijklmnopqrstuvwxyz{"
"""First letters of the keys in all conversations."""


def pinning(*prefixes: str, tag: str = "") -> str:
    """A configuration that pins the prefixes."""
    listed = ", ".join(f'"{prefix}"' for prefix in prefixes)
    return f'[[pin]]\nprefix = [{listed}]\ntag = "{tag or prefixes[0]}"\n'


@pytest.fixture(scope="module")
def pinned(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that pins all keys that begin with a letter."""
    with running(cluster, config=pinning(*LETTERS, tag="p")) as started:
        yield started


@pytest.fixture(scope="module")
def queues(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that pins two prefixes, each to a slot of its own."""
    with running(cluster, config=pinning("arq:") + pinning("rq:")) as started:
        yield started


def compare(
    plain: Plain, proxy: Proxy, conversation: list[list[bytes]], send: Send, version: int
) -> None:
    """The same conversation with both gives the same replies."""
    replies = []
    for side in (plain, proxy):
        with side.connect() as wire:
            wire.ask(b"FLUSHALL")
            wire.ask(b"HELLO", b"%d" % version)
            replies.append(send(wire, conversation))
    wrong = [
        (b" ".join(words), expected, got)
        for words, expected, got in zip(conversation, *replies, strict=True)
        if expected != got and (plain.modern or kind(expected) != kind(got))
    ]
    assert not wrong


@PROTOCOLS
@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("send", [one_by_one, piped])
def test_topic(pinned: Proxy, plain: Plain, topic: str, send: Send, protocol: int) -> None:
    compare(plain, pinned, known_to(plain, commands(TOPICS[topic])), send, protocol)


SEVERAL_SLOTS: dict[str, str] = {
    "keys": r"""
        SET a 1 | RENAME a b | RENAMENX b c | COPY c d | MSETNX a 1 b 2 | BITOP AND d a b
        SORT a | RPUSH l 3 1 2 | SORT l STORE m | LRANGE m 0 -1 | KEYS {p}*
        DEL a b c d l m | RANDOMKEY | DBSIZE | SET only 1 | RANDOMKEY | KEYS o* | KEYS *y
        KEYS [n-p]nly | KEYS ?nly | KEYS {* | OBJECT ENCODING only
    """,
    "lists and sets": r"""
        RPUSH a 1 2 3 | LMOVE a b LEFT RIGHT | RPOPLPUSH a c | LMPOP 3 none a b LEFT
        LMPOP 2 none b RIGHT COUNT 5 | SADD s 1 2 | SADD t 2 3 | SINTER s t | SINTERSTORE u s t
        SMOVE s t 1 | SUNION s t u | ZADD x 1 a | ZADD y 2 b | ZUNIONSTORE z 2 x y
        ZRANGE z 0 -1 WITHSCORES | ZMPOP 2 none z MIN | ZDIFF 2 x y | BLPOP none a c 1
        BRPOP none c 0.01 | BLMPOP 0.01 2 none c LEFT | BZPOPMIN none x 1 | BZPOPMAX none y 1
        BZMPOP 0.01 1 z MAX COUNT 2 | BZMPOP 0.01 1 z MAX | BLMOVE a b LEFT LEFT 0.01
        RPUSH a {p}a {p}x | LRANGE a 0 -1 | BLPOP a 1 | LPOP a
    """,
    "streams": r"""
        XADD s 1-1 f v | XADD t 2-1 k {p}v | XREAD COUNT 1 STREAMS s t 0 0 | XREAD STREAMS s t 9 9
        XGROUP CREATE s g 0 | XGROUP CREATE t g 0 | XREADGROUP GROUP g c STREAMS s t > >
        XREADGROUP GROUP none c STREAMS s t > > | XGROUP CREATE none g 0 | XINFO GROUPS none
        XPENDING s nogroup | XREAD BLOCK 1 STREAMS s t $ $ | XREADGROUP GROUP g c STREAMS s t 0 0
    """,
    "scripts": r"""
        EVAL "return {KEYS[1],KEYS[2],ARGV[1]}" 2 a b a
        EVAL "redis.call('SET',KEYS[1],KEYS[2]); return redis.call('GET',KEYS[1])" 2 a b
        EVAL "return redis.call('XREADGROUP','GROUP','g','c','STREAMS',KEYS[1],'>')" 1 s
        EVAL "return redis.call('MSET',KEYS[1],1,KEYS[2],2)" 2 c d | MGET c d
    """,
    "transactions": r"""
        MULTI | SET a 1 | RPUSH l x y | BLPOP k l 0 | XADD s 1-1 f v | XREAD STREAMS s 0 | GET a
        LMPOP 2 k l LEFT | XREADGROUP GROUP g c STREAMS s > | EVAL "return KEYS" 2 a b | EXEC
        WATCH a b c | MULTI | INCR a | GET b | EXEC | WATCH a b | SET b 2 | MULTI | INCR a | EXEC
        MULTI | SET a 1 | GET | EXEC | MULTI | MSET a 1 b 2 | MGET a b c | DEL a b c | EXEC
        MULTI | RPUSH l {p}l | LRANGE l 0 -1 | BRPOP l 0 | EXEC | MULTI | KEYS | EXEC
        MULTI | XREADGROUP GROUP g c STREAMS t > | EXEC
    """,
}
"""Conversations that need all their keys in one slot."""


@PROTOCOLS
@pytest.mark.parametrize("topic", SEVERAL_SLOTS)
@pytest.mark.parametrize("send", [one_by_one, piped])
def test_several_slots(pinned: Proxy, plain: Plain, topic: str, send: Send, protocol: int) -> None:
    compare(plain, pinned, known_to(plain, commands(SEVERAL_SLOTS[topic])), send, protocol)


def untagged(lines: list[str]) -> list[str]:
    """The same commands for keys of several slots."""
    return [line.replace("{t}", "").replace("{b}", "") for line in lines]


@PROTOCOLS
@pytest.mark.parametrize("pipelined", [True, False])
@pytest.mark.parametrize("script", [*SCRIPTS, *AT_ONCE])
def test_conversation(
    pinned: Proxy, plain: Plain, script: str, pipelined: bool, protocol: int
) -> None:
    lines = untagged(same_words(script.split("; "), plain))
    conversation = known_to(plain, [[word.encode() for word in line.split()] for line in lines])
    compare(plain, pinned, conversation, piped if pipelined else one_by_one, protocol)


@PROTOCOLS
@pytest.mark.parametrize("seed", range(5))
def test_random_transactions(pinned: Proxy, plain: Plain, seed: int, protocol: int) -> None:
    dice = random.Random(seed)
    lines = untagged(same_words([dice.choice(KINDS) for _ in range(120)], plain))
    compare(plain, pinned, [line.encode().split() for line in lines], piped, protocol)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=RANDOM, protocol=st.sampled_from([2, 3]), pipelined=st.booleans())
def test_random_conversations(
    pinned: Proxy, plain: Plain, conversation: list[list[bytes]], protocol: int, pipelined: bool
) -> None:
    compare(plain, pinned, conversation, piped if pipelined else one_by_one, protocol)


NAMES_OF_ALL = ["arq:1", "arq:{x}2", "arqs", "other", "rq:1", "rq:2", "x:arq:", "{arq:}", "{arq:"]
PATTERNS = [
    "*",
    "arq:*",
    "arq*",
    "a*",
    "?rq:*",
    "rq:?",
    "*rq*",
    "{*",
    "[ar]*",
    "*1",
    "none*",
    "\\arq:*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_clients_names(queues: Proxy, plain: Plain, pattern: str) -> None:
    found = []
    with queues.client() as proxied, client_of(plain) as one:
        for client in (one, proxied):
            client.flushall()
            client.mset(dict.fromkeys(NAMES_OF_ALL, "v"))
            keys = sorted(client.keys(pattern))
            assert sorted(client.scan_iter(pattern, count=3)) == keys
            assert sorted(client.scan_iter(pattern, _type="list")) == []
            found.append(keys)
    assert found[0] == found[1]


def test_keys_are_in_the_tags_slot_and_others_stay_where_they_were(
    cluster: LocalCluster, queues: Proxy
) -> None:
    with queues.client() as client:
        client.flushall()
        client.mset({"arq:1": 1, "arq:2": 2, "rq:1": 3, "plain": 4})
        for name in ("{arq:}arq:1", "{arq:}arq:2", "{rq:}rq:1", "plain"):
            assert cluster.slot_owner(slot_of(name.encode())).call("EXISTS", name) == 1
        assert client.get("{arq:}arq:1") == b"1", "whoever writes the tag means the same key"
        assert client.sinterstore("arq:a", "arq:b", "arq:c") == 0
        with pytest.raises(ResponseError, match="hash to the same slot"):
            client.sinterstore("arq:a", "rq:b")


def test_monitor_slowlog_and_errors_show_no_tag(queues: Proxy) -> None:
    with queues.client() as client, queues.connect() as watcher:
        watcher.ask(b"MONITOR")
        client.set("arq:m", '"arq:{x}')
        line = watcher.reply()
        while b"arq:m" not in line:
            line = watcher.reply()
        assert line.endswith(b'"SET" "arq:m" "\\"arq:{x}"\r\n')
        with pytest.raises(ResponseError, match="key 'arq:none'"):
            client.xreadgroup("g", "c", {"arq:none": ">"})


def test_slowlog_shows_no_tag(cluster: LocalCluster, queues: Proxy) -> None:
    for node in cluster.nodes:
        node.call("CONFIG", "SET", "slowlog-log-slower-than", "0")
    try:
        with queues.client() as client:
            client.set("arq:slow", 1)
            entries = [entry["command"] for entry in client.slowlog_get(100)]
            assert b"SET arq:slow 1" in entries
    finally:
        for node in cluster.nodes:
            node.call("CONFIG", "SET", "slowlog-log-slower-than", "10000")
            node.call("SLOWLOG", "RESET")


EVENTS = [
    b"SUBSCRIBE __keyspace@0__:arq:1 __keyevent@0__:set",
    b"PSUBSCRIBE __keyspace@0__:arq:*",
    b"PSUBSCRIBE __key*__:*",
    b"PSUBSCRIBE *",
]


def until_pong(wire: Wire) -> list[bytes]:
    """All that comes before the reply to PING."""
    wire.send(b"PING")
    return list(takewhile(lambda reply: b"PONG" not in reply.upper(), iter(wire.reply, None)))


@PROTOCOLS
@pytest.mark.parametrize("subscribe", EVENTS)
def test_keyspace_events_name_clients_keys(
    cluster: LocalCluster, queues: Proxy, plain: Plain, subscribe: bytes, protocol: int
) -> None:
    with plain.connect() as one:
        one.ask(b"CONFIG", b"SET", b"notify-keyspace-events", b"KEA")
    for node in cluster.nodes:
        node.call("CONFIG", "SET", "notify-keyspace-events", "KEA")
    found: list[list[bytes]] = []
    try:
        for side in (plain, queues):
            with side.connect() as wire, side.connect() as writer:
                wire.ask(b"HELLO", b"%d" % protocol)
                writer.ask(b"FLUSHALL")
                wire.send(*subscribe.split())
                confirmed = wire.replies(len(subscribe.split()) - 1)
                writer.ask(b"SET", b"arq:1", b"{arq:}arq:v")
                writer.ask(b"SET", b"other", b"v")
                writer.ask(b"PUBLISH", b"{arq:}arq:x", b"{arq:}arq:y")
                # The plain server tells all before its PONG; that is how many there have to be.
                heard = wire.replies(len(found[0]) - len(confirmed)) if found else until_pong(wire)
                found.append([*confirmed, *sorted(heard)])
    finally:
        for node in cluster.nodes:
            node.call("CONFIG", "SET", "notify-keyspace-events", "")
        with plain.connect() as one:
            one.ask(b"CONFIG", b"SET", b"notify-keyspace-events", b"")
    assert found[0] == found[1]


def test_commands_of_unknown_names_and_inline_ones_are_pinned_too(queues: Proxy) -> None:
    with queues.connect() as wire:
        wire.raw(b"SET arq:inline 5\r\nINCR arq:inline\r\n")
        assert wire.replies(2) == [b"+OK\r\n", b":6\r\n"]
        assert wire.ask(b"GET", b"{arq:}arq:inline") == b"$1\r\n6\r\n"
