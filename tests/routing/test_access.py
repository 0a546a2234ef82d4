"""Commands that the operator denies, renames or takes away."""

from __future__ import annotations

from rproxy.routing.access import DENIED, RENAMED, Access, marked
from rproxy.routing.commands import built_in
from rproxy.routing.specs import CommandFlag, CommandTable


def is_marked(table: CommandTable, mark: str, *name: bytes) -> bool:
    spec = table.lookup(*name)
    assert spec is not None
    assert mark not in spec.server_flags or not spec.flags & CommandFlag.STRAIGHT
    return mark in spec.server_flags


def test_without_wishes_the_table_is_the_same() -> None:
    assert Access().denying(built_in()) is built_in()
    assert Access().renaming(built_in()) is built_in()


def test_a_denied_command_is_off_the_straight_path_and_no_other() -> None:
    table = Access(["get"]).denying(built_in())
    assert is_marked(table, DENIED, b"GET")
    assert len(table) == len(built_in())
    for spec in table:
        if spec.name != "get":
            genuine = built_in().lookup(spec.name.encode())
            assert genuine is not None
            assert (spec.flags, spec.server_flags) == (genuine.flags, genuine.server_flags)


def test_a_denied_container_is_denied_with_all_that_it_holds() -> None:
    table = Access(["config"]).denying(built_in())
    assert is_marked(table, DENIED, b"config", b"get")
    assert is_marked(table, DENIED, b"config", b"nonsense")


def test_a_denied_subcommand_leaves_the_others_alone() -> None:
    table = Access(["config|set", "debug|sleep"]).denying(built_in())
    assert is_marked(table, DENIED, b"CONFIG", b"SET")
    assert is_marked(table, DENIED, b"debug", b"SLEEP")
    for name in ((b"config", b"get"), (b"config",), (b"debug", b"object"), (b"debug", b"jmap")):
        assert not is_marked(table, DENIED, *name)


def test_a_renamed_command_is_found_by_its_new_name_alone() -> None:
    access = Access(rename={"flushall": "Really-Flush", "keys": ""})
    table = access.renaming(built_in())
    assert table.lookup(b"flushall") is None
    assert table.lookup(b"keys") is None
    assert is_marked(table, RENAMED, b"REALLY-flush")
    assert access.original(b"REALLY-flush") == b"flushall"
    assert access.original(b"get") is None
    assert [access.is_gone(name) for name in (b"FlushAll", b"keys", b"get", b"\xff")] == [
        True,
        True,
        False,
        False,
    ]


def test_names_can_be_exchanged() -> None:
    access = Access(rename={"get": "set", "set": "get"})
    assert is_marked(access.renaming(built_in()), RENAMED, b"get")
    assert access.original(b"get") == b"set"
    assert not access.is_gone(b"get")


def test_a_denied_command_stays_denied_under_its_new_name() -> None:
    table = Access(rename={"flushall": "wipe"}).renaming(Access(["flushall"]).denying(built_in()))
    assert is_marked(table, DENIED, b"wipe")


def test_strangers_are_named() -> None:
    access = Access(["kyes", "config|nonsense", "get"], {"flushal": "x"})
    assert access.strangers(built_in()) == ["flushal", "kyes"]


def test_a_mark_is_put_where_the_judge_says_so_in_subcommands_as_well() -> None:
    table = marked(built_in(), "paused", lambda spec: "write" in spec.server_flags)
    assert is_marked(table, "paused", b"set")
    assert is_marked(table, "paused", b"xgroup", b"create")
    assert not is_marked(table, "paused", b"get")
