"""COMMAND replies of every version and protocol -> rows; nonsense -> nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.routing.rows import Described, Row, read

GET_62 = [b"get", 2, [b"readonly", b"fast"], 1, 1, 1, [b"@read", b"@fast"]]
GET = Row("get", 2, "readonly fast", "read fast", (1, 1, 1), (), "", "")
COUNTED_2 = [
    b"flags", [b"RO", b"access"],
    b"begin_search", [b"type", b"index", b"spec", [b"index", 1]],
    b"find_keys",
    [b"type", b"keynum", b"spec", [b"keynumidx", 0, b"firstkey", 1, b"keystep", 1]],
]  # fmt: skip
COUNTED_3 = {
    b"flags": {b"RO", b"access"},
    b"begin_search": {b"type": b"index", b"spec": {b"index": 1}},
    b"find_keys": {
        b"type": b"keynum",
        b"spec": {b"keynumidx": 0, b"firstkey": 1, b"keystep": 1},
    },
}
COUNTED = (("index", 1), ("keynum", 0, 1, 1), "RO access")
UNKNOWN = [b"flags", [], b"begin_search", [b"type", b"unknown", b"spec", []],
           b"find_keys", [b"type", b"unknown", b"spec", []]]  # fmt: skip


def one(entry: Any) -> Described | None:
    found = list(read([entry]))
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("length", [6, 7])
def test_before_7(length: int) -> None:
    categories = "read fast" if length == 7 else ""
    assert one(GET_62[:length]) == Described(GET._replace(categories=categories), [], False)


def full(name: bytes = b"new", **changed: Any) -> list[Any]:
    parts = {"flags": [b"movablekeys"], "tips": [], "specs": [], "subs": [], **changed}
    return [name, -2, parts["flags"], 0, 0, 0, [], parts["tips"], parts["specs"], parts["subs"]]


@pytest.mark.parametrize("spec", [COUNTED_2, COUNTED_3], ids=["RESP2", "RESP3"])
def test_key_specifications(spec: Any) -> None:
    found = one(full(specs=[spec, UNKNOWN]))
    assert found is not None
    assert found.is_full
    assert found.row.key_specs == (COUNTED, (("unknown",), ("unknown",), ""))


def test_flags_as_a_set() -> None:
    found = one(full(flags={b"write", b"fast"}))
    assert found is not None
    assert found.row.flags == "fast write"


def ranged(at: int, last: int, step: int = 1, limit: int = 0, *flags: bytes) -> list[Any]:
    """A key specification as servers write it."""
    return [
        b"flags", list(flags),
        b"begin_search", [b"type", b"index", b"spec", [b"index", at]],
        b"find_keys",
        [b"type", b"range", b"spec", [b"lastkey", last, b"keystep", step, b"limit", limit]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "specs"),
    [
        ((1, 1, 1), [ranged(1, 0)]),
        ((1, -1, 2), [ranged(1, -1, 2)]),
        ((1, 2, 1), [ranged(1, 0), ranged(2, 0)]),
        ((1, -1, 1), [ranged(1, 0), ranged(2, -1)]),
        ((2, -2, 1), [ranged(2, -2, 1, 1)]),
    ],
)
def test_specifications_that_the_range_says_are_dropped(
    keys: tuple[int, int, int], specs: list[Any]
) -> None:
    entry = full(flags=[], specs=specs)
    entry[3:6] = keys
    found = one(entry)
    assert found is not None
    assert found.row.key_specs == ()


@pytest.mark.parametrize(
    ("keys", "specs"),
    [
        ((0, 0, 0), [COUNTED_2]),
        ((1, 4, 1), [ranged(1, 0), ranged(4, 0)]),
        ((1, 1, 1), [ranged(1, 0), ranged(4, 0)]),
        ((1, -1, 1), [ranged(1, -1, 1, 2)]),
        ((1, 1, 1), [ranged(1, 0, 1, 0, b"RW", b"incomplete")]),
        ((1, 3, 1), [ranged(1, 2, 2)]),
        ((0, 0, 0), [ranged(1, 0)]),
    ],
)
def test_specifications_that_say_more_are_kept(
    keys: tuple[int, int, int], specs: list[Any]
) -> None:
    """Whether or not the server flags the command as one with movable keys."""
    for flags in ([], [b"movablekeys"]):
        entry = full(flags=flags, specs=specs)
        entry[3:6] = keys
        found = one(entry)
        assert found is not None
        assert len(found.row.key_specs) == len(specs)


def test_tips() -> None:
    tips = [b"nondeterministic_output", b"request_policy:all_shards", b"response_policy:agg_min"]
    found = one(full(tips=tips))
    assert found is not None
    assert (found.row.request_policy, found.row.response_policy) == ("all_shards", "agg_min")


def test_subcommands() -> None:
    subs = [full(b"new|a"), full(b"other|b"), full(b"new"), None, full(b"new|a|b")]
    found = one(full(subs=subs))
    assert found is not None
    assert [sub.name for sub in found.subcommands] == ["new|a"]


def test_words_may_be_text() -> None:
    found = one(["GET", 2, ["readonly"], 1, 1, 1])
    assert found is not None
    assert found.row.name == "get"


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        b"get",
        [b"get"],
        [b"", 2, [], 0, 0, 0],
        [b"a\r\nb", 2, [], 0, 0, 0],
        [b"\xff", 2, [], 0, 0, 0],
        [b"x" * 200, 2, [], 0, 0, 0],
        [3, 2, [], 0, 0, 0],
        [b"get", b"x", [], 0, 0, 0],
        [b"get", 2, 7, 0, 0, 0],
        full(specs=[[b"flags"]]),
        full(specs=[[b"flags", []]]),
        full(specs=[7]),
        full(tips=[7]),
    ],
)
def test_nonsense_is_left_out(entry: Any) -> None:
    assert list(read([entry, GET_62])) == [Described(GET, [], False)]


REPLIES = st.recursive(
    st.none() | st.integers() | st.sampled_from([b"get", b"type", b"spec", b"movablekeys"]),
    lambda inner: st.lists(inner, max_size=10),
    max_leaves=30,
)


@given(REPLIES)
def test_no_reply_is_fatal(reply: Any) -> None:
    for found in read(reply):
        assert isinstance(found.row, Row)
