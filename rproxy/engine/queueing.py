"""The ladder inside MULTI: what becomes of a command between MULTI and EXEC.

Everything is queued at the node that serves the transaction's slot, except what a server runs at
once (EXEC, DISCARD, MULTI, WATCH, QUIT, RESET), what it refuses, and what one node cannot do for
all: commands about the client's connection, whose links are not the client's, and commands for
every node. A refusal flags the transaction, so EXEC runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.local import LOCAL
from rproxy.engine.multi import COMMANDS, of
from rproxy.engine.scripting import teach
from rproxy.engine.transactions import Transaction
from rproxy.engine.ways import QUEUED, Way
from rproxy.routing.access import DENIED
from rproxy.routing.arity import arity_error
from rproxy.routing.specs import CommandFlag, CommandSpec
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

AT_ONCE = {name: COMMANDS[name] for name in ("multi", "exec", "discard", "watch")}
"""Commands that are not queued."""

LEAVING = frozenset({"quit", "reset"})
"""Commands that end a transaction as well."""

CONNECTION = frozenset(
    {"auth", "hello", "client", "readonly", "readwrite", "asking", "cluster", "proxy"}
)
"""Commands about a connection, or rproxy: a node would run them for the link, not the client."""

ONE_WILL_DO = frozenset({"ping", "echo", "time", "select", "wait", "waitaof", "publish", "info"})
"""Commands that a single node answers well enough, whatever the table says of nodes."""


def queue(engine: Engine, session: Session, request: Request) -> Way | None:
    """The Way of all requests of a session that is inside MULTI; None where it is not."""
    transaction = of(session)
    return INSIDE if transaction is not None and transaction.in_multi else None


def _inside(engine: Engine, session: Session, request: Request) -> None:
    transaction = of(session)
    assert transaction is not None
    if transaction.delays(request):
        return
    if request.spec is None:
        _unknown(engine, session, transaction, request)
    elif not request.spec.takes(len(request.argv())):
        transaction.refuse(request, arity_error(request.spec))
        if request.spec.flags & CommandFlag.EXEC:
            transaction.drop()
    else:
        _known(engine, session, transaction, request)


INSIDE = Way(QUEUED, _inside)


def _unknown(engine: Engine, session: Session, transaction: Transaction, request: Request) -> None:
    """A node that is chosen already says what it thinks; else the servers are asked."""
    name = request.argv()[0].lower()
    if transaction.lease is not None and not (transaction.spoiled or transaction.doomed):
        transaction.take(request)
    elif engine.access.is_gone(name) or engine.is_unknown(name):
        transaction.refuse(request, errors.unknown_command_reply(request.argv()))
    else:
        engine.look_up(session, request, name)


def _known(engine: Engine, session: Session, transaction: Transaction, request: Request) -> None:
    name = request.spec.name.partition("|")[0]
    if name in AT_ONCE:
        AT_ONCE[name](engine, session, request)
    elif name in LEAVING:
        LOCAL[name].take(engine, session, request)
    elif (refusal := _refusal(request.spec, name)) is not None:
        transaction.refuse(request, refusal)
    else:
        teach(engine, request)
        transaction.take(request)


def _refusal(spec: CommandSpec, root: str) -> bytes | None:
    """The error for a command that cannot be queued, or None where it can."""
    if DENIED in spec.server_flags:
        return errors.denied_reply(spec.name)
    if "no_multi" in spec.server_flags:
        return errors.NOT_IN_MULTI
    if root in ONE_WILL_DO or spec.is_keyed:
        return None
    reason = ""
    if root in CONNECTION:
        reason = "it concerns the connection"
    elif "pubsub" in spec.server_flags:
        reason = "it needs a connection of its own"
    elif "admin" in spec.server_flags:
        reason = "it administers a server"
    elif spec.request_policy:
        reason = "it concerns every node"
    return errors.not_in_multi_reply(spec.name.replace("|", " "), reason) if reason else None
