"""What an error reply means for its request, and how long to wait before the next try. Pure.

Strategy. Only an error's first word counts, and one table says what it means. Every kind but PASS
proves that the command was not executed, so it may be sent again; PASS is everything else, and the
client sees it as it is. A MOVED or ASK that does not have Redis's form is PASS as well: better an
error that a client can read than a guess.

NOAUTH and WRONGPASS (of our own user) are kept from clients: the link has to log in again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """What to do."""

    PASS = auto()
    """Give the error to the client."""

    MOVED = auto()
    """Send the command to the slot's new owner, and remember that owner."""

    ASK = auto()
    """Send the command, after ASKING, to the node named; the slot map stays."""

    TRYAGAIN = auto()
    """The slot is half migrated: cut the command into one-key pieces, or try again later."""

    CLUSTERDOWN = auto()
    """Ask for the slot map; try again later."""

    READONLY = auto()
    """The node is a replica now: ask for the slot map; try again at the new master."""

    LOADING = auto()
    """The node reads its data from disk: another replica, or later."""

    MASTERDOWN = auto()
    """The replica has lost its master: ask the master."""

    NOSCRIPT = auto()
    """The node does not know the script: teach it, where the script is remembered."""

    NOAUTH = auto()
    """Our own login is gone or wrong: log in again, tell the operator."""


class Verdict(NamedTuple):
    """The decision about one error reply."""

    kind: Kind
    slot: int = -1
    """Of MOVED and ASK: the slot, 0 to 16383."""

    endpoint: str = ""
    """Of MOVED and ASK: "host:port" as the node wrote it; see slotmap.address_of_redirect."""


PASS = Verdict(Kind.PASS)

_KINDS = {
    b"-MOVED": Kind.MOVED,
    b"-ASK": Kind.ASK,
    b"-TRYAGAIN": Kind.TRYAGAIN,
    b"-CLUSTERDOWN": Kind.CLUSTERDOWN,
    b"-READONLY": Kind.READONLY,
    b"-LOADING": Kind.LOADING,
    b"-MASTERDOWN": Kind.MASTERDOWN,
    b"-NOAUTH": Kind.NOAUTH,
    b"-NOSCRIPT": Kind.NOSCRIPT,
    b"-WRONGPASS": Kind.NOAUTH,
}

_REDIRECTIONS = (Kind.MOVED, Kind.ASK)

_LONGEST = 512
"""Bytes of an error that are looked at; a host name has 255 at most."""


def verdict(reply: bytes) -> Verdict:
    """What the error reply (with its `-`, and CRLF or not) means. Never raises."""
    words = reply[:_LONGEST].split(None, 3)
    kind = _KINDS.get(words[0], Kind.PASS) if words else Kind.PASS
    if kind in _REDIRECTIONS:
        return _redirection(kind, words[1:])
    return Verdict(kind)


def _redirection(kind: Kind, words: list[bytes]) -> Verdict:
    """The verdict for [slot, endpoint]; PASS where it is anything else."""
    if len(words) != 2 or len(words[0]) > 5 or not words[0].isdigit() or int(words[0]) > 16383:
        return PASS
    _, colon, port = words[1].rpartition(b":")
    if not colon or len(port) > 5 or not port.isdigit() or not 0 < int(port) < 65536:
        return PASS
    try:
        return Verdict(kind, int(words[0]), words[1].decode())
    except UnicodeDecodeError:
        return PASS


def backoff(attempt: int, base: float, cap: float, random: Callable[[], float]) -> float:
    """Seconds to wait before the next try, after `attempt` failed ones in a row.

    Equal jitter: half of `base * 2 ** (attempt - 1)`, at most `cap`, is fixed, the other half is
    random, so that many who failed together do not come back together. `random()` gives 0 to 1.
    """
    # Past 2 ** 30 every cap is reached; a larger power would overflow in the end.
    whole = min(cap, base * 2.0 ** min(max(attempt - 1, 0), 30))
    return whole / 2 + whole / 2 * random()
