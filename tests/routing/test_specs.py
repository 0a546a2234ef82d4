"""CommandSpec and CommandTable: what is derived, what is refused, what is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.routing.commands import built_in
from rproxy.routing.specs import CommandFlag, CommandSpec, CommandTable, KeyRule

TABLE = built_in()
NAMES = st.text("abcdefghij._-", min_size=1, max_size=20)


def spec(name: str, sub: str | None = None) -> CommandSpec:
    found = TABLE.lookup(name.encode(), None if sub is None else sub.encode())
    assert found is not None
    return found


FLAGS = {
    "get": "READONLY KEYED STRAIGHT",
    "set": "WRITE KEYED STRAIGHT",
    "mget": "READONLY KEYED STRAIGHT MULTI_SHARD",
    "mset": "WRITE KEYED STRAIGHT MULTI_SHARD",
    "msetnx": "WRITE KEYED STRAIGHT",
    "pfcount": "KEYED STRAIGHT",
    "eval": "KEYED",
    "eval_ro": "READONLY KEYED",
    "sort": "WRITE KEYED STRAIGHT",
    "georadius": "WRITE KEYED STRAIGHT",
    "georadius_ro": "READONLY KEYED STRAIGHT",
    "blpop": "WRITE KEYED BLOCKING",
    "xread": "READONLY KEYED BLOCKING",
    "watch": "KEYED",
    "migrate": "WRITE KEYED",
    "spublish": "KEYED CHANNEL",
    "ssubscribe": "KEYED CHANNEL",
    "publish": "",
    "ping": "",
    "keys": "READONLY",
    "object": "CONTAINER",
    "debug": "CONTAINER",
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name: str) -> None:
    assert spec(name).flags == sum(CommandFlag[flag] for flag in FLAGS[name].split())


def test_flags_of_a_subcommand() -> None:
    assert spec("object", "encoding").flags == spec("get").flags


def test_only_these_are_cut() -> None:
    cut = {found.name for found in TABLE if found.flags & CommandFlag.MULTI_SHARD}
    assert cut == {"mget", "mset", "del", "unlink", "exists", "touch"}


def test_fields() -> None:
    found = spec("mget")
    assert (found.name, found.arity, found.rule) == ("mget", -2, KeyRule.RANGE)
    assert (found.first, found.last, found.step) == (1, -1, 1)
    assert found.server_flags == {"readonly", "fast"}
    assert found.acl_categories == {"@read", "@string", "@fast"}
    assert (found.request_policy, found.response_policy) == ("multi_shard", "")
    assert found.is_keyed
    assert not spec("ping").is_keyed
    assert spec("object").subcommands[b"freq"].name == "object|freq"
    assert repr(found) == "<CommandSpec mget arity -2, keys 1..-1/1, flags 58>"


def test_spec_is_frozen() -> None:
    with pytest.raises(AttributeError):
        spec("get").arity = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "arity", "options"),
    [
        ("", 1, {}),
        ("x", 0, {}),
        ("x", 1, {"first": -1}),
        ("x", 1, {"first": 1, "step": 0}),
        ("x", 1, {"rule": 99}),
        ("x", 1, {"key_specs": ((("index", 0), ("range", 0, 1, 0), ""),)}),
        ("x", 1, {"key_specs": ((("index", 1), ("range", 0, 0, 0), ""),)}),
        ("x", 1, {"key_specs": ((("index", 1), ("keynum", -1, 1, 1), ""),)}),
        ("x", 1, {"key_specs": ((("index", 1), ("range", 0, 1), ""),)}),
        ("x", 1, {"key_specs": ((("index", 1), ("range", 0, 1, 0), ""),) * 9}),
    ],
)
def test_spec_refuses(name: str, arity: int, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        CommandSpec(name, arity, **options)  # type: ignore[arg-type]


def test_renewed_keeps_the_rest() -> None:
    old = spec("zunionstore")
    new = old.renewed(-9, [])
    assert new.arity == -9
    for field in ("name", "flags", "rule", "key_specs", "server_flags", "acl_categories", "step"):
        assert getattr(new, field) == getattr(old, field)


# Arity


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("get", [2], [0, 1, 3]),
        ("set", [3, 4, 100], [0, 1, 2]),
        ("ping", [1, 2], [0]),
        ("mget", [2, 3], [1]),
        ("mset", [3, 5], [1, 2, 4, 6]),
        ("msetnx", [3, 5], [4]),
        ("blpop", [3, 4], [2]),
    ],
)
def test_takes(name: str, right: list[int], wrong: list[int]) -> None:
    assert all(spec(name).takes(count) for count in right)
    assert not any(spec(name).takes(count) for count in wrong)


def test_a_subcommand_counts_its_container() -> None:
    assert spec("object", "encoding").takes(3)
    assert not spec("object", "encoding").takes(2)


# The table


@pytest.mark.parametrize("name", [b"get", b"GET", b"gEt"])
def test_lookup_in_any_case(name: bytes) -> None:
    found = TABLE.lookup(name)
    assert found is not None
    assert found.name == "get"


@pytest.mark.parametrize("name", [b"", b"g", b"gett", b"get\0", b"nosuch", b"\xff", b"G" * 5000])
def test_lookup_of_an_unknown_name(name: bytes) -> None:
    assert TABLE.lookup(name) is None


def test_only_letters_have_case() -> None:
    """A byte that differs from another by 32 only is not the same byte."""
    table = CommandTable([CommandSpec("a_[b", 1)])
    assert table.lookup(b"A_[B") is not None
    assert table.lookup(b"a\x7f[b") is None
    assert table.lookup(b"a_{b") is None


def test_lookup_of_subcommands() -> None:
    assert spec("OBJECT", "Encoding").name == "object|encoding"
    assert spec("object", "nosuch").name == "object"
    assert spec("get", "encoding").name == "get"
    assert TABLE.lookup(b"nosuch", b"x") is None
    assert TABLE.lookup(b"encoding") is None


@given(st.lists(NAMES, unique=True), st.lists(NAMES))
def test_a_table_holds_what_it_was_given(names: list[str], others: list[str]) -> None:
    table = CommandTable(CommandSpec(name, 1) for name in names)
    assert len(table) == len(names)
    assert [found.name for found in table] == names
    for name in names + others:
        found = table.lookup(name.upper().encode())
        assert (found is not None and found.name == name) == (name in names)


def test_the_later_of_two_is_taken() -> None:
    table = CommandTable([CommandSpec("a", 1), CommandSpec("a", 2)])
    found = table.lookup(b"a")
    assert found is not None
    assert found.arity == 2
    assert repr(table) == "<CommandTable of 1>"
