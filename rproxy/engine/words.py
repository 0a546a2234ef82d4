"""Names in tables: written as text, a line as long as it may be, and read as a set."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text that white space separates."""
    return frozenset(text.split())
