"""Every command of the table: what PROXY says of it is what happens to it.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import pytest

from rproxy.engine import ways
from rproxy.routing.specs import CommandSpec, CommandTable
from tests.engine.test_explain import told
from tests.fakes import NODES, FakeProxy

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {"admin_commands": "allow", "cluster_emulation": True},
    "little": {"deny": ("get", "config|get", "eval"), "rename": {"set": "put", "del": ""}},
}
FILLS = (b"1",), (b"a", b"b", b"c"), (b"2", b"a", b"b"), (b"BLOCK", b"0", b"STREAMS", b"b", b"$")
"""What the arguments of requests are."""

SEES = {
    ways.SLOT: {"a node"},
    ways.SPLIT: {"nodes"},
    ways.ANY: {"a node"},
    ways.MASTERS: {"nodes", "links", "later"},
    ways.HERE: {"a reply", "later"},
    ways.PUBSUB: {"a node", "nodes", "a reply", "later"},
    ways.TRANSACTION: {"a reply", "links"},
    ways.BLOCKING: {"links"},
    ways.UNKNOWN: {"later"},
    ways.REFUSED: {"a reply"},
    ways.DENIED: {"a reply"},
    ways.RENAMED: {"a reply"},
    ways.UNSERVED: {"a reply"},
    ways.CROSS: {"a reply"},
    ways.ARITY: {"a reply"},
}
"""Treatment -> what can be seen of it."""

LIGHTER = {
    ways.SLOT: {ways.ANY, ways.CROSS},
    ways.SPLIT: {ways.SLOT, ways.ANY},
    ways.BLOCKING: {ways.SLOT, ways.ANY, ways.CROSS},
    ways.MASTERS: {ways.ANY},
    ways.PUBSUB: {ways.CROSS},
    ways.TRANSACTION: {ways.CROSS},
}
"""What a command's requests may find instead of what becomes of it in general."""

WRONG_ARGUMENTS = re.compile(rb"-ERR (value is not|Invalid slot|count should|unknown subcommand)")
"""What rproxy says of arguments: no matter of where a command goes."""

REFUSALS = b"-ERR rproxy ", b"-CROSSSLOT", b"-NOPERM", b"-ERR unknown command"


def all_specs(table: CommandTable) -> Iterator[CommandSpec]:
    for spec in table:
        yield spec
        yield from spec.subcommands.values()


def requests(
    table: CommandTable, fills: tuple[tuple[bytes, ...], ...]
) -> Iterator[tuple[str, list[bytes]]]:
    """Each command and subcommand with arguments of several kinds."""
    for spec in all_specs(table):
        words = spec.name.encode().split(b"|")
        least = abs(spec.arity) - len(words)
        for fill in fills:
            count = least if spec.arity > 0 else max(least, len(fill))
            yield spec.name, words + list(islice(cycle(fill), count))


def seen(words: list[bytes], settings: dict[str, Any]) -> tuple[str, list[int], bytes]:
    """What happens to a client's first request, to which nodes it goes, and the reply."""
    proxy = FakeProxy(**settings)
    client = proxy.client()
    client.say(*words)
    nodes = [index for index in range(3) if proxy.cluster.sent(index)]
    heard = client.hear()
    if nodes:
        return "a node" if len(nodes) == 1 else "nodes", nodes, heard
    if proxy.cluster.lanes[2].leases.making:
        return "links", [], heard
    return "a reply" if heard else "later", [], heard


def check(about: dict[str, Any], words: list[bytes], settings: dict[str, Any]) -> None:
    """What EXPLAIN says of the request is what happens to it."""
    what, nodes, heard = seen(words, settings)
    error = about.get("error")
    if what == "a reply" and WRONG_ARGUMENTS.match(heard):
        return
    assert what in SEES[about["treatment"]], (about, what)
    if error is not None:
        assert heard.startswith(b"-" + error.encode())
    else:
        assert not heard.startswith(REFUSALS), (about, heard)
    if about["treatment"] == ways.SLOT and "slots" in about:  # else an argument names the slot
        assert [str(NODES[node]) for node in nodes] == [node_of(about["slots"][0])]
    if about["treatment"] == ways.SPLIT:
        assert {str(NODES[node]) for node in nodes} == {node_of(slot) for slot in about["pieces"]}


def node_of(slot: list[Any]) -> str:
    """The node in an entry of `slots` or `pieces`."""
    name = slot[1]
    assert isinstance(name, bytes)
    return name.decode()


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_is_explained_is_what_happens(kind: str) -> None:
    """Every command of the table, with several kinds of arguments; to explain sends nothing."""

    settings, fills = SETTINGS[kind], FILLS if kind == "defaults" else FILLS[1:2]

    async def run() -> None:
        proxy = FakeProxy(**settings)
        front = proxy.client()
        in_general = told(front, b"COMMANDS")
        assert set(in_general) == {spec.name for spec in all_specs(proxy.engine.meant)}
        for name, words in requests(proxy.engine.meant, fills):
            about = told(front, b"EXPLAIN", *words)
            check(about, words, settings)
            usual = in_general[name]
            assert about["treatment"] in {usual, ways.ARITY, *LIGHTER.get(usual, ())}, words
        assert not any(proxy.cluster.sent(index) for index in range(3))
        assert not proxy.cluster.lanes[2].leases.making

    asyncio.run(run())
