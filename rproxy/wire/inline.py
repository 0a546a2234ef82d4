"""Text in the wire format. Inline commands: a line of words, as a person types them into telnet.

Redis's rules for quotes. Words stand between white space. "..." knows escapes: \\n \\r \\t \\b \\a,
\\xHH, and a backslash before anything else gives that byte; '...' knows only \\'. A closing quote
ends its word.
"""

from __future__ import annotations

import re

_SPACES = b" \t\n\v\f\r"
_WORD_ENDS = b" \n\r\t"
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_HEX = re.compile(rb"x([0-9a-fA-F]{2})")


def pack(words: list[bytes]) -> bytes:
    """Arguments -> one request frame, the array that an inline command stands for."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def printable(byte: int) -> str:
    """A byte (also a signed one) as an error text shows it."""
    code = byte & 0xFF
    return chr(code) if 32 <= code < 127 else f"\\x{code:02x}"


def split_words(line: bytes) -> list[bytes] | None:
    """The words of a line without its end, or None for unbalanced quotes.

    A NUL byte ends the line, as in Redis.
    """
    line = line.partition(b"\0")[0]
    words: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _SPACES:
            at += 1
        if at == len(line):
            return words
        word = bytearray()
        found = _word(line, at, word)
        if found is None:
            return None
        at = found
        words.append(bytes(word))


def _word(line: bytes, at: int, word: bytearray) -> int | None:
    """Read one word; the index behind it, or None for unbalanced quotes."""
    while at < len(line) and line[at] not in _WORD_ENDS:
        if line[at] in b"\"'":
            behind = _QUOTED[line[at : at + 1]](line, at + 1, word)
            if behind is None or (behind < len(line) and line[behind] not in _SPACES):
                return None
            return behind
        word.append(line[at])
        at += 1
    return at


def _double(line: bytes, at: int, word: bytearray) -> int | None:
    """Read on behind an opening double quote; the index behind the closing one."""
    while at < len(line):
        if line[at : at + 1] == b'"':
            return at + 1
        if line[at : at + 1] == b"\\" and at + 1 < len(line):
            at = _escape(line, at + 1, word)
        else:
            word.append(line[at])
            at += 1
    return None


def _escape(line: bytes, at: int, word: bytearray) -> int:
    """Read what stands behind a backslash; the index behind it."""
    if found := _HEX.match(line, at):
        word.append(int(found[1], 16))
        return found.end()
    letter = line[at : at + 1]
    word += _LETTERS.get(letter, letter)
    return at + 1


def _single(line: bytes, at: int, word: bytearray) -> int | None:
    """Read on behind an opening single quote; the index behind the closing one."""
    while at < len(line):
        if line[at : at + 1] == b"'":
            return at + 1
        if line[at : at + 2] == b"\\'":
            at += 1
        word.append(line[at])
        at += 1
    return None


_QUOTED = {b'"': _double, b"'": _single}
