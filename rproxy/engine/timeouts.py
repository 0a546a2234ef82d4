"""How long a blocking command waits: where its timeout stands, and the same with less of it.

A command that is sent again to another node waits only for what is left of its time. Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rproxy.routing.specs import CommandSpec
from rproxy.wire.frames import pack


class Place(NamedTuple):
    """Where a command's timeout stands."""

    at: int
    """Index among the arguments; negative: from the end."""

    unit: float = 1.0
    """Seconds of one unit; units below a second are whole numbers."""


MILLISECONDS = 0.001
LEAST = 0.001
"""Seconds that are left at least: none would be forever."""

PLACES = {
    "blpop": Place(-1),
    "brpop": Place(-1),
    "brpoplpush": Place(-1),
    "blmove": Place(-1),
    "bzpopmin": Place(-1),
    "bzpopmax": Place(-1),
    "blmpop": Place(1),
    "bzmpop": Place(1),
}
"""Commands whose timeout stands at a fixed place."""

OPTIONS = {b"count": 2, b"noack": 1, b"group": 3, b"block": 2}
"""Options of XREAD and XREADGROUP that stand before STREAMS, and their words."""


def place_of(spec: CommandSpec, words: list[bytes]) -> Place | None:
    """Where the timeout of this request stands; None where it does not wait.

    XREAD and XREADGROUP block only with BLOCK among their options. These are read from left to
    right, as Redis does: a group may be called "streams", too.
    """
    if not spec.name.startswith("xread"):
        return PLACES.get(spec.name, Place(-1))
    at = 1
    while at < len(words) and (option := words[at].lower()) in OPTIONS:
        if option == b"block":
            return Place(at + 1, MILLISECONDS) if at + 1 < len(words) else None
        at += OPTIONS[option]
    return None


def waits_for(place: Place, words: list[bytes]) -> float | None:
    """The timeout in seconds, 0 for forever; None where it is no number: the server says so."""
    try:
        seconds = float(words[place.at]) * place.unit
    except (ValueError, IndexError):
        return None
    return seconds if math.isfinite(seconds) else None


def shortened(place: Place, words: list[bytes], left: float) -> bytes:
    """The request with `left` seconds to wait, as a frame."""
    units = max(left, LEAST) / place.unit
    text = f"{math.ceil(units)}" if place.unit < 1 else f"{units:.3f}"
    changed = list(words)
    changed[place.at] = text.encode()
    return pack(changed)


def last_ids(words: list[bytes]) -> dict[int, bytes]:
    """Arguments of XREAD that are `$`, by index, and the key that each is for."""
    lower = [word.lower() for word in words]
    first = lower.index(b"streams") + 1 if b"streams" in lower else len(words)
    half = (len(words) - first) // 2
    return {at: words[at - half] for at in range(first + half, len(words)) if words[at] == b"$"}
