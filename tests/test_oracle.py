"""The oracle is only worth its word if it is right itself: what Redis says, case by case."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import (
    INLINE_LIMIT,
    ProtocolError,
    Typed,
    encode,
    encode_request,
    parse_reply,
    parse_request,
    slot,
)

REFUSED = {
    b"*x": "invalid multibulk length",
    b"*+1\r\n": "invalid multibulk length",
    b"*01\r\n": "invalid multibulk length",
    b"*-0\r\n": "invalid multibulk length",
    b"*1\rx": "invalid multibulk length",
    b"*1\n": "invalid multibulk length",
    b"*2147483648\r\n": "invalid multibulk length",
    b"*1\r\n:": "expected '$', got ':'",
    b"*1\r\n\0": "expected '$', got '\\x00'",
    b"*1\r\n$-1\r\n": "invalid bulk length",
    b"*1\r\n$+5\r\n": "invalid bulk length",
    b"*1\r\n$05": "invalid bulk length",
    b"*1\r\n$536870913\r\n": "invalid bulk length",
    b"*1\r\n$1\r\nxy": "bulk string is not followed by CRLF",
    b"*1\r\n$1\r\nx\rz": "bulk string is not followed by CRLF",
    b"a 'b\n": "unbalanced quotes in request",
    b"a 'b\\'\n": "unbalanced quotes in request",
    b'a "b"c\n': "unbalanced quotes in request",
    b"x" * (INLINE_LIMIT + 1): "too big inline request",
    b"x" * (INLINE_LIMIT + 1) + b"\r\n": "too big inline request",
}
TAKEN: dict[bytes, list[bytes]] = {
    b"*0\r\n": [],
    b"*-1\r\n": [],
    b"\r\n": [],
    b" \t\n": [],
    b"\0ignored\r\n": [],
    b"*1\r\n$0\r\n\r\n": [b""],
    b"*2\r\n$4\r\n\r\n\0\xff\r\n$1\r\na\r\n": [b"\r\n\0\xff", b"a"],
    b"GET a\n": [b"GET", b"a"],
    b"  GET\ta \r\n": [b"GET", b"a"],
    b'a"b c" \'\' ""\r\n': [b"ab c", b"", b""],
    b"\"\\x41\\x4g\\n\\q\\\"\" '\\n\\''\r\n": [b'Ax4g\nq"', b"\\n'"],
    b"x" * INLINE_LIMIT + b"\r\n": [b"x" * INLINE_LIMIT],
}


@pytest.mark.parametrize("wire", REFUSED, ids=repr)
def test_refused_requests(wire: bytes) -> None:
    assert parse_request(wire) == ProtocolError(REFUSED[wire])


@pytest.mark.parametrize("wire", TAKEN, ids=lambda wire: repr(wire[:40]))
def test_requests(wire: bytes) -> None:
    assert parse_request(wire + b"*1") == (TAKEN[wire], len(wire))
    for size in range(min(len(wire), 100)):
        assert parse_request(wire[:size]) is None


def test_limits_before_authentication() -> None:
    many, large = encode_request([b"x"] * 11), encode_request([b"x" * 16385])
    assert parse_request(many, locked=True) == ProtocolError("unauthenticated multibulk length")
    assert parse_request(large, locked=True) == ProtocolError("unauthenticated bulk length")
    assert parse_request(many) == ([b"x"] * 11, len(many))
    assert parse_request(encode_request([b"x" * 16384] * 10), locked=True) is not None


LINES = st.text("abc 123").map(str.encode)
VALUES = st.recursive(
    st.none()
    | st.integers(-(10**17), 10**17)
    | st.binary(max_size=10)
    | st.builds(Typed, st.sampled_from(["+", "-", "#", ",", "("]), LINES)
    | st.builds(Typed, st.sampled_from(["=", "!"]), st.binary(max_size=10)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(Typed, st.sampled_from(["~", ">"]), st.lists(inner, max_size=4))
        | st.builds(Typed, st.just("%"), st.lists(inner, min_size=2, max_size=2))
        | st.builds(Typed, st.just("|"), st.tuples(st.lists(inner, min_size=2, max_size=2), inner))
    ),
    max_leaves=10,
)


@given(VALUES, st.sampled_from([2, 3]), st.binary(max_size=5))
def test_replies_are_read_as_written(value: Any, protocol: int, rest: bytes) -> None:
    wire = encode(value, protocol)
    assert parse_reply(wire + rest) == (value, len(wire))
    assert all(parse_reply(wire[:size]) is None for size in range(len(wire)))


def test_streamed_replies() -> None:
    wire = b"*?\r\n$?\r\n;2\r\nab\r\n;1\r\nc\r\n;0\r\n%?\r\n+k\r\n*-1\r\n.\r\n.\r\n"
    assert parse_reply(wire) == ([b"abc", Typed("%", [Typed("+", b"k"), None])], len(wire))


@pytest.mark.parametrize(
    "wire", [b"?", b"$-2\r\n", b"=-1\r\n", b"~-1\r\n", b"+a\nb\r\n", b"+a\rb", b"*?x", b";0\r\n",
             b".\r\n", b"$?\r\n+a\r\n", b"$1\r\nxyz", b"*?\r\n*1\r\n.\r\n"]
)  # fmt: skip
def test_broken_replies(wire: bytes) -> None:
    assert isinstance(parse_reply(wire), ProtocolError)


@pytest.mark.parametrize(
    ("key", "expected"), [(b"", 0), (b"123456789", 0x31C3), (b"{}", 15257), (b"x{a}", 15495)]
)
def test_slot(key: bytes, expected: int) -> None:
    assert slot(key) == expected
