"""Commands that concern every master: sent to all of them, and their replies made one.

How replies become one is the command's response policy, which is data: servers tell it (command
tips), and POLICIES says what it means. Commands whose replies need more thought have a rule of
their own in RULES.

Errors. The same error from every node is the answer, word for word: it is what one Redis would
say. Where nodes differ, the answer is the first error, with the node's name and the number of
nodes that did what was asked: nobody has to guess what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rproxy.engine import merging
from rproxy.engine.fanout import spread
from rproxy.engine.placement import UNTOLD_POLICIES
from rproxy.engine.replies import encode
from rproxy.errors import partial_reply, reply, unreachable_reply
from rproxy.routing.specs import CommandSpec
from rproxy.upstream.cluster import parse_reply
from rproxy.upstream.lease import Lease
from rproxy.upstream.pool import Pool
from rproxy.upstream.sink import answer
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Replies = list[bytes]
Rule = Callable[[Replies, int], bytes]
"""Replies of all nodes, none of them an error, and the protocol version -> one reply."""


def broadcast(engine: Engine, session: Session, request: Request) -> None:
    """Send the request, for whose replies there is a rule, to every master."""
    rule = rule_for(request.spec)
    assert rule is not None
    to_masters(engine, session, request, rule)


def to_masters(engine: Engine, session: Session, request: Request, rule: Rule) -> None:
    """Send the request to every master; `rule` makes one reply of theirs."""
    pools = engine.cluster.masters(session.protocol)
    names = [str(pool) for pool in pools]
    protocol, tolerant = session.protocol, is_tolerant(request)

    def merge(replies: Replies) -> bytes:
        return (one_succeeded if tolerant else merged)(replies, names, rule, protocol)

    session.enter(request)
    if request.spec.name in URGENT:
        _spread_apart(request, pools, merge)
    else:
        spread(request, pools, merge)


def _spread_apart(
    request: Request, pools: Sequence[Pool], merge: Callable[[Replies], bytes]
) -> None:
    """Send the request to every node on a link of its own, where nothing goes before it."""
    replies: dict[int, bytes] = {}

    def note(index: int, raw: bytes) -> None:
        replies[index] = raw
        if len(replies) == len(pools):
            answer(request, merge([raw for _, raw in sorted(replies.items())]))

    for index, pool in enumerate(pools):

        def taken(lease: Lease | None, error: bytes, index: int = index, pool: Pool = pool) -> None:
            if lease is None:
                note(index, error or unreachable_reply(str(pool)))
            else:
                lease.ask(request.frame_bytes, partial(note, index))

        pool.lane.leases.take(pool.address, taken)


def rule_for(spec: CommandSpec) -> Rule | None:
    """How the replies to a command for all masters become one, or None where nothing says how."""
    return RULES.get(spec.name) or POLICIES.get(policy_of(spec))


def policy_of(spec: CommandSpec) -> str:
    """The command's response policy, told by servers or not; empty where it has none."""
    return spec.response_policy or UNTOLD_POLICIES.get(spec.name, "")


def is_tolerant(request: Request) -> bool:
    """Whether one node's success is enough: the others had nothing to do."""
    spec = request.spec
    return spec.response_policy == "one_succeeded" or spec.name in ONE_IS_ENOUGH


def is_error(raw: bytes) -> bool:
    """Whether a reply frame is an error, of either protocol version."""
    return raw[:1] in (b"-", b"!")


def merged(replies: Replies, names: Sequence[str], rule: Rule, protocol: int) -> bytes:
    """One reply, or the error if some node refused."""
    wrong = [at for at, raw in enumerate(replies) if is_error(raw)]
    if not wrong:
        return combine(replies, rule, protocol)
    if len(wrong) == len(replies) and len(set(replies)) == 1:
        return replies[0]
    return partial_reply(
        replies[wrong[0]], names[wrong[0]], len(replies) - len(wrong), len(replies)
    )


def one_succeeded(replies: Replies, names: Sequence[str], rule: Rule, protocol: int) -> bytes:
    """Any success is one; else the error that tells most: a node that was busy, but unwilling."""
    done = [raw for raw in replies if not is_error(raw)]
    if done:
        return done[0]
    return min(replies, key=lambda raw: raw.startswith(b"-NOTBUSY"))


def combine(replies: Replies, rule: Rule, protocol: int) -> bytes:
    """What the rule makes of replies; replies that have not the shape it expects are an error."""
    try:
        return rule(replies, protocol)
    except (ValueError, TypeError, AttributeError, IndexError):
        return reply("ERR the nodes' replies do not fit together")


# -- rules --


def _sum(replies: Replies, protocol: int) -> bytes:
    return encode(sum(map(_number, replies)))


def _least(replies: Replies, protocol: int) -> bytes:
    return encode(min(map(_number, replies)))


def _number(raw: bytes) -> int:
    if raw[:1] != b":":
        raise ValueError("no integer")
    return int(raw[1:])


def _every(replies: Replies, protocol: int) -> bytes:
    """Arrays of 0 and 1: 1 where all nodes say so."""
    return encode([min(column) for column in zip(*map(parse_reply, replies), strict=True)])


def joined(replies: Replies, protocol: int) -> bytes:
    """Arrays, one after the other. Their elements are not looked at."""
    heads, bodies = zip(*(raw.split(b"\r\n", 1) for raw in replies), strict=True)
    if {head[:1] for head in heads} - {b"*", b"~"}:
        raise ValueError("no arrays")
    count = sum(int(head[1:]) for head in heads)
    return b"%b%d\r\n" % (heads[0][:1], count) + b"".join(bodies)


def _running(replies: Replies, protocol: int) -> bytes:
    """FUNCTION STATS: a node that runs a script says more than those that do not."""

    def idle(raw: bytes) -> bool:
        found: Any = parse_reply(raw)
        fields = (
            found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        )
        return fields[b"running_script"] is None

    return min(replies, key=idle)


POLICIES: dict[str, Rule] = {
    "agg_sum": _sum,
    "agg_min": _least,
    "agg_logical_and": _every,
    "all_succeeded": merging.first,
    "one_succeeded": merging.first,
}
"""Response policy -> rule."""

ONE_IS_ENOUGH = frozenset({"latency|graph"})
"""Commands that fail on nodes that know nothing of their subject."""

URGENT = frozenset({"script|kill", "function|kill"})
"""Commands that end what others wait for: behind them they would come too late."""

RULES: dict[str, Rule] = {
    "function|stats": _running,
    "acl|log": merging.acl_log,
    "latency|doctor": merging.texts,
    "latency|graph": merging.texts,
    "latency|histogram": merging.histogram,
    "latency|history": merging.history,
    "latency|latest": merging.latest,
    "latency|reset": merging.greatest,
    "memory|doctor": merging.texts,
    "memory|malloc-stats": merging.texts,
    "memory|stats": merging.memory_stats,
    "role": merging.role,
}
"""Commands whose policy is `special`, or none."""
