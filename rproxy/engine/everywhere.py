"""What concerns all workers: CLIENT subcommands, INFO's count of clients, remembered scripts.

Each CLIENT subcommand is done here first; a mistake is answered at once. Then the other workers are
asked to do the same for their clients, and the replies become one: lists are joined, counts added.
The request has its place among the client's replies meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rproxy import errors
from rproxy.engine.clients import SHARED
from rproxy.engine.replies import OK, encode, verbatim
from rproxy.upstream.cluster import parse_reply
from rproxy.upstream.sink import answer
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Merge = Callable[[list[bytes], int], bytes]
"""The workers' replies, the own one first, and the protocol version -> one reply."""


def _lists(replies: list[bytes], protocol: int) -> bytes:
    """CLIENT LIST: all lines, by their clients' ids."""
    text = "".join(parse_reply(raw).decode("utf-8", "surrogateescape") for raw in replies)
    lines = sorted(text.splitlines(), key=lambda line: int(line.split(" ", 1)[0][3:]))
    return verbatim("".join(f"{line}\n" for line in lines), protocol)


def _counts(replies: list[bytes], protocol: int) -> bytes:
    """Counts added; where there is none, one success is enough."""
    if all(raw[:1] == b":" for raw in replies):
        return encode(sum(int(raw[1:]) for raw in replies))
    return next((raw for raw in replies if raw == OK), replies[0])


EVERYWHERE: dict[bytes, Merge] = {
    b"list": _lists,
    b"kill": _counts,
    b"pause": _counts,
    b"unpause": _counts,
    b"unblock": _counts,
}
"""Subcommand -> how the workers' replies become one."""

NO_SUCH_CLIENT = errors.reply("ERR No such client")
"""KILL's error where another worker may have the client."""


def concerns_all(engine: Engine, sub: bytes, reply: bytes) -> bool:
    """Whether the other workers are to be asked after this reply of the own one."""
    if engine.bus is None or sub not in EVERYWHERE:
        return False
    return not reply.startswith(b"-") or reply == NO_SUCH_CLIENT


def ask_all(engine: Engine, session: Session, request: Request, reply: bytes) -> None:
    """Answer the request when the other workers have done the same."""
    session.enter(request)
    engine.spawn(_ask_all(engine, request, reply, session.protocol))


async def _ask_all(engine: Engine, request: Request, reply: bytes, protocol: int) -> None:
    assert engine.bus is not None
    argv = request.argv()
    replies = [reply, *await engine.bus.ask(argv)]
    answer(request, EVERYWHERE[argv[1].lower()](replies, protocol))


COUNT, FORGET, TRACK = b"how many clients", b"forget the scripts", b"how many keys to track"
"""What else workers tell each other."""


class Counts(NamedTuple):
    """How many clients there are."""

    connected: int
    blocked: int
    """Those of them that wait in blocking commands or for the end of a pause."""
    tracking: int
    """Those that track changes."""
    keys: int
    """Keys that they have read."""
    items: int
    """The same, for each client."""
    prefixes: int
    """Prefixes of keys that are followed in BCAST mode."""


def own_counts(engine: Engine) -> Counts:
    """The clients of this worker."""
    tracking = engine.tracking
    return Counts(
        len(engine.clients),
        len(engine.blocked) + engine.pause.waiting,
        len(tracking.trackers),
        tracking.table.keys,
        tracking.table.items,
        len(tracking.prefixes),
    )


async def all_counts(engine: Engine) -> Counts:
    """The clients of all workers."""
    others = [] if engine.bus is None else await engine.bus.ask([COUNT])
    parts = [own_counts(engine), *map(parse_reply, others)]
    return Counts(*map(sum, zip(*parts, strict=True)))


def forget_scripts(engine: Engine) -> None:
    """Have all workers forget the scripts that they remember."""
    engine.cluster.scripts.clear()
    if engine.bus is not None:
        engine.spawn(engine.bus.ask([FORGET]))


def limit_tracking(engine: Engine, max_keys: int) -> None:
    """Have all workers track so many keys at most."""
    engine.tracking.limit(max_keys)
    if engine.bus is not None:
        engine.spawn(engine.bus.ask([TRACK, b"%d" % max_keys]))


def _count(engine: Engine, argv: list[bytes]) -> bytes:
    return encode([*own_counts(engine)])


def _forget(engine: Engine, argv: list[bytes]) -> bytes:
    engine.cluster.scripts.clear()
    return OK


def _track(engine: Engine, argv: list[bytes]) -> bytes:
    engine.tracking.limit(int(argv[1]))
    return OK


Answer = Callable[["Engine", list[bytes]], bytes]

QUESTIONS: dict[bytes, Answer] = {COUNT: _count, FORGET: _forget, TRACK: _track}
"""What another worker says -> what is done here, and the answer."""


def answer_worker(engine: Engine, argv: list[bytes]) -> bytes:
    """What another worker, or its client, asks of the clients here."""
    question = QUESTIONS.get(argv[0])
    if question is not None:
        return question(engine, argv)
    return SHARED[argv[1].lower()](engine, None, argv)
