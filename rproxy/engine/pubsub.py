"""The commands of Pub/Sub, and MONITOR: replies as a single Redis gives them.

Subscribing and its opposites belong to the Hub; here are the commands' words. While a RESP2 client
is subscribed, it may send but a few commands (`confined`). PUBLISH goes to the node where plain
channels are subscribed, SPUBLISH to the slot's owner. That node counts each worker that listens as
one receiver; this worker's share is replaced by the number of its clients, so with one worker the
count is a single Redis's. PUBSUB asks all masters and counts this worker's clients likewise.

With several workers or proxies each other one still counts as one receiver, and subscribers that
are connected to other nodes without rproxy are counted where PUBLISH arrives only, as in any
Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from rproxy import errors
from rproxy.engine.broadcast import Replies, merged
from rproxy.engine.fanout import spread
from rproxy.engine.hub import subscriber_of
from rproxy.engine.replies import OK, encode
from rproxy.engine.ways import CONFINED as CONFINEMENT
from rproxy.engine.ways import HERE, Way, refusal
from rproxy.routing.globs import matches
from rproxy.upstream.cluster import parse_reply
from rproxy.upstream.feed import CHANNEL, MONITOR, PATTERN, SHARD, Topic
from rproxy.upstream.sink import answer, call
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.config import Address
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Words = list[bytes]

KEYSPACE = frozenset({"write", "readonly", "may_replicate"})
"""Flags of commands that a client under MONITOR may not send."""


def confined(engine: Engine, session: Session, request: Request) -> Way | None:
    """The Way of a command that subscribers of RESP2, or monitors, may not send."""
    spec = request.spec
    if session.is_monitor and spec.server_flags & KEYSPACE:
        return refusal(CONFINEMENT, errors.MONITOR_ONLY)
    if not session.is_confined or spec.name in CONFINED:
        return None
    if spec.name == "ping":
        return Way(HERE, _pong)
    return refusal(CONFINEMENT, errors.subscriber_only_reply(spec.name))


def _pong(engine: Engine, session: Session, request: Request) -> None:
    words = request.argv()
    reply = errors.wrong_arity_reply("ping") if len(words) > 2 else encode([b"pong", *words[1:]])
    session.answer(encode([b"pong", b""]) if len(words) == 1 else reply, request)


# -- subscribing --


def _subscribe(kind: int, engine: Engine, session: Session, request: Request) -> None:
    def begin(session: Session) -> None:
        _begin(kind, engine, session, request)

    if session.under_way:
        session.hold(begin)
    else:
        begin(session)


def _to_server(engine: Engine, kind: int, names: Words) -> Words:
    """What servers call them: the channels of pinned keys' events have other names there."""
    return names if kind == SHARD else [engine.pins.channel_to_server(name) for name in names]


def _begin(kind: int, engine: Engine, session: Session, request: Request) -> None:
    """Nothing is under way: subscribe, and answer once that is confirmed."""
    names = _to_server(engine, kind, request.argv()[1:])
    subscriber = subscriber_of(session)
    problem = engine.hub.refusal(subscriber, kind, names)
    if problem is not None:
        session.answer(problem, request)
        if session.is_held:
            session.release()
        return
    before, known = subscriber.count(kind), subscriber.topics[kind].keys()
    fresh = dict.fromkeys(name for name in names if name not in known)
    counts = {name: number for number, name in enumerate(fresh, before + 1)}

    def told(error: bytes | None) -> None:
        if error is not None:
            session.answer(error, request)
            return
        count, lines = before, []
        for name in names:
            count = max(count, counts.get(name, count))
            shown = engine.pins.channel_to_client(name)
            lines.append(_line(BEGIN[kind], shown, count, session.protocol))
        session.voice(request)
        session.answer(b"".join(lines), request)

    engine.hub.join(session, kind, names, told)


BEGIN = {CHANNEL: b"subscribe", PATTERN: b"psubscribe", SHARD: b"ssubscribe"}
END = {CHANNEL: b"unsubscribe", PATTERN: b"punsubscribe", SHARD: b"sunsubscribe"}
"""First words of the replies, and the commands' names."""

CONFINED = {word.decode() for words in (BEGIN, END) for word in words.values()} | {"quit", "reset"}
"""What a RESP2 client may send while it is subscribed, besides PING."""


def _line(word: bytes, name: bytes | None, count: int, protocol: int) -> bytes:
    """One confirmation: a push where the client speaks RESP3."""
    kind = b">" if protocol == 3 else b"*"
    return kind + encode([word, name, count], protocol)[1:]


def _unsubscribe(kind: int, engine: Engine, session: Session, request: Request) -> None:
    names = _to_server(engine, kind, request.argv()[1:]) or None
    counts, missing, answer_later = engine.hub.part(session, kind, names)
    rows: Sequence[tuple[bytes | None, int]] = [
        (engine.pins.channel_to_client(name), count) for name, count in counts
    ]
    if not rows:
        rows = [(None, subscriber_of(session).count(kind))]
    reply = b"".join(_line(END[kind], name, count, session.protocol) for name, count in rows)
    session.voice(request)
    if missing:
        session.enter(request)
        answer_later(request, reply)
    else:
        session.answer(reply, request)


def monitor(engine: Engine, session: Session, request: Request) -> None:
    """MONITOR: OK once all masters show what they do; a second one has no answer, as in Redis."""
    if session.is_monitor:
        return

    def told(error: bytes | None) -> None:
        session.monitor(error is None)
        session.answer(error or OK, request)

    def begin(session: Session) -> None:
        engine.hub.join(session, MONITOR, [b""], told)

    if session.under_way:
        session.hold(begin)
    else:
        begin(session)


# -- publishing --


def _waits(
    engine: Engine, session: Session, request: Request, kind: int, channel: bytes | None
) -> bool:
    """Whether the request waits until nodes count no client that has just left."""
    if not engine.hub.is_leaving(kind, channel):
        return False
    session.hold()
    engine.hub.when_left(partial(engine.resume, session, request))
    return True


def _publish(engine: Engine, session: Session, request: Request) -> None:
    channel = request.argv()[1]
    if _waits(engine, session, request, CHANNEL, channel):
        return
    session.enter(request)
    lane = engine.cluster.lanes[session.protocol]
    pools = [lane.pool(address) for address in engine.hub.pubsub.publishers()]
    pool = next((pool for pool in pools if not pool.is_failing), None)
    if pool is None:
        lane.send_anywhere(request)
    elif next(engine.hub.hearing(CHANNEL, channel), None) is None:
        pool.sink.take(request)
    else:
        pool.sink.take(_counted(engine, request, CHANNEL, pool.address))


def _spublish(engine: Engine, session: Session, request: Request) -> None:
    slot = session.assign(request)
    channel = request.argv()[1]
    if _waits(engine, session, request, SHARD, channel):
        return
    topic = engine.hub.pubsub.topics[SHARD].get(channel)
    if topic is None or topic.target is None:
        session.forward(request)
        return
    session.enter(request)
    counted = _counted(engine, request, SHARD, topic.target.address)
    counted.slot = slot
    engine.cluster.table(session.protocol).route(counted)


def _counted(engine: Engine, request: Request, kind: int, address: Address) -> Request:
    """The same request, in whose reply this worker's clients count instead of its one feed.

    The reply comes after the message has gone to all clients of this worker, as in one Redis: who
    knows that something was published finds it with whomever it asks.
    """
    hub, channel = engine.hub, request.argv()[1]

    def correct(reply: bytes) -> None:
        if reply[:1] == b":":
            own, clients = _shares(engine, list(hub.hearing(kind, channel)), address)
            reply = encode(max(0, int(reply[1:-2]) - own) + clients)
        hub.pubsub.after_messages(address, partial(answer, request, reply))

    counted = call(request.frame_bytes, correct)
    counted.deadline = request.deadline
    return counted


def _shares(engine: Engine, topics: Sequence[Topic], address: Address) -> tuple[int, int]:
    """How often the node there counts this worker for the topics, and how many clients that is."""
    hub = engine.hub
    own = sum(hub.pubsub.subscribed_at(address, topic) for topic in topics)
    return own, sum(hub.crowd(topic.kind, topic.name) for topic in topics)


# -- PUBSUB --

Answers = list[tuple["Address", Any]]
"""Each master's address and its reply, as hiredis gives it."""


class Query(NamedTuple):
    """One subcommand of PUBSUB."""

    kind: int
    """Of the topics that it tells of."""

    merge: Callable[[Engine, int, Words, Answers], Any]
    """(engine, kind, arguments, the masters' answers) -> the value of the reply."""


def _channels(engine: Engine, kind: int, words: Words, answers: Answers) -> list[bytes]:
    found = dict.fromkeys(name for _, names in answers for name in names)
    pattern = words[0] if words else b"*"
    topics = engine.hub.pubsub.topics[kind]
    own = [name for name in topics if engine.hub.crowd(kind, name) and matches(pattern, name)]
    return [engine.pins.channel_to_client(name) for name in found | dict.fromkeys(own)]


def _numsub(engine: Engine, kind: int, words: Words, answers: Answers) -> list[bytes | int]:
    found: list[bytes | int] = []
    topics = engine.hub.pubsub.topics[kind]
    for place, name in enumerate(words):
        count = engine.hub.crowd(kind, name)
        for address, counts in answers:
            own = name in topics and engine.hub.pubsub.subscribed_at(address, topics[name])
            count += max(0, counts[2 * place + 1] - own)
        found += [engine.pins.channel_to_client(name), count]
    return found


def _numpat(engine: Engine, kind: int, words: Words, answers: Answers) -> int:
    topics = list(engine.hub.pubsub.topics[PATTERN].values())
    foreign = 0
    for address, count in answers:
        own = sum(engine.hub.pubsub.subscribed_at(address, topic) for topic in topics)
        foreign += max(0, count - own)
    return foreign + sum(engine.hub.crowd(PATTERN, topic.name) > 0 for topic in topics)


QUERIES = {
    "pubsub|channels": Query(CHANNEL, _channels),
    "pubsub|numsub": Query(CHANNEL, _numsub),
    "pubsub|numpat": Query(PATTERN, _numpat),
    "pubsub|shardchannels": Query(SHARD, _channels),
    "pubsub|shardnumsub": Query(SHARD, _numsub),
}


def _query(engine: Engine, session: Session, request: Request) -> None:
    """Ask every master, merge their answers with what this worker knows."""
    query = QUERIES[request.spec.name]
    words = _to_server(engine, query.kind, request.argv()[2:])
    if words != request.argv()[2:]:
        session.rewrite(request, pack([*request.argv()[:2], *words]), request.spec)
    if request.spec.name.endswith("channels") and len(words) > 1:
        session.answer(errors.pubsub_syntax_reply(request.argv()[1]), request)
        return
    if _waits(engine, session, request, query.kind, None):
        return
    pools = engine.cluster.masters(session.protocol)
    if not pools:  # before the first slot map nobody is subscribed; the request waits for it
        session.enter(request)
        engine.cluster.send_anywhere(session.protocol, request)
        return
    addresses, names = [pool.address for pool in pools], [str(pool) for pool in pools]

    def merge(replies: Replies, protocol: int) -> bytes:
        answers = list(zip(addresses, map(parse_reply, replies), strict=True))
        return encode(query.merge(engine, query.kind, words, answers), protocol)

    protocol = session.protocol
    session.enter(request)
    spread(request, pools, lambda replies: merged(replies, names, merge, protocol))


COMMANDS: dict[str, Callable[[Engine, Session, Request], None]] = {
    "publish": _publish,
    "spublish": _spublish,
    **{word.decode(): partial(_subscribe, kind) for kind, word in BEGIN.items()},
    **{word.decode(): partial(_unsubscribe, kind) for kind, word in END.items()},
    **dict.fromkeys(QUERIES, _query),
}
