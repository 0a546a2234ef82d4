"""Globs match what Redis's do."""

from __future__ import annotations

import pytest

from rproxy.engine.glob import compile_glob


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (b"", [b""], [b"a"]),
        (b"*", [b"", b"a\nb", b"\xff"], []),
        (b"a*c", [b"ac", b"abbc"], [b"abcd", b"bac"]),
        (b"a**c", [b"ac"], [b"ab"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo"]),
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"[a", [b"a"], [b"b", b"[a"]),
        (b"[]", [], [b"[]", b"a"]),
        (b"[^]", [b"a"], [b""]),
        (b"a\\*c", [b"a*c"], [b"abc"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"a.c", [b"a.c"], [b"abc"]),
        (b"key\n", [b"key\n"], [b"key"]),
    ],
)
def test_glob(pattern: bytes, matching: list[bytes], other: list[bytes]) -> None:
    found = compile_glob(pattern)
    assert [key for key in matching + other if found.match(key)] == matching
