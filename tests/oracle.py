"""The truth for differential tests: RESP and hash slots, written as plainly as Python allows.

Nothing here is incremental or fast: each parser looks at all bytes there are and says what the
first item is, that more bytes are needed (None), or what is wrong. It speaks up as early as a byte
can be wrong: no number that cannot become a canonical one waits for its line end. A reader that is
fed the same bytes in any pieces has to come to the same results.

Requests are strict: canonical numbers (no plus, no leading zero, no -0), CRLF behind every head and
every bulk; only inline commands may end in a bare line feed. Error texts are Redis's own, without
"ERR Protocol error: ", where Redis refuses too. An empty array, a null array and a line without a
word are consumed as a request of no arguments, which nobody answers.

Replies are judged by their framing: what stands in a line is not looked at, and what is said about
a broken one is the oracle's own wording.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

INT_MAX = 2**31 - 1
MAX_BULK = 512 << 20
INLINE_LIMIT = 65536
"""Bytes of an inline command without its line end."""
LOCKED_ARGS, LOCKED_BULK = 10, 16384
"""Limits of a client that has not authenticated yet."""

_NUMBER = re.compile(rb"(0|-?[1-9][0-9]{0,17})\r\n")
_NUMBER_SO_FAR = re.compile(rb"|-|(0|-?[1-9][0-9]{0,17})\r?")
_LINE = re.compile(rb"([^\r\n]*)\r\n")
_LINE_SO_FAR = re.compile(rb"[^\r\n]*\r?")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


@dataclass
class ProtocolError(Exception):
    """The bytes break the protocol; for requests `text` is Redis's own where it has one."""

    text: str


@dataclass(frozen=True)
class Typed:
    """A value that is no bulk string, integer, null or array: its type byte and what it holds.

    Lines hold bytes, sets and pushes a list, maps a flat list; "|" holds (attributes, value).
    """

    kind: str
    value: Any


class _More(Exception):
    """The item goes on behind the bytes that are there."""


# --- Requests ---


def parse_request(
    wire: bytes, *, locked: bool = False, max_args: int = INT_MAX, max_bulk: int = MAX_BULK
) -> tuple[list[bytes], int] | ProtocolError | None:
    """The first request -> (arguments, bytes consumed), ProtocolError, or None for more bytes.

    `locked`: the limits for a client that has not authenticated yet.
    """
    try:
        if not wire:
            return None
        if wire[:1] != b"*":
            return _inline(wire)
        return _array(wire, locked, max_args, max_bulk)
    except _More:
        return None
    except ProtocolError as error:
        return error


def _array(wire: bytes, locked: bool, max_args: int, max_bulk: int) -> tuple[list[bytes], int]:
    count, at = _number(wire, 1, "invalid multibulk length")
    if count > max_args:
        raise ProtocolError("invalid multibulk length")
    if locked and count > LOCKED_ARGS:
        raise ProtocolError("unauthenticated multibulk length")
    arguments = []
    for _ in range(count):
        kind = _byte(wire, at)
        if kind != b"$":
            raise ProtocolError(f"expected '$', got '{_printable(kind[0])}'")
        size, at = _number(wire, at + 1, "invalid bulk length")
        if not 0 <= size <= max_bulk:
            raise ProtocolError("invalid bulk length")
        if locked and size > LOCKED_BULK:
            raise ProtocolError("unauthenticated bulk length")
        argument, at = _bulk(wire, at, size)
        arguments.append(argument)
    return arguments, at


def _inline(wire: bytes) -> tuple[list[bytes], int]:
    line, newline, _ = wire.partition(b"\n")
    if len(line.removesuffix(b"\r")) > INLINE_LIMIT:
        raise ProtocolError("too big inline request")
    if not newline:
        raise _More
    return split_words(line.removesuffix(b"\r")), len(line) + 1


def split_words(line: bytes) -> list[bytes]:
    """The words of an inline command by Redis's quoting rules; raises ProtocolError.

    A NUL ends the line, as it does for Redis.
    """
    rest, words = line.partition(b"\0")[0], []
    while rest := rest.lstrip(b" \t\n\v\f\r"):
        word, rest = _word(rest)
        words.append(word)
    return words


def _word(rest: bytes) -> tuple[bytes, bytes]:
    """The first word and what follows it. A quote may begin inside a word, but ends it."""
    plain = re.match(rb"[^ \t\n\r\"']*", rest)[0]  # type: ignore[index]
    rest = rest[len(plain) :]
    if rest[:1] not in (b'"', b"'"):
        return plain, rest
    parts = rb'\\x[0-9a-fA-F]{2}|\\.|[^"\\]' if rest[:1] == b'"' else rb"\\'|\\(?!')|[^'\\]"
    quoted = re.match(rb"(.)((?:" + parts + rb")*)\1(?![^ \t\n\v\f\r])", rest, re.DOTALL)
    if quoted is None:
        raise ProtocolError("unbalanced quotes in request")
    inside = re.findall(parts, quoted[2], re.DOTALL)
    return plain + b"".join(map(_unescaped, inside)), rest[quoted.end() :]


def _unescaped(part: bytes) -> bytes:
    if len(part) == 4:
        return bytes([int(part[2:], 16)])
    return _ESCAPES.get(part[1:], part[1:]) if len(part) == 2 else part


# --- Replies ---


def parse_reply(wire: bytes) -> tuple[Any, int] | ProtocolError | None:
    """The first reply or push -> (value, bytes consumed), ProtocolError, or None for more bytes."""
    try:
        return _value(wire, 0)
    except _More:
        return None
    except ProtocolError as error:
        return error


def _value(wire: bytes, at: int) -> tuple[Any, int]:
    kind = _byte(wire, at).decode("latin-1")
    if kind in "$=!":
        return _string(wire, at, kind)
    if kind in "*~%>|":
        return _aggregate(wire, at, kind)
    if kind in "+-:_#,(":
        line, at = _match(_LINE, _LINE_SO_FAR, wire, at + 1, "a bare CR or LF in a line")
        if kind == "_" and not line:
            return None, at
        if kind == ":" and _NUMBER.fullmatch(line + b"\r\n"):
            return int(line), at
        return Typed(kind, line), at
    raise ProtocolError(f"unknown reply type '{_printable(ord(kind))}'")


def _string(wire: bytes, at: int, kind: str) -> tuple[Any, int]:
    if kind == "$" and wire[at + 1 : at + 2] == b"?":
        return _chunks(wire, _literal(wire, at, b"$?\r\n"))
    size, at = _number(wire, at + 1, "invalid bulk length in a reply")
    if size == -1 and kind == "$":
        return None, at
    if size < 0:
        raise ProtocolError("invalid bulk length in a reply")
    text, at = _bulk(wire, at, size)
    return (text if kind == "$" else Typed(kind, text)), at


def _chunks(wire: bytes, at: int) -> tuple[bytes, int]:
    text, size = b"", 1
    while size:
        if _byte(wire, at) != b";":
            raise ProtocolError("a streamed string has something else in it")
        size, at = _number(wire, at + 1, "invalid bulk length in a reply")
        if size < 0:
            raise ProtocolError("invalid bulk length in a reply")
        if size:
            chunk, at = _bulk(wire, at, size)
            text += chunk
    return text, at


def _aggregate(wire: bytes, at: int, kind: str) -> tuple[Any, int]:
    values: list[Any] = []
    if wire[at + 1 : at + 2] == b"?":
        at = _literal(wire, at, kind.encode() + b"?\r\n")
        while _byte(wire, at) != b".":
            value, at = _value(wire, at)
            values.append(value)
        at = _literal(wire, at, b".\r\n")
    else:
        count, at = _number(wire, at + 1, "invalid aggregate length in a reply")
        if count == -1 and kind == "*":
            return None, at
        if count < 0:
            raise ProtocolError("invalid aggregate length in a reply")
        for _ in range(count * 2 if kind in "%|" else count):
            value, at = _value(wire, at)
            values.append(value)
    if kind == "|":
        value, at = _value(wire, at)
        return Typed(kind, (values, value)), at
    return (values if kind == "*" else Typed(kind, values)), at


# --- Pieces of both ---


def _byte(wire: bytes, at: int) -> bytes:
    if at >= len(wire):
        raise _More
    return wire[at : at + 1]


def _number(wire: bytes, at: int, trouble: str) -> tuple[int, int]:
    digits, at = _match(_NUMBER, _NUMBER_SO_FAR, wire, at, trouble)
    return int(digits), at


def _match(
    whole: re.Pattern[bytes], so_far: re.Pattern[bytes], wire: bytes, at: int, trouble: str
) -> tuple[bytes, int]:
    if found := whole.match(wire, at):
        return found[1], found.end()
    if so_far.fullmatch(wire, at):
        raise _More
    raise ProtocolError(trouble)


def _bulk(wire: bytes, at: int, size: int) -> tuple[bytes, int]:
    end = at + size
    return wire[at:end], _literal(wire, end, b"\r\n", "bulk string is not followed by CRLF")


def _literal(wire: bytes, at: int, text: bytes, trouble: str = "invalid streamed item") -> int:
    """The index behind `text`, which has to stand at `at`."""
    found = wire[at : at + len(text)]
    if not text.startswith(found):
        raise ProtocolError(trouble)
    if len(found) < len(text):
        raise _More
    return at + len(text)


def _printable(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"


# --- Writing ---


def encode_request(arguments: list[bytes]) -> bytes:
    """A request as clients send it."""
    return encode(list(arguments))


def encode(value: Any, protocol: int = 2) -> bytes:
    """A value as parse_reply gives it -> its bytes; only null depends on the protocol."""
    if value is None:
        return b"$-1\r\n" if protocol == 2 else b"_\r\n"
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(encode(v, protocol) for v in value)
    return _encode_typed(value.kind, value.value, protocol)


def _encode_typed(kind: str, value: Any, protocol: int) -> bytes:
    start = kind.encode()
    if kind == "|":
        attributes, answer = value
        return start + _encode_typed("%", attributes, protocol)[1:] + encode(answer, protocol)
    if kind in "~%>":
        count = len(value) // 2 if kind == "%" else len(value)
        return start + b"%d\r\n" % count + b"".join(encode(v, protocol) for v in value)
    if kind in "=!":
        return start + encode(value)[1:]
    return start + bytes(value) + b"\r\n"


# --- Slots ---


def crc16(text: bytes) -> int:
    """CRC16/XMODEM, bit by bit."""
    crc = 0
    for byte in text:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def slot(key: bytes) -> int:
    """The hash slot of a key."""
    tag = re.search(rb"\{([^}]*)\}", key, re.DOTALL)
    return crc16(tag[1] if tag and tag[1] else key) % 16384
