"""The built-in table, and what a cluster's COMMAND reply changes in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.routing.command_table import ROWS
from rproxy.routing.commands import KEY_RULES, POLICIES, UNTOLD_FLAGS, built_in, merge
from rproxy.routing.slots import BAD_KEYS, request_keys, request_slot
from rproxy.routing.specs import CommandFlag, CommandSpec, CommandTable, KeyRule

TABLE = built_in()


def entry(name: bytes, arity: int, *, flags: list[bytes] | None = None, **parts: Any) -> list[Any]:
    """An entry of 7.0; `subs` and `keys` where given."""
    subs = parts.get("subs", [])
    keys = parts.get("keys", (0, 0, 0))
    return [name, arity, flags or [], *keys, [], parts.get("tips", []), [], subs]


def lookup(table: CommandTable, name: bytes, sub: bytes | None = None) -> CommandSpec:
    found = table.lookup(name, sub)
    assert found is not None
    return found


# Built in


def test_every_row_is_found() -> None:
    for name, arity, *_ in ROWS:
        container, _, sub = name.encode().partition(b"|")
        found = lookup(TABLE, container, sub or None)
        assert (found.name, found.arity) == (name, arity)


def test_hand_written_tables_name_commands() -> None:
    for name in {*KEY_RULES, *POLICIES, *UNTOLD_FLAGS} - {"json.mset"}:
        assert lookup(TABLE, name.encode()).name == name


def test_every_movable_command_has_a_rule() -> None:
    movable = {spec.name: spec.rule for spec in TABLE if "movablekeys" in spec.server_flags}
    assert len(movable) == 25
    assert not {KeyRule.RANGE, KeyRule.HIDDEN} & set(movable.values())


def test_pfcount_may_not_go_to_a_replica() -> None:
    assert not lookup(TABLE, b"pfcount").flags & CommandFlag.READONLY


# Merged


def test_new_command_of_an_old_server() -> None:
    reply = [[b"my.get", -3, [b"readonly"], 2, -1, 2, [b"@read"]]]
    table = merge(TABLE, reply)
    assert len(table) == len(TABLE) + 1
    found = lookup(table, b"MY.GET")
    assert found.flags == CommandFlag.READONLY | CommandFlag.KEYED | CommandFlag.STRAIGHT
    assert request_keys(table, [b"my.get", b"x", b"a", b"y", b"b", b"z"]) == [2, 4]
    assert TABLE.lookup(b"my.get") is None


def test_new_command_whose_keys_nobody_tells() -> None:
    table = merge(TABLE, [[b"my.eval", -3, [b"movablekeys"], 0, 0, 0, []]])
    found = lookup(table, b"my.eval")
    assert (found.rule, found.is_keyed) == (KeyRule.HIDDEN, True)
    assert request_slot(table, [b"my.eval", b"1", b"a"]) == BAD_KEYS


def test_new_command_that_can_be_cut() -> None:
    tips = [b"request_policy:multi_shard", b"response_policy:agg_sum"]
    reply = [entry(b"my.del", -2, keys=(1, -1, 1), tips=tips)]
    assert lookup(merge(TABLE, reply), b"my.del").flags & CommandFlag.MULTI_SHARD


@pytest.mark.parametrize(
    ("keys", "tips"),
    [
        ((1, -2, 2), [b"request_policy:multi_shard"]),
        ((1, 2, 1), [b"request_policy:multi_shard"]),
        ((2, -1, 1), [b"request_policy:multi_shard"]),
        ((1, -1, 1), [b"request_policy:multi_shard", b"response_policy:agg_max"]),
        ((1, -1, 1), [b"response_policy:agg_sum"]),
    ],
)
def test_new_command_that_cannot_be_cut(keys: tuple[int, int, int], tips: list[bytes]) -> None:
    reply = [entry(b"my.cmd", -2, keys=keys, tips=tips)]
    assert not lookup(merge(TABLE, reply), b"my.cmd").flags & CommandFlag.MULTI_SHARD


def test_an_old_server_does_not_impoverish_the_table() -> None:
    table = merge(TABLE, [[b"mget", -2, [b"readonly"], 1, -1, 1, []], [b"object", -2, [], 2, 2, 1]])
    assert lookup(table, b"mget") is lookup(TABLE, b"mget")
    assert lookup(table, b"object", b"freq") is lookup(TABLE, b"object", b"freq")


def test_a_newer_server_changes_arity_and_adds_subcommands() -> None:
    """As ZRANK did, which took a further argument from 7.2 on."""
    subs = [entry(b"object|freq", -3), entry(b"object|age", 3, keys=(2, 2, 1))]
    table = merge(TABLE, [entry(b"zrank", -3), entry(b"object", -2, subs=subs)])
    assert lookup(TABLE, b"zrank").arity == 3
    assert lookup(table, b"zrank").arity == -3
    assert lookup(table, b"zrank").flags == lookup(TABLE, b"zrank").flags
    assert lookup(table, b"object", b"freq").arity == -3
    assert lookup(table, b"object", b"freq").first == 2
    assert lookup(table, b"object", b"encoding") == lookup(TABLE, b"object", b"encoding")
    assert request_keys(table, [b"OBJECT", b"AGE", b"k"]) == [2]


def test_untold_facts_outlast_a_merge() -> None:
    table = merge(TABLE, [entry(b"msetnx", -3, tips=[b"request_policy:multi_shard"])])
    assert not lookup(table, b"msetnx").flags & CommandFlag.MULTI_SHARD
    table = merge(table, [entry(b"debug", -2), entry(b"pfcount", -2, flags=[b"readonly"])])
    assert request_keys(table, [b"DEBUG", b"OBJECT", b"k"]) == [2]
    assert not lookup(table, b"pfcount").flags & CommandFlag.READONLY


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [b"get"],
        entry(b"get", 0),
        entry(b"new", 0),
        entry(b"new", 2**40),
        entry(b"new", 1, keys=(-1, 0, 0)),
        entry(b"new", 1, keys=(1, 1, -1)),
    ],
)
def test_malformed_entries_are_skipped(bad: Any) -> None:
    table = merge(TABLE, [bad, entry(b"fine", 1)])
    assert len(table) == len(TABLE) + 1
    assert lookup(table, b"fine").arity == 1
    assert lookup(table, b"get") is lookup(TABLE, b"get")


@pytest.mark.parametrize("reply", [None, b"OK", 7, {}, []])
def test_a_reply_without_commands(reply: Any) -> None:
    assert {spec.name for spec in merge(TABLE, reply)} == {spec.name for spec in TABLE}


WORDS = st.sampled_from([b"get", b"new", b"object", b"movablekeys", b"type", b"index", b"spec"])
PARTS = st.recursive(
    st.integers(-3, 9) | WORDS, lambda inner: st.lists(inner, max_size=6), max_leaves=5
)
FEW = CommandTable([lookup(TABLE, b"get"), lookup(TABLE, b"object")])
ENTRIES = st.tuples(WORDS, st.integers(), *[PARTS] * 8).map(list)


@given(st.lists(ENTRIES, max_size=4))
def test_no_reply_is_fatal(reply: list[Any]) -> None:
    table = merge(FEW, reply)
    assert len(table) >= len(FEW)
    for name in (found[0] for found in reply):
        request_slot(table, [name, b"1", b"a", b"b"])
