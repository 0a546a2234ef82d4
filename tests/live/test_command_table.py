"""The command table against a real server: its own COMMAND, COMMAND GETKEYS and CLUSTER KEYSLOT."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import NodeProcess
from rproxy.errors import RproxyError
from rproxy.routing import command_table
from rproxy.routing.commands import UNTOLD_SUBCOMMANDS, built_in, merge
from rproxy.routing.generate import render
from rproxy.routing.slots import request_keys, slot_of
from rproxy.routing.specs import CommandFlag, CommandSpec, KeyRule

TABLE = built_in()
UNTOLD = {row.name for rows in UNTOLD_SUBCOMMANDS.values() for row in rows}

ODD = [
    "SORT k",
    "SORT k BY w_* GET STORE store d",
    "SORT k STORE a STORE b",
    "SORT k LIMIT 0 5 STORE d",
    "GEORADIUS k 1 2 3 km",
    "GEORADIUS k 1 2 3 km STORE d",
    "GEORADIUS k 1 2 3 km STOREDIST d COUNT 5",
    "GEORADIUSBYMEMBER k m 3 km",
    "GEORADIUSBYMEMBER k m 3 km storedist d",
    "XREAD STREAMS a 0",
    "XREAD COUNT 1 BLOCK 5 STREAMS a b c 0 0 0",
    "XREADGROUP GROUP g c STREAMS a b 0 0",
    "XREADGROUP GROUP g c NOACK STREAMS STREAMS 0",
    "MIGRATE h 1 k 0 5",
    "MIGRATE h 1 k 0 5 COPY REPLACE",
]
"""Requests of the commands whose options say where the keys are."""

NO_KEYS_TOLD = re.compile("no key arguments|Invalid arguments")
"""What COMMAND GETKEYS says where it sees no key."""

OTHER_ARITY = re.compile("Invalid number of arguments")
"""What it says of requests that only newer servers take."""


@pytest.fixture
def node(cluster: LocalCluster) -> NodeProcess:
    return cluster.nodes[0]


def told_keys(node: NodeProcess, request: list[bytes]) -> list[bytes] | None:
    """The keys that the server sees in a request; None where it is too old for such a request."""
    try:
        keys: list[bytes] = node.call("COMMAND", "GETKEYS", *request)
    except RproxyError as error:
        if OTHER_ARITY.search(str(error)):
            return None
        if not NO_KEYS_TOLD.search(str(error)):
            raise
        return []
    return keys


def seen_keys(request: list[bytes]) -> list[bytes]:
    return [request[index] for index in request_keys(TABLE, request)]


def requests(spec: CommandSpec) -> Iterator[list[bytes]]:
    """Right requests of several lengths; an argument that counts keys counts one to three."""
    head = [word.encode() for word in spec.name.split("|")]
    counts = [_count_at(spec)] if spec.rule == KeyRule.SPECS else []
    for argc in range(max(abs(spec.arity), 2), abs(spec.arity) + 5):
        request = head + [b"k%d" % index for index in range(len(head), argc)]
        for keys in (1, 2, 3):
            for index in filter(None, counts):
                request[index : index + 1] = [b"%d" % keys]
            room = all(index is None or index + keys < argc for index in counts)
            if spec.takes(argc) and room:
                yield list(request)


def _count_at(spec: CommandSpec) -> int | None:
    """The index of the argument that counts the keys."""
    for begin, find, _ in spec.key_specs:
        if find[0] == "keynum":
            return int(begin[1]) + int(find[1])
    return None


def all_specs() -> Iterator[CommandSpec]:
    """Every command, and in place of a container its subcommands."""
    for spec in TABLE:
        if not spec.subcommands:
            yield spec
        yield from (sub for sub in spec.subcommands.values() if sub.name not in UNTOLD)


@pytest.fixture
def known(node: NodeProcess) -> set[str]:
    """Names of the server's commands."""
    return {entry[0].decode() for entry in node.call("COMMAND")}


def test_keys_of_every_command(node: NodeProcess, known: set[str]) -> None:
    general = [spec for spec in all_specs() if spec.rule <= KeyRule.SPECS]
    keyed = set()
    for spec in general:
        if spec.name.partition("|")[0] not in known:
            continue
        for request in requests(spec):
            # a lone key of PFMERGE is right, but GETKEYS wants a source
            if request[0] == b"pfmerge" and len(request) == 2:
                continue
            seen, told = seen_keys(request), told_keys(node, request)
            # before 7.0 a STORE command's destination is told last
            assert told is None or sorted(seen) == sorted(told), request
            keyed |= {spec.name} if seen else set()
    holding = CommandFlag.KEYED | CommandFlag.CHANNEL
    expected = {spec.name for spec in general if spec.flags & holding == CommandFlag.KEYED}
    assert keyed == {name for name in expected if name.partition("|")[0] in known}


@pytest.mark.parametrize("text", ODD)
def test_keys_of_odd_requests(node: NodeProcess, text: str) -> None:
    request = [word.encode() for word in text.split()]
    assert seen_keys(request) == told_keys(node, request)


def test_slots_of_random_keys(node: NodeProcess) -> None:
    dice = random.Random(5)
    for _ in range(300):
        key = b"".join(dice.choices([b"{", b"}", b"a", b"\0", b"\r\n", b"\xfe", b"xyz"], k=8))
        assert node.call("CLUSTER", "KEYSLOT", key) == slot_of(key)


def test_the_servers_own_table_changes_nothing_that_it_should_not(node: NodeProcess) -> None:
    """Whatever its version: known commands keep their keys and flags, new ones are added."""
    merged = merge(TABLE, node.call("COMMAND"))
    for spec in TABLE:
        found = merged.lookup(spec.name.encode())
        assert found is not None
        assert (found.flags, found.rule, found.first) == (spec.flags, spec.rule, spec.first)
    for entry in node.call("COMMAND"):
        assert merged.lookup(entry[0]) is not None


def test_the_checked_in_table_is_what_the_server_tells(node: NodeProcess) -> None:
    about = node.call("INFO", "server").decode()
    if "redis_version:7.0." not in about:
        pytest.skip("the table is generated from Redis 7.0")
    with open(command_table.__file__) as checked_in:
        assert render(node.call("COMMAND")) == checked_in.read()
