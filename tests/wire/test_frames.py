"""FrameReader: every request and reply, whole, split at every byte, and refused where due."""

from __future__ import annotations

import random

import pytest

from rproxy.errors import ProtocolBroken
from rproxy.wire.frames import NEED_MORE, FrameReader, Request, Scratch, pack

SCRATCH = 256
"""A small scratch, so that frames of a few hundred bytes already outgrow it."""


def reader(scratch: int = 65536, **limits: int) -> FrameReader:
    return FrameReader(Scratch(scratch), **limits)


def requests(found: FrameReader) -> list[list[bytes]]:
    """All whole requests that the reader has."""
    taken = []
    while (request := found.request()) is not NEED_MORE:
        taken.append(request)
    return taken  # type: ignore[return-value]


REQUESTS = {
    "plain": (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", [[b"GET", b"a"]]),
    "empty argument": (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", [[b"GET", b""]]),
    "binary": (
        pack([b"SET", b"\0\r\n\xff", b"\r\n$3\r\n"]),
        [[b"SET", b"\0\r\n\xff", b"\r\n$3\r\n"]],
    ),
    "two": (pack([b"A"]) + pack([b"B", b"c"]), [[b"A"], [b"B", b"c"]]),
    "empty array answers nothing": (b"*0\r\n" + pack([b"A"]), [[b"A"]]),
    "null array answers nothing": (b"*-1\r\n" + pack([b"A"]), [[b"A"]]),
    "empty line answers nothing": (b"\r\n\n  \r\n" + pack([b"A"]), [[b"A"]]),
    "inline": (b"GET a\r\n", [[b"GET", b"a"]]),
    "inline with a bare line feed": (b"GET a\n", [[b"GET", b"a"]]),
    "inline quotes": (b'SET \'a b\' "c\\x41\\n\\""\r\n', [[b"SET", b"a b", b'cA\n"']]),
    "inline then array": (b"PING\r\n" + pack([b"A"]), [[b"PING"], [b"A"]]),
    "many arguments": (pack([b"x"] * 300), [[b"x"] * 300]),
    "outgrows the scratch": (pack([b"SET", b"k", b"v" * 1000]), [[b"SET", b"k", b"v" * 1000]]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_request(name: str) -> None:
    wire, expected = REQUESTS[name]
    found = reader()
    found.feed(wire)
    assert requests(found) == expected
    found.feed(b"")
    assert found.held() == 0


@pytest.mark.parametrize("name", REQUESTS)
def test_request_split_at_every_byte(name: str) -> None:
    wire, expected = REQUESTS[name]
    for at in range(len(wire)):
        found = reader(SCRATCH)
        found.feed(wire[:at])
        taken = requests(found)
        found.feed(wire[at:])
        assert taken + requests(found) == expected


@pytest.mark.parametrize("name", REQUESTS)
def test_request_byte_by_byte(name: str) -> None:
    wire, expected = REQUESTS[name]
    found = reader(SCRATCH)
    taken = []
    for at in range(len(wire)):
        found.feed(wire[at : at + 1])
        taken += requests(found)
    assert taken == expected


def test_only_validated_bytes_are_forwarded() -> None:
    found = reader()
    found.feed(b"*0\r\n\r\nget  a\r\n")
    assert found.request() == [b"get", b"a"]
    assert found.frame_bytes() == b"*2\r\n$3\r\nget\r\n$1\r\na\r\n"


BROKEN_REQUESTS = {
    "negative bulk": (b"*1\r\n$-1\r\n", "invalid bulk length"),
    "plus sign": (b"*1\r\n$+1\r\n", "invalid bulk length"),
    "leading zero": (b"*1\r\n$01\r\n", "invalid bulk length"),
    "minus zero": (b"*-0\r\n", "invalid multibulk length"),
    "no digits": (b"*\r\n", "invalid multibulk length"),
    "letters": (b"*abc\r\n", "invalid multibulk length"),
    "too many arguments": (b"*3000000000\r\n", "invalid multibulk length"),
    "over 64 bits": (b"*99999999999999999999999\r\n", "invalid multibulk length"),
    "too large a bulk": (b"*1\r\n$2000000000\r\n", "invalid bulk length"),
    "not a bulk": (b"*1\r\nfooz\r\n", "expected '$', got 'f'"),
    "not a printable byte": (b"*1\r\n\0", "expected '$', got '\\x00'"),
    "bare carriage return": (b"*1\r$1\r\na\r\n", "invalid multibulk length"),
    "no CRLF after the bulk": (b"*1\r\n$4\rPINGzz", "invalid bulk length"),
    "something else after the bulk": (
        b"*1\r\n$4\r\nPINGzz",
        "bulk string is not followed by CRLF",
    ),
    "unbalanced quotes": (b'SET a "b\r\n', "unbalanced quotes in request"),
    "quotes run into a word": (b'SET "a"b\r\n', "unbalanced quotes in request"),
    "endless line": (b"x" * 70000, "too big inline request"),
}


@pytest.mark.parametrize("name", BROKEN_REQUESTS)
def test_broken_request(name: str) -> None:
    wire, trouble = BROKEN_REQUESTS[name]
    found = reader()
    found.feed(pack([b"PING"]) + wire)
    assert found.request() == [b"PING"]
    with pytest.raises(ProtocolBroken, match="^" + __import__("re").escape(trouble)):
        found.request()


def test_limits_before_authentication() -> None:
    found = reader()
    found.lock(True)
    found.feed(b"*11\r\n")
    with pytest.raises(ProtocolBroken, match="unauthenticated multibulk length"):
        found.request()
    found = reader()
    found.lock(True)
    found.feed(b"*2\r\n$4\r\nAUTH\r\n$16385\r\n")
    with pytest.raises(ProtocolBroken, match="unauthenticated bulk length"):
        found.request()


def test_configured_limits() -> None:
    for limits, wire in (
        ({"max_args": 2}, b"*3\r\n"),
        ({"max_bulk": 10}, b"*1\r\n$11\r\n"),
        ({"max_frame": 100}, b"*2\r\n$60\r\n" + b"x" * 60 + b"\r\n$60\r\n"),
    ):
        found = reader(**limits)
        found.feed(wire)
        with pytest.raises(ProtocolBroken):
            found.request()


def test_declared_length_allocates_nothing() -> None:
    found = reader(1024)
    found.feed(b"*2\r\n$3\r\nSET\r\n$500000000\r\n" + b"x" * 2000)
    assert found.request() is NEED_MORE
    found.feed(b"")
    assert found.held() < 200_000


REPLIES = {
    "status": b"+OK\r\n",
    "error": b"-ERR no such thing\r\n",
    "integer": b":-12\r\n",
    "bulk": b"$5\r\nhe\r\no\r\n",
    "empty bulk": b"$0\r\n\r\n",
    "nil bulk": b"$-1\r\n",
    "array": b"*3\r\n:1\r\n$1\r\na\r\n+b\r\n",
    "empty array": b"*0\r\n",
    "nil array": b"*-1\r\n",
    "nested": b"*2\r\n*2\r\n:1\r\n*1\r\n$1\r\na\r\n*0\r\n",
    "map": b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n",
    "set": b"~2\r\n+a\r\n+b\r\n",
    "push": b">2\r\n+message\r\n$1\r\nx\r\n",
    "null": b"_\r\n",
    "boolean": b"#t\r\n",
    "double": b",-1.5e3\r\n",
    "big number": b"(123456789012345678901234567890\r\n",
    "verbatim": b"=7\r\ntxt:abc\r\n",
    "bulk error": b"!9\r\nERR wrong\r\n",
    "attribute": b"|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n",
    "nested attribute": b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
    "streamed string": b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n",
    "streamed array": b"*?\r\n:1\r\n*?\r\n:2\r\n.\r\n$1\r\na\r\n.\r\n",
    "streamed map": b"%?\r\n+a\r\n:1\r\n.\r\n",
    "deep": b"*1\r\n" * 10_000 + b":1\r\n",
}


@pytest.mark.parametrize("name", REPLIES)
def test_reply(name: str) -> None:
    wire = REPLIES[name]
    found = reader()
    found.feed(wire + b"+next\r\n")
    assert [found.reply(), found.reply(), found.reply()] == [wire, b"+next\r\n", NEED_MORE]


@pytest.mark.parametrize("name", [name for name in REPLIES if name != "deep"])
def test_reply_split_at_every_byte(name: str) -> None:
    wire = REPLIES[name]
    for at in range(1, len(wire)):
        found = reader(SCRATCH)
        found.feed(wire[:at])
        assert found.reply() is NEED_MORE
        found.feed(wire[at:])
        assert found.reply() == wire


BROKEN_REPLIES = {
    "unknown type": b"?\r\n",
    "bad bulk length": b"$x\r\n",
    "negative bulk": b"$-2\r\n",
    "nil of a type that has none": b"=-1\r\n",
    "bulk without its CRLF": b"$1\r\nabc",
    "bad array length": b"*1x\r\n",
    "negative array": b"*-2\r\n",
    "nil map": b"%-1\r\n",
    "too many elements": b"*99999999999999999\r\n",
    "line feed in a line": b"+a\nb\r\n",
    "carriage return in a line": b"+a\rb\r\n",
    "end mark without a stream": b".\r\n",
    "end mark inside a counted array": b"*?\r\n*1\r\n.\r\n",
    "chunk without a stream": b";1\r\na\r\n",
    "other things in a streamed string": b"$?\r\n:1\r\n",
    "streams without end": b"*?\r\n" * 20,
}


@pytest.mark.parametrize("name", BROKEN_REPLIES)
def test_broken_reply(name: str) -> None:
    found = reader()
    found.feed(BROKEN_REPLIES[name])
    with pytest.raises(ProtocolBroken):
        found.reply()


def test_ghost_reply_is_not_kept() -> None:
    """The bytes of a reply that nobody waits for are dropped while they arrive."""
    found = reader(1024)
    found.forget()
    wire = b"*2\r\n$100000\r\n" + b"x" * 100_000 + b"\r\n:1\r\n+next\r\n"
    most = 0
    for at in range(0, len(wire) - 7, 700):
        found.feed(wire[at : min(at + 700, len(wire) - 7)])
        assert found.reply() is NEED_MORE or at + 700 >= len(wire) - 7
        found.feed(b"")
        most = max(most, found.held())
    found.feed(b"+next\r\n")
    assert found.reply() == b"+next\r\n"
    assert most < 1024


def test_large_bulk_is_not_searched_again() -> None:
    """Linear: a bulk that arrives in many pieces is looked at once (it holds what looks like
    frames).
    """
    wire = b"$4000000\r\n" + b"$1\r\nx\r\n*1\r\n" * 363_636 + b"abcd\r\n"
    assert len(wire) == 10 + 4_000_000 + 2
    found = reader()
    for at in range(0, len(wire), 4096):
        found.feed(wire[at : at + 4096])
        reply = found.reply()
    assert reply == wire


def test_random_cuts() -> None:
    """Many frames of many sizes, cut at random places."""
    dice = random.Random(7)
    sent = [
        [bytes([65 + i % 26]) * dice.choice([0, 1, 50, 900]) for i in range(5)] for _ in range(200)
    ]
    wire = b"".join(pack(words) for words in sent)
    found, taken, at = reader(SCRATCH), [], 0
    while at < len(wire):
        size = dice.choice([1, 3, 100, 2000])
        found.feed(wire[at : at + size])
        taken += requests(found)
        at += size
    assert taken == sent


def test_frames_are_counted() -> None:
    found = reader()
    found.feed(pack([b"GET", b"a"]) * 3 + b"PING\r\n*1\r\n")
    assert found.pass_over(False) == 4
    found = reader()
    found.feed(b"+OK\r\n$1\r\na\r\n:1")
    assert found.pass_over(True) == 2


def test_request_keeps_its_frame() -> None:
    for words in ([b"GET", b"a"], [b"SET", b"k", b"v" * 5000]):
        request = Request(pack(words))
        assert request.argv() == words
        assert request.frame_bytes == pack(words)
