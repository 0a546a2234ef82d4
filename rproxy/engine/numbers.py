"""Integers in arguments of commands that rproxy answers itself.

Redis takes an integer in its shortest form alone, of 64 bits: no plus, no leading zero, no space.
"""

from __future__ import annotations

import re

CANONICAL = re.compile(rb"0|-?[1-9][0-9]{0,18}")
LARGEST = (1 << 63) - 1


def integer(word: bytes) -> int | None:
    """The number that the word is, or None where it is none."""
    if CANONICAL.fullmatch(word) is None:
        return None
    number = int(word)
    return number if -LARGEST - 1 <= number <= LARGEST else None
