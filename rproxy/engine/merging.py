"""How the nodes' replies to server commands become one server's reply.

Each rule takes the replies of all nodes, none of them an error, and the client's protocol version.
Numbers are added where one server would have counted them together; lists are put in the order in
which one server shows them; texts for people follow one another. A reply that has another shape
raises one of the exceptions that broadcast.combine knows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from rproxy.engine.replies import encode, simple, verbatim
from rproxy.upstream.cluster import parse_reply

Replies = list[bytes]

LATENCY_KEPT = 160
"""Samples of one event that a server remembers."""

NO_DIGEST = "0" * 40
"""DEBUG DIGEST of a server without keys."""

_DATABASE_0 = hashlib.sha1(hashlib.sha1(bytes(4)).digest()).digest()
"""What a server with keys mixes into its digest before any of them."""

_PER_NODE = ("percentage", "ratio", "per-key", "fragmentation", "peak.allocated")
"""Ends of MEMORY STATS' fields that are no amounts: the greatest is shown."""


def fields_of(reply: Any) -> dict[bytes, Any]:
    """A map of RESP3, or the flat list that RESP2 makes of it."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))


def text_of(raw: bytes) -> str:
    """A bulk or verbatim string's text."""
    return str(parse_reply(raw).decode("utf-8", "surrogateescape"))


def slowlog(count: int) -> Callable[[Replies, int], bytes]:
    """SLOWLOG GET: the newest `count` entries of all nodes (-1: all), newest first.

    Ids stay unique: with n nodes, the entry i of node k gets the id i * n + k. Times are seconds;
    within one, commands that all nodes have got tell what was before and after them.
    """

    def merge(replies: Replies, protocol: int) -> bytes:
        nodes = [parse_reply(raw) for raw in replies]
        entries = [
            (-entry[1], mark, -entry[0], [entry[0] * len(nodes) + at, *entry[1:]])
            for at, (node, marks) in enumerate(zip(nodes, _marks(nodes), strict=True))
            for entry, mark in zip(node, marks, strict=True)
        ]
        entries.sort(key=lambda entry: entry[:3])
        newest = [entry for *_, entry in entries]
        return encode(newest if count < 0 else newest[:count], protocol)

    return merge


def _marks(nodes: Sequence[Sequence[Any]]) -> list[list[float]]:
    """For each entry, how many commands that all nodes have got are newer; its own is a half."""
    counts = [Counter(tuple(entry[3]) for entry in node) for node in nodes]
    common = reduce(Counter.__and__, counts)
    found = []
    for node in nodes:
        left, passed, marks = common.copy(), 0, []
        for entry in node:
            words = tuple(entry[3])
            is_common = left[words] > 0
            left[words] -= is_common
            marks.append(passed + is_common / 2)
            passed += is_common
        found.append(marks)
    return found


def latest(replies: Replies, protocol: int) -> bytes:
    """LATENCY LATEST: of each event the newest sample, and the worst of all time."""
    events: dict[bytes, list[Any]] = {}
    for name, when, last, worst in (entry for raw in replies for entry in parse_reply(raw)):
        known = events.setdefault(name, [name, when, last, worst])
        if when > known[1]:
            known[1:3] = when, last
        known[3] = max(known[3], worst)
    return encode(list(events.values()), protocol)


def history(replies: Replies, protocol: int) -> bytes:
    """LATENCY HISTORY: one sample a second, the worst, as many as one server keeps."""
    worst: dict[int, int] = {}
    for when, latency in (sample for raw in replies for sample in parse_reply(raw)):
        worst[when] = max(latency, worst.get(when, 0))
    return encode([list(sample) for sample in sorted(worst.items())[-LATENCY_KEPT:]], protocol)


def histogram(replies: Replies, protocol: int) -> bytes:
    """LATENCY HISTOGRAM: calls added; the counts are cumulative, and stay so."""
    commands: dict[bytes, list[dict[bytes, Any]]] = {}
    for raw in replies:
        for name, found in fields_of(parse_reply(raw)).items():
            commands.setdefault(name, []).append(fields_of(found))
    merged = {
        name: {
            "calls": sum(part[b"calls"] for part in parts),
            "histogram_usec": _buckets([fields_of(part[b"histogram_usec"]) for part in parts]),
        }
        for name, parts in commands.items()
    }
    return encode(merged, protocol)


def _buckets(parts: Sequence[dict[Any, int]]) -> dict[Any, int]:
    """Cumulative counts added: a part without some bound counts what is below it."""

    def below(part: dict[Any, int], bound: Any) -> int:
        return max((count for edge, count in part.items() if edge <= bound), default=0)

    bounds = sorted({bound for part in parts for bound in part})
    return {bound: sum(below(part, bound) for part in parts) for bound in bounds}


def first(replies: Replies, protocol: int) -> bytes:
    """All have said the same: the first node's reply."""
    return replies[0]


def greatest(replies: Replies, protocol: int) -> bytes:
    """Integers: the greatest."""
    return encode(max(int(parse_reply(raw)) for raw in replies))


def texts(replies: Replies, protocol: int) -> bytes:
    """Texts for people, each of them once."""
    return verbatim("\n".join(dict.fromkeys(map(text_of, replies))), protocol)


def memory_stats(replies: Replies, protocol: int) -> bytes:
    """MEMORY STATS: amounts added, the worst of the ratios; databases likewise."""
    return encode(_amounts([fields_of(parse_reply(raw)) for raw in replies]), protocol)


def _amounts(nodes: Sequence[dict[bytes, Any]]) -> dict[bytes, Any]:
    names = dict.fromkeys(name for node in nodes for name in node)
    return {
        name: _amount(name.decode(), [node[name] for node in nodes if name in node])
        for name in names
    }


def _amount(name: str, values: list[Any]) -> Any:
    if name.startswith("db."):
        return _amounts([fields_of(value) for value in values])
    if name.endswith(_PER_NODE):
        return max(values, key=float)
    return sum(values)


def role(replies: Replies, protocol: int) -> bytes:
    """ROLE: a master without replicas, as far as the furthest has written."""
    return encode(["master", max(parse_reply(raw)[1] for raw in replies), []], protocol)


def acl_log(replies: Replies, protocol: int) -> bytes:
    """ACL LOG: the entries of all nodes, youngest first; RESET's OK."""
    found = [parse_reply(raw) for raw in replies]
    if not isinstance(found[0], list):
        return replies[0]
    entries = [fields_of(entry) for entries in found for entry in entries]
    entries.sort(key=lambda entry: float(entry[b"age-seconds"]))
    return encode(entries, protocol)


def digest(replies: Replies, protocol: int) -> bytes:
    """DEBUG DIGEST: every key's digest is XORed into one, so those of all nodes can be, too."""
    parts = [word for word in map(_digest, replies) if word != NO_DIGEST]
    if not parts:
        return simple(NO_DIGEST)
    bare = [int(word, 16) ^ int.from_bytes(_DATABASE_0) for word in parts]
    return simple(f"{reduce(int.__xor__, bare) ^ int.from_bytes(_DATABASE_0):040x}")


def _digest(raw: bytes) -> str:
    word = raw[1:].decode().strip()
    if raw[:1] != b"+" or len(word) != len(NO_DIGEST):
        raise ValueError("no digest")
    return word
