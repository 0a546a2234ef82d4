"""The ladder: what becomes of a request that does not take the straight path. Read this page first.

A request climbs down the rungs until one takes it: an attack? -> renamed? -> paused? -> queued by
MULTI? -> unknown? -> malformed? -> locked out? -> denied? -> forbidden to a subscriber? -> about to
track changes? -> answered here? -> refused? -> the session is pinned, or this pins it? -> Pub/Sub?
-> a script to remember? -> split or broadcast? -> one slot. Each rung is a function that answers
whether it took the request. What a command is comes from the command table (rproxy/routing), never
from its name; names stand only in tables, next to what is done for them.

A rung for commands that rproxy does not serve answers an error that says so: never a wrong
answer, never a stuck connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.acknowledged import wait
from rproxy.engine.blocking import block
from rproxy.engine.broadcast import broadcast
from rproxy.engine.keyspace import KEYSPACE
from rproxy.engine.local import CONNECTING, LOCAL
from rproxy.engine.multi import COMMANDS
from rproxy.engine.placement import HARMLESS, NOWHERE, UNTOLD_POLICIES
from rproxy.engine.pubsub import confined, pubsub
from rproxy.engine.queueing import queue
from rproxy.engine.scripting import SCRIPTING, teach
from rproxy.engine.server import SERVER
from rproxy.engine.tracking_commands import begins_to_track
from rproxy.routing.access import DENIED, RENAMED
from rproxy.routing.arity import arity_error
from rproxy.routing.slots import CROSS_SLOT
from rproxy.routing.specs import CommandFlag, CommandSpec
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Rung = Callable[["Engine", "Session", Request], bool]

ATTACKS = {b"post", b"host:"}
"""First words of HTTP requests, sent by a browser that someone has lured here: Redis closes at
once, so do we.
"""

ADMIN = frozenset({"admin"})
"""Flags of commands that change or stop servers."""

WAITS = frozenset({"wait", "waitaof"})
"""Commands that wait for replicas of every master."""

OWN_WAYS = {**KEYSPACE, **SCRIPTING, **SERVER}
"""Commands that take more than one place, or more than a rule for the replies."""


def dispatch(engine: Engine, session: Session, request: Request) -> None:
    """Take one request down the ladder."""
    for rung in LADDER:
        if rung(engine, session, request):
            return
    raise AssertionError("the last rung takes every request")


def root(spec: CommandSpec) -> str:
    """The command's own name, without a subcommand."""
    return spec.name.partition("|")[0]


def _attack(engine: Engine, session: Session, request: Request) -> bool:
    """HTTP; some servers have its words in their command tables, so being known means nothing."""
    if request.argv()[0].lower() not in ATTACKS:
        return False
    engine.probe.client_broke_protocol(session.client.address, "an HTTP request")
    session.end()
    return True


def _renamed(engine: Engine, session: Session, request: Request) -> bool:
    """The operator's name for a command: the request goes on under the servers' name."""
    if request.spec is not None and RENAMED in request.spec.server_flags:
        name, *words = request.argv()
        argv = [engine.access.original(name) or name, *words]
        session.rewrite(request, pack(argv), engine.meant.lookup(*argv[:2]))
    return False


def _paused(engine: Engine, session: Session, request: Request) -> bool:
    """CLIENT PAUSE: the request waits, and its session with it."""
    if not engine.pause.holds(session, request):
        return False
    engine.pause.take(session, request)
    return True


def _unknown(engine: Engine, session: Session, request: Request) -> bool:
    """Not in the table: locked out, or looked up at the servers."""
    if request.spec is not None:
        return False
    if not session.client.authenticated:
        session.answer(errors.AUTH_NEEDED, request)
    elif engine.access.is_gone(request.argv()[0]):
        session.answer(errors.unknown_command_reply(request.argv()), request)
    else:
        engine.look_up(session, request, request.argv()[0].lower())
    return True


def _malformed(engine: Engine, session: Session, request: Request) -> bool:
    """The wrong number of arguments."""
    if request.spec.takes(len(request.argv())):
        return False
    session.answer(arity_error(request.spec), request)
    return True


def _locked_out(engine: Engine, session: Session, request: Request) -> bool:
    """Not authenticated: only the commands that authenticate or leave."""
    if session.client.authenticated or root(request.spec) in CONNECTING:
        return False
    session.answer(errors.AUTH_NEEDED, request)
    return True


def _denied(engine: Engine, session: Session, request: Request) -> bool:
    """The operator denies the command to everybody."""
    if DENIED not in request.spec.server_flags:
        return False
    session.answer(errors.denied_reply(request.spec.name), request)
    return True


def _answered_here(engine: Engine, session: Session, request: Request) -> bool:
    """State of the client or of rproxy: see local.py."""
    answer = LOCAL.get(root(request.spec)) or LOCAL.get(request.spec.name)
    if answer is None or request.spec.name == "client|help":  # any node helps as well
        return False
    answer(engine, session, request)
    return True


def _refused(engine: Engine, session: Session, request: Request) -> bool:
    """Commands that nobody can stand for; those that change or stop servers, unless allowed."""
    spec = request.spec
    if spec.name in NOWHERE:
        return _not_served(session, request, NOWHERE[spec.name])
    if not spec.server_flags & ADMIN or spec.name in HARMLESS:
        return False
    if engine.config.admin_commands == "allow":
        return False
    session.answer(errors.admin_reply(spec.name.replace("|", " ")), request)
    return True


def _pinned(engine: Engine, session: Session, request: Request) -> bool:
    """Transactions and blocking commands have a link of their own (inside MULTI: queueing.py)."""
    act = COMMANDS.get(request.spec.name)
    if act is not None:
        act(engine, session, request)
        return True
    if request.spec.name in WAITS:
        wait(engine, session, request)
        return True
    return "blocking" in request.spec.server_flags and block(engine, session, request)


def _taught(engine: Engine, session: Session, request: Request) -> bool:
    """Scripts are remembered on their way to the servers; flushed ones are forgotten."""
    teach(engine, request)
    return False


def _spread(engine: Engine, session: Session, request: Request) -> bool:
    """Commands for several nodes, or for keys in several slots."""
    spec = request.spec
    if spec.request_policy == "multi_shard":
        if not spec.flags & CommandFlag.MULTI_SHARD or session.assign(request) != CROSS_SLOT:
            return False
        session.split(request)
        return True
    answer = OWN_WAYS.get(spec.name)
    if answer is None and not spec.request_policy and spec.name not in UNTOLD_POLICIES:
        return False
    if not engine.cluster.slotmap.masters:
        engine.wait_for_map(session, request)
        return True
    if answer is not None:
        answer(engine, session, request)
        return True
    return broadcast(engine, session, request) or _not_served(
        session, request, "it concerns every node"
    )


def _one_slot(engine: Engine, session: Session, request: Request) -> bool:
    """Everything else goes to one node, or is refused because it would need several."""
    slot = session.assign(request)
    if slot == CROSS_SLOT:
        session.answer(errors.CROSS_SLOT, request)
    elif slot >= 0:
        session.forward(request)
    else:  # no key, or none that can be found: any node answers, or says what is wrong
        session.enter(request)
        engine.cluster.send_anywhere(session.protocol, request)
    return True


def _not_served(session: Session, request: Request, why: str) -> bool:
    session.answer(errors.not_served_reply(request.spec.name.replace("|", " "), why), request)
    return True


LADDER: tuple[Rung, ...] = (
    _attack,
    _renamed,
    _paused,
    queue,
    _unknown,
    _malformed,
    _locked_out,
    _denied,
    confined,
    begins_to_track,
    _answered_here,
    _refused,
    _pinned,
    pubsub,
    _taught,
    _spread,
    _one_slot,
)
