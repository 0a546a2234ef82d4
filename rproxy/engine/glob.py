"""Redis's glob patterns, for keys that rproxy itself has to choose by MATCH."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=256)
def compile_glob(pattern: bytes) -> re.Pattern[bytes]:
    """The expression that matches what the pattern matches: `* ? [a-c] [^x] \\\\x`, whole keys."""
    parts: list[bytes] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at : at + 1]
        at += 1
        if letter == b"*":
            # Of several stars in a row one is enough, and cheap to match.
            if parts[-1:] != [b".*"]:
                parts.append(b".*")
        elif letter == b"?":
            parts.append(b".")
        elif letter == b"[":
            part, at = _class(pattern, at)
            parts.append(part)
        elif letter == b"\\" and at < len(pattern):
            parts.append(re.escape(pattern[at : at + 1]))
            at += 1
        else:
            parts.append(re.escape(letter))
    return re.compile(b"".join(parts) + rb"\Z", re.DOTALL)


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The part for `[...]` whose first letter is at `at`, and where it ends."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    chosen: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            chosen.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            chosen.update(range(low, high + 1))
            at += 3
        else:
            chosen.add(pattern[at])
            at += 1
    letters = b"".join(re.escape(bytes([letter])) for letter in sorted(chosen))
    if not letters:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[%b%b]" % (b"^" if negated else b"", letters), at + 1
