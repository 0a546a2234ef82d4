"""FrameReader against the oracle: random and mutated frames, in random pieces, give the same."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rproxy.errors import ProtocolBroken
from rproxy.wire.frames import NEED_MORE, FrameReader, Scratch, pack
from tests import oracle

SMALL = 64
"""Bytes of a scratch that most frames outgrow."""

words = st.lists(st.binary(max_size=80), min_size=1, max_size=6)
lines = st.binary(max_size=20).map(lambda raw: raw.translate(None, b"\r\n"))
scalars = st.one_of(
    st.binary(max_size=60).map(lambda raw: b"$%d\r\n%b\r\n" % (len(raw), raw)),
    st.integers(-(10**9), 10**9).map(lambda number: b":%d\r\n" % number),
    lines.map(lambda line: b"+" + line + b"\r\n"),
    lines.map(lambda line: b"-ERR " + line + b"\r\n"),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"(12345\r\n"]),
    st.sampled_from([b"=5\r\ntxt:a\r\n", b"!3\r\nERR\r\n", b"$?\r\n;2\r\nab\r\n;0\r\n"]),
)


def nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Aggregates of whole items."""
    pairs = st.lists(st.tuples(inner, inner).map(b"".join), max_size=3)
    plain = st.lists(inner, max_size=4)
    return st.one_of(
        plain.map(lambda items: b"*%d\r\n%b" % (len(items), b"".join(items))),
        plain.map(lambda items: b"~%d\r\n%b" % (len(items), b"".join(items))),
        plain.map(lambda items: b">%d\r\n%b" % (len(items), b"".join(items))),
        plain.map(lambda items: b"*?\r\n%b.\r\n" % b"".join(items)),
        pairs.map(lambda items: b"%%%d\r\n%b" % (len(items), b"".join(items))),
        st.tuples(pairs, inner).map(
            lambda both: b"|%d\r\n%b%b" % (len(both[0]), b"".join(both[0]), both[1])
        ),
    )


replies = st.recursive(scalars, nested, max_leaves=12)
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=20)
changes = st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=3)


def mutated(wire: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    """The bytes with some of them replaced."""
    for at, put in edits:
        wire = wire[:at] + put + wire[at + 1 :]
    return wire


def pieces(wire: bytes, sizes: list[int]) -> list[bytes]:
    """The bytes cut into pieces of these sizes, again and again."""
    found, turn = [], 0
    while wire:
        found.append(wire[: sizes[turn % len(sizes)]])
        wire = wire[sizes[turn % len(sizes)] :]
        turn += 1
    return found


def read(wire: bytes, sizes: list[int], kind: str) -> list[Any]:
    """All that a FrameReader makes of the pieces; "broken" where it ends in a protocol error."""
    reader, found = FrameReader(Scratch(SMALL)), []
    for piece in pieces(wire, sizes):
        reader.feed(piece)
        try:
            while (item := getattr(reader, kind)()) is not NEED_MORE:
                found.append(item)
        except ProtocolBroken as error:
            return [*found, ("broken", str(error) if kind == "request" else "")]
    return found


def requests_by_oracle(wire: bytes) -> list[Any]:
    found: list[Any] = []
    while (first := oracle.parse_request(wire)) is not None:
        if isinstance(first, oracle.ProtocolError):
            return [*found, ("broken", first.text)]
        arguments, consumed = first
        wire = wire[consumed:]
        if arguments:
            found.append(arguments)
    return found


def replies_by_oracle(wire: bytes) -> list[Any]:
    found: list[Any] = []
    while (first := oracle.parse_reply(wire)) is not None:
        if isinstance(first, oracle.ProtocolError):
            return [*found, ("broken", "")]
        found.append(wire[: first[1]])
        wire = wire[first[1] :]
    return found


@settings(max_examples=1500)
@given(st.lists(words, max_size=5), changes, cuts)
@example([[b"GET", b"a"]], [(0, b"")], [1])
def test_requests(
    sent: list[list[bytes]], edits: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    wire = mutated(b"".join(pack(request) for request in sent), edits)
    assert read(wire, sizes, "request") == requests_by_oracle(wire)


@settings(max_examples=1500)
@given(st.binary(max_size=200), cuts)
def test_requests_of_any_bytes(wire: bytes, sizes: list[int]) -> None:
    assert read(wire, sizes, "request") == requests_by_oracle(wire)


@settings(max_examples=800)
@given(st.text(alphabet="ab \"'\\x41\t", max_size=40).map(str.encode), cuts)
def test_inline_commands(line: bytes, sizes: list[int]) -> None:
    wire = line + b"\r\nPING\r\n"
    assert read(wire, sizes, "request") == requests_by_oracle(wire)


@settings(max_examples=1500)
@given(st.lists(replies, max_size=4), changes, cuts)
def test_replies(sent: list[bytes], edits: list[tuple[int, bytes]], sizes: list[int]) -> None:
    wire = mutated(b"".join(sent), edits)
    assert read(wire, sizes, "reply") == replies_by_oracle(wire)


@settings(max_examples=1500)
@given(st.text(alphabet="*$%~>|:+-_;.?=!01234\r\n", max_size=60).map(str.encode), cuts)
def test_replies_of_likely_bytes(wire: bytes, sizes: list[int]) -> None:
    assert read(wire, sizes, "reply") == replies_by_oracle(wire)


@given(st.lists(replies, min_size=1, max_size=4))
def test_whole_replies_are_found(sent: list[bytes]) -> None:
    assert read(b"".join(sent), [10_000], "reply") == sent
