"""NOLOOP: which changes are the client's own.

The nodes tell of changes, but not who made them. So a client's own write is looked after: when it
is answered, the node that has told of it is asked for the value, on the connection on which it
tells. If that is what the client has written, nobody came between, and the client need not hear of
its own doing. In every other case, and for commands that are not in the table here, it is told:
once too often rather than once too seldom.
"""

from __future__ import annotations

from collections.abc import Callable

from rproxy.engine.replies import encode
from rproxy.wire.frames import Request

Words = list[bytes]
Values = dict[bytes, bytes | None]

MOST_KEYS = 16
"""Keys of one command that are looked after."""

LARGEST = 1 << 16
"""Bytes of a value that is read again."""


def _value_at(place: int) -> Callable[[Words], Values]:
    return lambda argv: {argv[1]: argv[place]}


def _pairs(argv: Words) -> Values:
    return dict(zip(argv[1::2], argv[2::2], strict=False))


def _nothing(argv: Words) -> Values:
    return dict.fromkeys(argv[1:])


def _unknown(argv: Words) -> Values:
    return {}


LEAVES: dict[str, Callable[[Words], Values]] = {
    "set": _value_at(2),
    "setnx": _value_at(2),
    "getset": _value_at(2),
    "setex": _value_at(3),
    "psetex": _value_at(3),
    "mset": _pairs,
    "del": _nothing,
    "unlink": _nothing,
}
"""Command -> the keys that it writes, and the values that they have then; None for no key."""


class Write:
    """What a client is writing to one key."""

    __slots__ = ("count", "heard")

    def __init__(self) -> None:
        self.count = 0
        """Writes that are not looked after yet."""
        self.heard = False
        """Whether the node has told of a change meanwhile."""


def expected(request: Request) -> list[tuple[bytes, bytes]]:
    """The keys that a command writes, and GET's reply in RESP3 if it was the last to do so."""
    values = LEAVES.get(request.spec.name, _unknown)(request.argv())
    if len(values) > MOST_KEYS or any(value and len(value) > LARGEST for value in values.values()):
        return []
    return [(key, encode(value, 3)) for key, value in values.items()]
