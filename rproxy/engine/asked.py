"""Keys that only a server can find: one is asked where they are, then the request goes on.

Most commands announce where their keys are. Some of modules' do not: their keys hang on arguments
in a way that no key specification can say, and the module's own code is asked for them (COMMAND
GETKEYS). What it names is looked for among the arguments, and the request gets a spec that says
just where its keys are; from there on it is a request like any other.

Rules. The client's later commands wait meanwhile, so order stays. A server that sees no keys, or
finds the arguments wrong, gets the command itself: it has the right error. Where the same bytes
stand at several places and not all of them are keys, it does not matter which are, unless the key
is pinned; then each of these places is tried, with other bytes in it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import hiredis

from rproxy import errors
from rproxy.engine.transactions import Transaction
from rproxy.engine.ways import ASKED, Way
from rproxy.routing.rows import KeySpec
from rproxy.routing.slots import CROSS_SLOT, RANGES_LIMIT
from rproxy.upstream.sink import answer
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Words = list[bytes]

NONE_FOUND = "ERR Invalid ", "ERR The command has no key arguments"
"""How a server says that it sees no keys in a request."""

MOST_TRIED = 16
"""Places of one key that are tried."""


class NotTold(errors.RproxyError):
    """Nobody could say where the keys are; the message is the reply."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode("utf-8", "replace"))
        self.reply = reply


async def locate(engine: Engine, session: Session, request: Request) -> bytes | None:
    """Have the request's spec say where its keys are; an error where nobody can tell."""
    try:
        places = await _places(engine, request.argv())
    except NotTold as error:
        return error.reply
    key_specs = tuple(map(_key_spec, ranges(places)))
    if len(key_specs) > RANGES_LIMIT:
        return errors.SCATTERED_KEYS
    request.spec = request.spec.located(key_specs)
    session.pin_keys(request)
    return None


async def _places(engine: Engine, words: Words) -> list[int]:
    """Indexes of the keys, in order."""
    found: defaultdict[bytes, list[int]] = defaultdict(list)
    for at, word in enumerate(words[1:], start=1):
        found[word].append(at)
    places: list[int] = []
    for key, count in Counter(await _keys(engine, words)).items():
        candidates = found.get(key, [])
        if len(candidates) > count and engine.pins.to_server(key) != key:
            candidates = await _tried(engine, words, candidates, count)
        places += candidates[:count]
    return sorted(places)


async def _keys(engine: Engine, words: Words) -> Words:
    """The keys of the request, as a server names them."""
    if len(words) < 2:
        return []  # COMMAND GETKEYS would take it for its own mistake
    told = await engine.cluster.inquire(b"COMMAND", b"GETKEYS", *words)
    if not isinstance(told, hiredis.ReplyError):
        return [key for key in told if isinstance(key, bytes)]
    if str(told).startswith(NONE_FOUND):
        return []
    raise NotTold(errors.keys_untold_reply(str(told)))


async def _tried(engine: Engine, words: Words, candidates: list[int], count: int) -> list[int]:
    """Those places at which other bytes would be a key."""
    if len(candidates) > MOST_TRIED:
        raise NotTold(errors.NO_PLACES)
    other = max(words, key=len) + b"?"
    replies = await asyncio.gather(
        *(_keys(engine, [*words[:at], other, *words[at + 1 :]]) for at in candidates)
    )
    found = [at for at, keys in zip(candidates, replies, strict=True) if other in keys]
    if len(found) != count:
        raise NotTold(errors.NO_PLACES)
    return found


def ranges(places: list[int]) -> list[range]:
    """Ascending indexes as ranges, as few as reading them once finds."""
    found: list[range] = []
    for at in places:
        last = found[-1] if found else None
        if last is not None and (len(last) == 1 or at == last.stop):
            step = at - last.start if len(last) == 1 else last.step
            found[-1] = range(last.start, at + step, step)
        else:
            found.append(range(at, at + 1))
    return found


def _key_spec(places: range) -> KeySpec:
    last = places[-1] - places.start
    return ("index", places.start), ("range", last, places.step, 0), ""


# -- outside MULTI --


def _ask(engine: Engine, session: Session, request: Request) -> None:
    session.enter(request)
    session.hold()
    engine.spawn(_send(engine, session, request))


async def _send(engine: Engine, session: Session, request: Request) -> None:
    error = await locate(engine, session, request)
    if session.stream.is_closed:
        return
    slot = session.assign(request)
    if slot == CROSS_SLOT:
        error = errors.CROSS_SLOT
    if error is not None:
        answer(request, error)
    elif slot >= 0:
        engine.cluster.table(session.protocol).route(request)
    else:
        engine.cluster.send_anywhere(session.protocol, request)
    if session.is_tracking:
        engine.tracking.note(session, request)
    session.release()


ASK = Way(ASKED, _ask)


# -- inside MULTI --


def ask_inside(
    engine: Engine, session: Session, transaction: Transaction, request: Request
) -> None:
    """Ask once what goes before is answered; what follows waits."""
    transaction.queueing = False
    if session.under_way:
        transaction.early = [request]
        session.hold(transaction.undelayed)
    else:
        transaction.early = []
        session.hold()
        engine.spawn(_queue(engine, session, transaction, request))


async def _queue(
    engine: Engine, session: Session, transaction: Transaction, request: Request
) -> None:
    error = await locate(engine, session, request)
    if session.stream.is_closed:
        return
    if error is not None:
        transaction.refuse(request, error)
    else:
        transaction.early = [request, *(transaction.early or [])]
    transaction.undelayed(session)
