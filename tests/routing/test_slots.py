"""Slots of keys and of requests: against crcmod, the oracle, and case by case."""

from __future__ import annotations

import crcmod.predefined  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.routing.commands import built_in, merge
from rproxy.routing.slots import (
    BAD_KEYS,
    CROSS_SLOT,
    NO_KEYS,
    request_keys,
    request_slot,
    slot_of,
)
from tests import oracle

TABLE = built_in()
XMODEM = crcmod.predefined.mkPredefinedCrcFun("xmodem")
TAGGISH = st.lists(st.sampled_from([b"{", b"}", b"a", b"\0", b"\r\n", b"\xff"])).map(b"".join)


# Keys


@given(st.binary(max_size=100))
def test_slot_is_crcmods(key: bytes) -> None:
    bare = key.replace(b"{", b"")
    assert slot_of(bare) == XMODEM(bare) % 16384


@given(TAGGISH)
def test_slot_with_tags_is_the_oracles(key: bytes) -> None:
    assert slot_of(key) == oracle.slot(key)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"{user}:1", b"user"),
        (b"a{user}b{other}", b"user"),
        (b"foo{}{bar}", b"foo{}{bar}"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"{}", b"{}"),
        (b"{", b"{"),
        (b"}{", b"}{"),
        (b"}a{b}", b"b"),
        (b"{\0\r\n}x", b"\0\r\n"),
        (b"x" * 100_000 + b"{t}", b"t"),
    ],
)
def test_tag(key: bytes, hashed: bytes) -> None:
    assert slot_of(key) == XMODEM(hashed) % 16384


def test_known_slots() -> None:
    assert slot_of(b"") == 0
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"y" * 70_000) == XMODEM(b"y" * 70_000) % 16384


# Where the keys are: request -> the keys' indexes

KEYS = {
    "GET k": [1],
    "set k v": [1],
    "MGET a b a": [1, 2, 3],
    "MSET a 1 b 2": [1, 3],
    "BITOP AND d a b": [2, 3, 4],
    "BLPOP a b 0": [1, 2],
    "COPY a b DB 1": [1, 2],
    "RENAME a b": [1, 2],
    "LMOVE a b LEFT RIGHT": [1, 2],
    "PFMERGE d a": [1, 2],
    "GEOSEARCHSTORE d s FROMMEMBER m": [1, 2],
    "PING": [],
    "PUBLISH a b": [],
    "SPUBLISH a b": [],
    # containers
    "OBJECT ENCODING k": [2],
    "object freq k": [2],
    "OBJECT HELP": [],
    "OBJECT NOSUCH k": [],
    "MEMORY USAGE k SAMPLES 5": [2],
    "MEMORY DOCTOR": [],
    "XGROUP CREATE k g $": [2],
    "XINFO STREAM k": [2],
    "XINFO HELP": [],
    "DEBUG OBJECT k": [2],
    "DEBUG SLEEP 0": [],
    "CLUSTER KEYSLOT k": [],
    # counted
    "EVAL s 2 a b c": [3, 4],
    "EVALSHA s 1 a": [3],
    "EVAL_RO s 1 a b": [3],
    "FCALL f 1 a": [3],
    "FCALL_RO f 2 a b": [3, 4],
    "EVAL s 0 a": [],
    "EVAL s -1 a": [],
    "EVAL s 2 a": [],
    "EVAL s x a": [],
    "EVAL s +1 a": [],
    "EVAL s 01 a": [],
    "EVAL s 4294967297 a": [],
    "EVAL s 99999999999999999999 a": [],
    "EVAL s": [],
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2": [1, 3, 4],
    "ZINTERSTORE d 1 a": [1, 3],
    "ZDIFFSTORE d 1 a": [1, 3],
    "ZUNION 2 a b": [2, 3],
    "ZINTERCARD 1 a LIMIT 1": [2],
    "SINTERCARD 2 a b": [2, 3],
    "LMPOP 2 a b LEFT": [2, 3],
    "ZMPOP 1 a MIN": [2],
    "BLMPOP 0 2 a b LEFT": [3, 4],
    "BZMPOP 0 1 a MIN": [3],
    # options, read from left to right
    "XREAD STREAMS a b 0 0": [2, 3],
    "XREAD count 1 Block 5 streams a 0": [6],
    "XREADGROUP GROUP STREAMS c STREAMS a 0": [5],
    "XREADGROUP GROUP g STREAMS NOACK STREAMS a 0": [6],
    "XREADGROUP GROUP g c STREAMS STREAMS 0": [5],
    "XREAD STREAMS a b 0": [],
    "XREAD STREAMS": [],
    "XREAD COUNT 1": [],
    "XREAD COUNT": [],
    "XREAD NOSUCH STREAMS a 0": [],
    "SORT k": [1],
    "SORT k BY w_* GET STORE store d": [1, 7],
    "SORT k STORE a STORE b": [1, 5],
    "SORT k LIMIT 0 STORE STORE d": [1, 6],
    "SORT k STORE": [1],
    "SORT_RO k BY STORE GET x": [1],
    "GEORADIUS k 1 2 3 km STORE d": [1, 7],
    "GEORADIUS k 1 2 3 km storedist d STORE e": [1, 9],
    "GEORADIUS k 1 2 3 km STORE STORE": [1, 7],
    "GEORADIUS k 1 2 3 km COUNT 1": [1],
    "GEORADIUS_RO k 1 2 3 km": [1],
    "GEORADIUSBYMEMBER k m 3 km STORE d": [1, 6],
    "MIGRATE h 1 k 0 5": [3],
    "MIGRATE h 1 k 0 5 COPY REPLACE": [3],
    "MIGRATE h 1 '' 0 5 KEYS a b": [7, 8],
    "MIGRATE h 1 '' 0 5 AUTH keys KEYS a": [9],
    "MIGRATE h 1 '' 0 5 AUTH2 keys keys KEYS a": [10],
    "MIGRATE h 1 k 0 5 KEYS a": [],
    "MIGRATE h 1 '' 0 5 KEYS": [],
}


def argv(text: str) -> list[bytes]:
    """Words between spaces; '' is an empty one."""
    return [b"" if word == "''" else word.encode() for word in text.split(" ")]


@pytest.mark.parametrize("request_text", KEYS)
def test_keys(request_text: str) -> None:
    assert request_keys(TABLE, argv(request_text)) == KEYS[request_text]


# The slot of a request

SLOTS: dict[str, bytes | int] = {
    "GET {a}1": b"a",
    "MGET {a}1 {a}2 a": b"a",
    "MGET a b": CROSS_SLOT,
    "MSET {a}1 b {a}2 c": b"a",
    "MSET a 1 b": BAD_KEYS,
    "MSETNX a 1 b 2": CROSS_SLOT,
    "MSETNX a": BAD_KEYS,
    "RENAME a b": CROSS_SLOT,
    "PING": NO_KEYS,
    "OBJECT HELP": NO_KEYS,
    "OBJECT ENCODING {a}b": b"a",
    "NOSUCH a": BAD_KEYS,
    "SPUBLISH {a}c m": b"a",
    "SSUBSCRIBE {a}1 {a}2": b"a",
    "SSUBSCRIBE a b": CROSS_SLOT,
    "SUNSUBSCRIBE a": b"a",
    "SUNSUBSCRIBE": NO_KEYS,
    "EVAL s 0": NO_KEYS,
    "EVAL s 0 a": NO_KEYS,
    "EVAL s -1 a": BAD_KEYS,
    "EVAL s 3 a": BAD_KEYS,
    "EVAL s 2 a b": CROSS_SLOT,
    "ZUNION 0": NO_KEYS,
    "ZUNIONSTORE {a}d 2 {a}1 {a}2": b"a",
    "ZUNIONSTORE d 1 a": CROSS_SLOT,
    "SORT a STORE b": CROSS_SLOT,
    "SORT a STORE b STORE {a}": b"a",
    "XREAD STREAMS a 0 0": BAD_KEYS,
    "XREAD STREAMS a b 0 0": CROSS_SLOT,
    "GEORADIUS a 1 2 3 km STORE b": CROSS_SLOT,
    "MIGRATE h 1 '' 0 5 KEYS {a}1 a": b"a",
    "MIGRATE h 1": BAD_KEYS,
    # fewer arguments than any arity allows
    "GET": BAD_KEYS,
    "SORT": BAD_KEYS,
    "RENAME a": BAD_KEYS,
    "BITOP": NO_KEYS,
    "OBJECT ENCODING": BAD_KEYS,
    "EVAL": BAD_KEYS,
}


@pytest.mark.parametrize("request_text", SLOTS)
def test_slot(request_text: str) -> None:
    expected = SLOTS[request_text]
    if isinstance(expected, bytes):
        expected = slot_of(expected)
    assert request_slot(TABLE, argv(request_text)) == expected


def test_no_arguments() -> None:
    assert request_slot(TABLE, []) == BAD_KEYS
    assert request_keys(TABLE, []) == []


OPTIONS = ["STORE", "STREAMS", "KEYS", "GROUP", "LIMIT", "AUTH", "0", "1", "2", "-1", "{a}", "{a}b"]
EVERY_NAME = [
    name
    for spec in TABLE
    for name in ([spec.name], *(sub.name.split("|") for sub in spec.subcommands.values()))
]


@given(st.sampled_from(EVERY_NAME), st.lists(st.sampled_from(OPTIONS), max_size=12))
def test_slot_and_keys_agree(name: list[str], rest: list[str]) -> None:
    """Whatever the request, indexes lie inside it and the slot is that of the keys."""
    request = [word.encode() for word in (*name, *rest)]
    keys = request_keys(TABLE, request)
    assert all(0 < index < len(request) for index in keys)
    slots = {slot_of(request[index]) for index in keys}
    if keys:
        assert request_slot(TABLE, request) == (slots.pop() if len(slots) == 1 else CROSS_SLOT)


# Key specifications of servers that are newer than the table

ONE_KEY = [b"type", b"range", b"spec", [b"lastkey", 0, b"keystep", 1, b"limit", 0]]


def described(begin: list[object], find: list[object]) -> list[object]:
    """A COMMAND reply of one new command with one key specification."""
    spec = [b"flags", [b"RW"], b"begin_search", begin, b"find_keys", find]
    return [[b"new", -2, [b"movablekeys"], 0, 0, 0, [], [], [spec], []]]


def keyword(start: int) -> list[object]:
    return [b"type", b"keyword", b"spec", [b"keyword", b"AT", b"startfrom", start]]


def key_range(last: int, step: int, limit: int) -> list[object]:
    return [b"type", b"range", b"spec", [b"lastkey", last, b"keystep", step, b"limit", limit]]


@pytest.mark.parametrize(
    ("begin", "find", "request_text", "keys"),
    [
        (keyword(2), ONE_KEY, "NEW x at k l", [3]),
        (keyword(3), ONE_KEY, "NEW x at k l", []),
        (keyword(1), key_range(-1, 1, 0), "NEW AT a b", [2, 3]),
        (keyword(1), key_range(-1, 1, 2), "NEW AT a b 1 2", [2, 3]),
        (keyword(1), key_range(-2, 2, 0), "NEW AT a 1 b 2 END", [2, 4]),
        (keyword(-2), ONE_KEY, "NEW AT k AT l x", [4]),
        (keyword(-2), ONE_KEY, "NEW x y AT l", [4]),
        (keyword(-2), ONE_KEY, "NEW x y z", []),
        (keyword(1), ONE_KEY, "NEW x AT", []),
        (keyword(1), key_range(1, 1, 0), "NEW AT k", []),
        (keyword(1), [b"type", b"unknown", b"spec", []], "NEW AT k", []),
        (
            keyword(1),
            [b"type", b"keynum", b"spec", [b"keynumidx", 1, b"firstkey", 3, b"keystep", 2]],
            "NEW AT x 2 y a 1 b 2",
            [5, 7],
        ),
    ],
)
def test_key_specification(
    begin: list[object], find: list[object], request_text: str, keys: list[int]
) -> None:
    assert request_keys(merge(TABLE, described(begin, find)), argv(request_text)) == keys
