"""The commands of transactions: what each does to a session in MULTI, with a watch or without.

The states are Transaction's (transactions.py); here is who gets Redis's errors for a command at the
wrong time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.replies import OK
from rproxy.engine.scattered import ScatteredTransaction
from rproxy.engine.transactions import Transaction
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session


KINDS: dict[str, type[Transaction]] = {
    "one-slot": Transaction,
    "per-slot": ScatteredTransaction,
}
"""By the option `transactions`."""


def of(session: Session) -> Transaction | None:
    """The session's transaction or watch, if it has one."""
    return session.pin if isinstance(session.pin, Transaction) else None


def _new(engine: Engine, session: Session) -> Transaction:
    return KINDS[engine.config.transactions](engine, session)


def _multi(engine: Engine, session: Session, request: Request) -> None:
    transaction = of(session)
    if transaction is not None and transaction.in_multi:
        session.answer(errors.NESTED_MULTI, request)
    else:
        (transaction or _new(engine, session)).begin()


def _exec(engine: Engine, session: Session, request: Request) -> None:
    transaction = of(session)
    if transaction is None or not transaction.in_multi:
        session.answer(errors.EXEC_OUTSIDE, request)
    else:
        transaction.exec(request)


def _discard(engine: Engine, session: Session, request: Request) -> None:
    transaction = of(session)
    if transaction is None or not transaction.in_multi:
        session.answer(errors.DISCARD_OUTSIDE, request)
    else:
        transaction.discard(request)


def _watch(engine: Engine, session: Session, request: Request) -> None:
    transaction = of(session)
    if transaction is None:
        transaction = _new(engine, session)
        session.pin_to(transaction, straight=True)
    if transaction.in_multi:
        session.answer(errors.WATCH_INSIDE, request)
    else:
        transaction.watch(request)


def _unwatch(engine: Engine, session: Session, request: Request) -> None:
    transaction = of(session)
    if transaction is not None:
        transaction.drop()
    session.answer(OK, request)


def watched_slot(session: Session) -> int:
    """The slot of what the session watches, or -1; inside MULTI no slot matters to WATCH."""
    transaction = of(session)
    return -1 if transaction is None else transaction.slot


def unwatch(session: Session, for_good: bool = True) -> None:
    """The client leaves its transaction, or what it watches; or it may lose the link for that."""
    transaction = of(session)
    if transaction is not None and for_good:
        transaction.drop()
    elif transaction is not None:
        transaction.give_up_watch()


Command = Callable[["Engine", "Session", Request], None]

COMMANDS: dict[str, Command] = {
    "multi": _multi,
    "exec": _exec,
    "discard": _discard,
    "watch": _watch,
    "unwatch": _unwatch,
}
"""What a session that is not inside MULTI may send of these; inside, UNWATCH is queued."""
