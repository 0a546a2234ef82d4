"""What servers leave out, or tell wrongly, of modules' commands."""

from __future__ import annotations

from typing import Any

import pytest

from rproxy.routing.commands import built_in, merge
from rproxy.routing.modules import COORDINATOR, SEARCH, UNMERGED
from rproxy.routing.slots import BAD_KEYS, NO_KEYS, request_keys, request_slot
from rproxy.routing.specs import CommandFlag, CommandSpec, CommandTable, KeyRule

MOVABLE = b"movablekeys"


def entry(name: bytes, *flags: bytes, keys: tuple[int, int, int] = (0, 0, 0)) -> list[Any]:
    """An entry as servers before 7.0 write it."""
    return [name, -1, list(flags), *keys, []]


def full(*parts: Any, tips: tuple[bytes, ...] = (), **more: Any) -> list[Any]:
    """One of 7.0; `specs` and `subs` where given."""
    return [*parts, list(tips), more.get("specs", []), more.get("subs", [])]


def ranged(at: int, last: int, *flags: bytes, limit: int = 0) -> list[Any]:
    return [
        b"flags", list(flags),
        b"begin_search", [b"type", b"index", b"spec", [b"index", at]],
        b"find_keys",
        [b"type", b"range", b"spec", [b"lastkey", last, b"keystep", 1, b"limit", limit]],
    ]  # fmt: skip


def announced(*entries: list[Any]) -> CommandTable:
    return merge(built_in(), list(entries))


def find(table: CommandTable, name: bytes, sub: bytes | None = None) -> CommandSpec:
    found = table.lookup(name, sub)
    assert found is not None
    return found


def keys(table: CommandTable, command: str) -> list[int]:
    return request_keys(table, command.encode().split())


# -- documents --


@pytest.mark.parametrize("told", [(1, 1, 1), (0, 0, 0), (1, -2, 1), (1, 0, 3), (1, -1, 3)])
@pytest.mark.parametrize("flags", [(b"readonly",), (b"readonly", MOVABLE)])
def test_documents_are_split_whatever_is_told(
    told: tuple[int, int, int], flags: tuple[bytes, ...]
) -> None:
    table = announced(*(entry(name, *flags, keys=told) for name in (b"json.mget", b"json.mset")))
    assert keys(table, "JSON.MGET a b c $") == [1, 2, 3]
    assert keys(table, "JSON.MSET a $ 1 b $ 2") == [1, 4]
    for name in (b"json.mget", b"json.mset"):
        assert find(table, name).flags & CommandFlag.MULTI_SHARD


def test_documents_are_unknown_where_no_server_announces_them() -> None:
    assert built_in().lookup(b"json.mget") is None


def test_told_policy_of_documents_is_honoured() -> None:
    tips = (b"request_policy:special",)
    table = announced(full(*entry(b"json.mget", b"readonly", keys=(1, 1, 1)), tips=tips))
    assert find(table, b"json.mget").request_policy == "special"


# -- search, and other commands for all keys --


@pytest.mark.parametrize("name", [*sorted(SEARCH), "ts.mget", "ts.queryindex"])
def test_command_for_all_documents_names_no_key(name: str) -> None:
    """Not the index, which servers without the coordinator call one."""
    spec = find(announced(entry(name.encode(), b"readonly", keys=(1, 1, 1))), name.encode())
    assert (spec.request_policy, spec.response_policy) == ("all_shards", UNMERGED)
    assert not spec.is_keyed
    assert not spec.flags & CommandFlag.STRAIGHT


def test_subcommand_of_search() -> None:
    sub = full(*entry(b"ft.cursor|read", b"readonly", keys=(2, 2, 1)))
    spec = find(announced(full(*entry(b"ft.cursor"), subs=[sub])), b"ft.cursor", b"read")
    assert (spec.name, spec.response_policy) == ("ft.cursor|read", UNMERGED)


def test_suggestions_have_a_key() -> None:
    table = announced(entry(b"ft.sugadd", b"write", keys=(1, 1, 1)))
    assert keys(table, "FT.SUGADD s word 1") == [1]
    assert find(table, b"ft.sugadd").flags & CommandFlag.STRAIGHT


def test_coordinator_asks_all_nodes_itself() -> None:
    search = entry(b"ft.search", b"readonly")
    spec = find(announced(search, entry(COORDINATOR.encode())), b"ft.search")
    assert spec.request_policy == ""
    later = merge(announced(entry(COORDINATOR.encode())), [search])
    assert find(later, b"ft.search").request_policy == ""


def test_told_policies_of_search_are_honoured() -> None:
    tips = (b"request_policy:all_shards", b"response_policy:all_succeeded")
    spec = find(announced(full(*entry(b"ft.create", keys=(1, 1, 1)), tips=tips)), b"ft.create")
    assert (spec.request_policy, spec.response_policy) == ("all_shards", "all_succeeded")


# -- where keys are --


@pytest.mark.parametrize("flags", [(), (MOVABLE,)])
def test_two_ranges(flags: tuple[bytes, ...]) -> None:
    told = full(*entry(b"m.two", *flags, keys=(1, 1, 1)), specs=[ranged(1, 0), ranged(4, 1)])
    assert keys(announced(told), "M.TWO a v x b c d") == [1, 4, 5]


def test_half_of_the_arguments() -> None:
    told = full(*entry(b"m.half", keys=(1, -1, 1)), specs=[ranged(1, -1, limit=2)])
    assert keys(announced(told), "M.HALF a b x y") == [1, 2]


@pytest.mark.parametrize(
    "told",
    [
        entry(b"m.own", MOVABLE),
        entry(b"m.own", MOVABLE, keys=(1, 1, 1)),
        full(*entry(b"m.own", MOVABLE)),
        full(*entry(b"m.own", MOVABLE, keys=(1, 1, 1)), specs=[ranged(1, 0, b"variable_flags")]),
        full(*entry(b"m.own", MOVABLE, keys=(1, 1, 1)), specs=[ranged(1, 0, b"incomplete")]),
        full(*entry(b"m.own", keys=(1, 1, 1)), specs=[ranged(1, 0, b"incomplete")]),
    ],
)
def test_keys_that_only_the_server_finds(told: list[Any]) -> None:
    """The module says that it finds keys itself; then what else it tells is not all."""
    table = announced(told)
    assert find(table, b"m.own").rule == KeyRule.HIDDEN
    assert find(table, b"m.own").is_keyed
    assert request_slot(table, [b"m.own", b"a", b"1", b"b"]) == BAD_KEYS


def test_located() -> None:
    table = announced(entry(b"m.own", b"write", MOVABLE))
    spec = find(table, b"m.own").located(((("index", 2), ("range", 4, 2, 0), ""),))
    assert (spec.name, spec.rule, spec.server_flags) == (
        "m.own",
        KeyRule.SPECS,
        find(table, b"m.own").server_flags,
    )
    there = CommandTable([spec])
    assert request_keys(there, [b"m.own", b"x", b"a", b"x", b"b", b"x", b"c"]) == [2, 4, 6]
    nowhere = CommandTable([find(table, b"m.own").located(())])
    assert request_slot(nowhere, [b"m.own", b"a"]) == NO_KEYS
