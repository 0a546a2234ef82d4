"""The ladder: what becomes of a request that does not take the straight path. Read this page first.

A request climbs down the rungs until one knows its Way: an attack? -> renamed? -> paused? ->
queued by MULTI? -> unknown? -> malformed? -> locked out? -> denied? -> forbidden to a subscriber?
-> answered here? -> administration? -> keys that are not together? -> a transaction's? ->
blocking? -> Pub/Sub? -> split? -> for every master? -> one slot. A rung judges, and changes nothing
but the request that it is shown; the Way that is found then takes the request (ways.py). So PROXY
EXPLAIN asks the same rungs. Rungs that need no more than the command also answer in general, for
PROXY COMMANDS.

What a command is comes from the command table (rproxy/routing), never from its name; names stand
only in tables, next to what is done for them. A command that rproxy does not serve is answered with
an error that says so: never a wrong answer, never a stuck connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rproxy import errors
from rproxy.engine import multi, pubsub, ways
from rproxy.engine.acknowledged import WAITS
from rproxy.engine.blocking import block, may_wait
from rproxy.engine.broadcast import broadcast, rule_for
from rproxy.engine.emulation import cluster
from rproxy.engine.explain import proxy
from rproxy.engine.keyspace import KEYSPACE
from rproxy.engine.local import CONNECTING, LOCAL
from rproxy.engine.placement import HARMLESS, NOWHERE, UNTOLD_POLICIES
from rproxy.engine.queueing import queue
from rproxy.engine.scripting import SCRIPTING, teach
from rproxy.engine.server import BY_WORDS, SERVER
from rproxy.engine.ways import Take, Way, refusal, unserved
from rproxy.routing import access
from rproxy.routing.arity import arity_error
from rproxy.routing.slots import CROSS_SLOT
from rproxy.routing.specs import CommandFlag, CommandSpec
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Judge = Callable[["Engine", "Session", Request], Way | None]
General = Callable[["Engine", CommandSpec], Way | None]

ATTACKS = {b"post", b"host:"}
"""First words of HTTP requests, sent by a browser that someone has lured here: Redis closes at
once, so do we.
"""

ADMIN = frozenset({"admin"})
"""Flags of commands that change or stop servers."""

CHOOSERS: dict[str, General] = {"cluster": cluster, **WAITS}
"""Commands whose Way hangs on the configuration, or on what the servers are."""


TOGETHER: dict[str, Callable[[Session], int]] = {
    "ssubscribe": lambda session: -1,
    "watch": multi.watched_slot,
}
"""Commands on other links whose keys share a slot -> the one that it has to be, or -1."""


class Rung(NamedTuple):
    """One rung; both functions answer None where the next rung is to be asked."""

    judge: Judge
    """The Way of a request."""

    in_general: General | None = None
    """The Way of a command, whatever its arguments; None where that decides nothing here."""


def dispatch(engine: Engine, session: Session, request: Request) -> None:
    """Take one request down the ladder."""
    way = judge(engine, session, request)
    if way.name in ways.SENT:
        teach(engine, request)
    way.take(engine, session, request)


def judge(engine: Engine, session: Session, request: Request) -> Way:
    """What is to become of the request; nothing happens yet."""
    for ask in JUDGES:
        way = ask(engine, session, request)
        if way is not None:
            return way
    raise AssertionError("the last rung knows a way for every request")


def in_general(engine: Engine, spec: CommandSpec) -> Way:
    """What becomes of well-formed requests of the command; some may take an easier way."""
    for rung in LADDER:
        way = None if rung.in_general is None else rung.in_general(engine, spec)
        if way is not None:
            return way
    raise AssertionError("the last rung knows a way for every command")


def of_command(general: General) -> Rung:
    """A rung for which all requests of a command are alike."""

    def judge(engine: Engine, session: Session, request: Request) -> Way | None:
        return general(engine, request.spec)

    return Rung(judge, general)


def root(spec: CommandSpec) -> str:
    """The command's own name, without a subcommand."""
    return spec.name.partition("|")[0]


def _attack(engine: Engine, session: Session, request: Request) -> Way | None:
    """HTTP; some servers have its words in their command tables, so being known means nothing."""
    return Way(ways.ATTACK, _close) if request.argv()[0].lower() in ATTACKS else None


def _close(engine: Engine, session: Session, request: Request) -> None:
    engine.probe.client_broke_protocol(session.client.address, "an HTTP request")
    session.end()


def _renamed(engine: Engine, session: Session, request: Request) -> None:
    """The operator's name for a command: the request goes on under the servers' name."""
    if request.spec is not None and access.RENAMED in request.spec.server_flags:
        name, *words = request.argv()
        argv = [engine.access.original(name) or name, *words]
        session.rewrite(request, pack(argv), engine.meant.lookup(*argv[:2]))


def _paused(engine: Engine, session: Session, request: Request) -> Way | None:
    """CLIENT PAUSE: the request waits, and its session with it."""
    return HELD if engine.pause.holds(session, request) else None


def _hold(engine: Engine, session: Session, request: Request) -> None:
    engine.pause.take(session, request)


def _unknown(engine: Engine, session: Session, request: Request) -> Way | None:
    """Not in the table: locked out, or looked up at the servers."""
    if request.spec is not None:
        return None
    if not session.client.authenticated:
        return LOCKED_OUT
    if engine.access.is_gone(request.argv()[0]):
        return refusal(ways.RENAMED, errors.unknown_command_reply(request.argv()))
    return Way(ways.UNKNOWN, _look_up)


def _look_up(engine: Engine, session: Session, request: Request) -> None:
    engine.look_up(session, request, request.argv()[0].lower())


def _malformed(engine: Engine, session: Session, request: Request) -> Way | None:
    """The wrong number of arguments."""
    spec = request.spec
    return None if spec.takes(len(request.argv())) else refusal(ways.ARITY, arity_error(spec))


def _locked_out(engine: Engine, session: Session, request: Request) -> Way | None:
    """Not authenticated: only the commands that authenticate or leave."""
    if session.client.authenticated or root(request.spec) in CONNECTING:
        return None
    return LOCKED_OUT


def _denied(engine: Engine, spec: CommandSpec) -> Way | None:
    """The operator denies the command to everybody."""
    if access.DENIED not in spec.server_flags:
        return None
    return refusal(ways.DENIED, errors.denied_reply(spec.name))


def _alone(engine: Engine, spec: CommandSpec) -> Way | None:
    """What no node is needed for: state of the client or of rproxy (local.py), or no way at all."""
    way = ALONE.get(spec.name) or ALONE.get(root(spec))
    if way is None and (choose := CHOOSERS.get(root(spec))) is not None:
        return choose(engine, spec)
    return way


def _administration(engine: Engine, spec: CommandSpec) -> Way | None:
    """Commands that change or stop servers, unless allowed."""
    if not spec.server_flags & ADMIN or spec.name in HARMLESS:
        return None
    if engine.config.admin_commands == "allow":
        return None
    return refusal(ways.REFUSED, errors.admin_reply(spec.name.replace("|", " ")))


def _of_table(table: dict[str, Way]) -> Rung:
    """A rung for the commands of a table."""
    return of_command(lambda engine, spec: table.get(spec.name))


def _together(engine: Engine, session: Session, request: Request) -> Way | None:
    """Keys or channels that have to share one slot, and do not."""
    slot_before = TOGETHER.get(request.spec.name)
    if slot_before is None:
        return None
    slot, before = session.assign(request), slot_before(session)
    return SEVERAL_SLOTS if slot == CROSS_SLOT or before not in (-1, slot) else None


def _blocking(engine: Engine, session: Session, request: Request) -> Way | None:
    """A command that may wait, if it names its keys rightly: else a node says what is wrong."""
    if "blocking" in request.spec.server_flags and may_wait(request):
        return BLOCKED if session.assign(request) >= 0 else None
    return None


def _often_blocking(engine: Engine, spec: CommandSpec) -> Way | None:
    return BLOCKED if "blocking" in spec.server_flags else None


def _split(engine: Engine, session: Session, request: Request) -> Way | None:
    """Keys of several slots, where the command can be cut."""
    way = _often_split(engine, request.spec)
    return way if way is not None and session.assign(request) == CROSS_SLOT else None


def _often_split(engine: Engine, spec: CommandSpec) -> Way | None:
    return ways.IN_PIECES if spec.flags & CommandFlag.MULTI_SHARD else None


def _spread(engine: Engine, session: Session, request: Request) -> Way | None:
    """Commands for several nodes."""
    by_words = BY_WORDS.get(request.spec.name)
    chosen = None if by_words is None else by_words(request.argv())
    return chosen or _always_spread(engine, request.spec)


def _always_spread(engine: Engine, spec: CommandSpec) -> Way | None:
    own = OWN_WAYS.get(spec.name)
    if own is not None or spec.request_policy == "multi_shard":
        return own
    if not spec.request_policy and spec.name not in UNTOLD_POLICIES:
        return None
    return unserved(spec.name, "it concerns every node") if rule_for(spec) is None else EVERYWHERE


def _one_slot(engine: Engine, session: Session, request: Request) -> Way:
    """Everything else goes to one node, or is refused because it would need several."""
    slot = session.assign(request)
    if slot == CROSS_SLOT:
        return SEVERAL_SLOTS
    return (
        ways.TO_SLOT if slot >= 0 else ways.TO_ANY
    )  # no key that can be found: any node says what is wrong


def _mostly_one_slot(engine: Engine, spec: CommandSpec) -> Way:
    return ways.TO_SLOT if spec.is_keyed else ways.TO_ANY


def _mapped(take: Take) -> Take:
    """The same once a node is known."""

    def wait(engine: Engine, session: Session, request: Request) -> None:
        if engine.cluster.slotmap.masters:
            take(engine, session, request)
        else:
            engine.wait_for_map(session, request)

    return wait


HELD = Way(ways.PAUSED, _hold)
LOCKED_OUT = refusal(ways.NO_AUTH, errors.AUTH_NEEDED)
BLOCKED = Way(ways.BLOCKING, block)
EVERYWHERE = Way(ways.MASTERS, _mapped(broadcast))
SEVERAL_SLOTS = refusal(ways.CROSS, errors.CROSS_SLOT)

ALONE = {
    **LOCAL,
    **{name: unserved(name, why) for name, why in NOWHERE.items()},
    "proxy": Way(ways.HERE, proxy),
}
"""What rproxy answers itself, or does not serve whatever its configuration says."""

OWN_WAYS = {
    name: Way(way.name, _mapped(way.take))
    for name, way in {**KEYSPACE, **SCRIPTING, **SERVER}.items()
}
"""Commands that take more than one place, or more than a rule for the replies."""

TRANSACTIONS = {name: Way(ways.TRANSACTION, take) for name, take in multi.COMMANDS.items()}
SUBSCRIBING = {name: Way(ways.PUBSUB, take) for name, take in pubsub.COMMANDS.items()}

LADDER: tuple[Rung, ...] = (
    Rung(_attack),
    Rung(_renamed),
    Rung(_paused),
    Rung(queue),
    Rung(_unknown),
    Rung(_malformed),
    Rung(_locked_out),
    of_command(_denied),
    Rung(pubsub.confined),
    of_command(_alone),
    of_command(_administration),
    Rung(_together),
    _of_table(TRANSACTIONS),
    Rung(_blocking, _often_blocking),
    _of_table(SUBSCRIBING),
    Rung(_split, _often_split),
    Rung(_spread, _always_spread),
    Rung(_one_slot, _mostly_one_slot),
)

JUDGES = tuple(rung.judge for rung in LADDER)
