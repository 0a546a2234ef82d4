"""Globs match what Redis's do, compared with a naive reading of the rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.routing.globs import matches, may_begin

EVENTS = b"__keyspace@0__:"


def naive(pattern: bytes, text: bytes) -> bool:
    """Redis's stringmatchlen for patterns without sets, word for word its rules."""
    if not pattern:
        return not text
    first, rest = pattern[:1], pattern[1:]
    if first == b"*":
        return any(naive(rest, text[at:]) for at in range(len(text) + 1))
    if first == b"\\" and rest:
        first, rest = rest[:1], rest[1:]
    elif first == b"?":
        first = text[:1]
    return bool(text) and text[:1] == first and naive(rest, text[1:])


@given(st.text("ab*?\\", max_size=8), st.text("ab*\n", max_size=8))
def test_matches_as_redis_does(pattern: str, text: str) -> None:
    raw, words = pattern.encode(), text.encode()
    assert matches(raw, words) == naive(raw, words)


SETS = [
    (b"[abc]", b"b", True),
    (b"[^abc]", b"b", False),
    (b"[^abc]", b"x", True),
    (b"[a-c]x", b"bx", True),
    (b"[c-a]x", b"bx", True),
    (b"[a\\]]", b"]", True),
    (b"[\\-x]", b"-", True),
    (b"[abc", b"c", True),
    (b"[]", b"a", False),
    (b"[^]", b"a", True),
    (b"h[\\^]i", b"h^i", True),
    (b"\\", b"\\", True),
    (b"\xff?[\x00-\x01]", b"\xff\n\x01", True),
]


@pytest.mark.parametrize(("pattern", "text", "fits"), SETS)
def test_sets(pattern: bytes, text: bytes, fits: bool) -> None:
    assert matches(pattern, text) is fits


def test_no_pattern_takes_long() -> None:
    begin = time.process_time()
    assert not matches(b"a*" * 100 + b"b", b"a" * 10_000)
    assert not matches(b"*a" * 1_000_000, b"a" * 1000)
    assert may_begin(b"[a" * 1_000_000, b"a")
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "pattern",
    [
        b"*",
        b"__key*",
        b"?_key*",
        b"__keyspace@0__:x",
        b"[_]*",
        b"*:x",
        b"__keyspace@?__*",
        b"__*@*e",
    ],
)
def test_patterns_for_events(pattern: bytes) -> None:
    assert may_begin(pattern, EVENTS)


@pytest.mark.parametrize(
    "pattern", [b"", b"news.*", b"__key", b"__keyspace@1*", b"[a-z]*", b"_?x*"]
)
def test_patterns_for_nothing_of_that(pattern: bytes) -> None:
    assert not may_begin(pattern, EVENTS)


@given(st.text("_k*?e", max_size=6), st.text("_ke", max_size=4), st.text("_ke", max_size=3))
def test_what_matches_may_begin(pattern: str, prefix: str, rest: str) -> None:
    if naive(pattern.encode(), (prefix + rest).encode()):
        assert may_begin(pattern.encode(), prefix.encode())
