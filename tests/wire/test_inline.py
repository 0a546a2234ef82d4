"""Inline commands: Redis's rules for words and quotes."""

from __future__ import annotations

import pytest

from rproxy.wire.inline import split_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \t ", []),
        (b"GET a", [b"GET", b"a"]),
        (b"  a \v b  ", [b"a", b"b"]),
        (b"'b\\'c' d", [b"b'c", b"d"]),
        (b'"\\t\\x4a\\q\\""', [b'\tJq"']),
        (b'"\\x4"', [b"x4"]),
        (b"'\\n'", [b"\\n"]),
        (b'""', [b""]),
        (b'a"b"', [b"ab"]),
        (b"a\0b", [b"a"]),
        (b"'a", None),
        (b'"a', None),
        (b'"a\\', None),
        (b"'a'b", None),
        (b'"a""b"', None),
    ],
)
def test_words(line: bytes, words: list[bytes] | None) -> None:
    assert split_words(line) == words
