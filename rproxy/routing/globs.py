"""Redis's glob patterns, as PSUBSCRIBE and KEYS know them. Pure.

`*` stands for any bytes, `?` for one, `[a-z]` and `[^a-z]` for one byte of a set, a backslash takes
the next byte as it is. An unclosed set reaches to the pattern's end, and a range may be written
backwards, as in Redis.

A stranger writes patterns, so matching must not take long whatever the pattern says: each `*` takes
the first place where what follows it fits, and is never tried again (for a glob that is enough).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

STAR = b"*"
"""The token that stands for any bytes; every other one is a regular expression for one byte."""


def matcher(pattern: bytes) -> re.Pattern[bytes]:
    """A regular expression whose `fullmatch` says what Redis says of the pattern."""
    first, *rest = _segments(pattern)
    parts = [first]
    # All but the last take the first place that fits; the last one has to reach the end.
    parts += [b"(?>.*?" + segment + b")" for segment in rest[:-1]]
    parts += [b".*" + segment for segment in rest[-1:]]
    return re.compile(b"".join(parts), re.DOTALL)


def may_begin(pattern: bytes, prefix: bytes) -> bool:
    """Whether something that begins with `prefix` can match the pattern (True in doubt)."""
    tokens = list(_tokens(pattern))
    places = _past_stars(tokens, {0})
    for byte in prefix:
        letter = bytes([byte])
        moved = {at for at in places if at < len(tokens) and tokens[at] == STAR}
        moved |= {
            at + 1
            for at in places
            if at < len(tokens) and tokens[at] != STAR and re.match(tokens[at], letter, re.DOTALL)
        }
        places = _past_stars(tokens, moved)
    return bool(places)


def _past_stars(tokens: list[bytes], places: set[int]) -> set[int]:
    """The places, and those behind stars, which may stand for nothing."""
    found = set(places)
    for at in places:
        while at < len(tokens) and tokens[at] == STAR:
            at += 1
            found.add(at)
    return found


def _segments(pattern: bytes) -> list[bytes]:
    """The regular expressions between the stars, at least one."""
    segments = [b""]
    for token in _tokens(pattern):
        if token != STAR:
            segments[-1] += token
        elif len(segments) == 1 or segments[-1]:  # several stars are one
            segments.append(b"")
    return segments


def _tokens(pattern: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(pattern):
        letter = pattern[at : at + 1]
        if letter == b"[":
            at, token = _set(pattern, at + 1)
            yield token
            continue
        if letter == b"\\" and at + 1 < len(pattern):
            at += 1
            yield re.escape(pattern[at : at + 1])
        elif letter == b"*":
            yield STAR
        else:
            yield b"." if letter == b"?" else re.escape(letter)
        at += 1


def _set(pattern: bytes, at: int) -> tuple[int, bytes]:
    """The place behind a set whose inside begins at `at`, and its regular expression."""
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
    return at + 1, _one_of(chosen, negated)


def _one_of(chosen: set[int], negated: bool) -> bytes:
    if not chosen:
        return b"." if negated else b"(?!)"
    inside = b"".join(b"\\x%02x" % byte for byte in sorted(chosen))
    return b"[" + (b"^" if negated else b"") + inside + b"]"
