"""Ways: what can become of a command, in one word, and the function that does it.

The ladder (dispatch.py) finds a Way and has it take the request; PROXY EXPLAIN finds the same Way
and only tells of it. So what is said and what is done are one thing: a rung cannot do what its Way
does not name. A Way that is an error and nothing else shows the error, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rproxy.errors import not_served_reply
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Take = Callable[["Engine", "Session", Request], None]

SLOT, SPLIT, ANY, MASTERS = "slot", "split", "any", "masters"
"""Sent on the links that clients share: to one slot's node, in pieces, to any node, to all."""

HERE, PUBSUB, TRANSACTION, BLOCKING = "rproxy", "pubsub", "transaction", "blocking"
"""Answered here, or on feeds, or on links of the client's own."""

REFUSED, DENIED, RENAMED, UNSERVED = "refused", "denied", "renamed", "unserved"
"""Not for this proxy's clients, whatever they send."""

CROSS, ARITY, UNKNOWN, NO_AUTH, CONFINED = "crossslot", "arity", "unknown", "noauth", "confined"
PAUSED, QUEUED, ATTACK = "paused", "queued", "attack"
"""What only a request with its arguments can meet, or a client's state."""

SENT = frozenset({SLOT, SPLIT, ANY, MASTERS})


class Way(NamedTuple):
    """What becomes of a command."""

    name: str
    """One of the words above."""

    take: Take
    """Does it."""

    error: bytes = b""
    """The reply, where that is an error and nothing else happens."""


def refusal(name: str, error: bytes) -> Way:
    """The Way on which an error is the answer."""

    def take(engine: Engine, session: Session, request: Request) -> None:
        session.answer(error, request)

    return Way(name, take, error)


def unserved(name: str, why: str) -> Way:
    """The Way of a command that nobody can stand for."""
    return refusal(UNSERVED, not_served_reply(name.replace("|", " "), why))


def _anywhere(engine: Engine, session: Session, request: Request) -> None:
    session.enter(request)
    engine.cluster.send_anywhere(session.protocol, request)


def _forward(engine: Engine, session: Session, request: Request) -> None:
    session.forward(request)


def _split(engine: Engine, session: Session, request: Request) -> None:
    session.split(request)


TO_ANY = Way(ANY, _anywhere)
TO_SLOT = Way(SLOT, _forward)
IN_PIECES = Way(SPLIT, _split)
