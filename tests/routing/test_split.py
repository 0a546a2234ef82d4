"""Cutting and merging: pieces with the oracle's server behind them are worth the whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.routing.commands import built_in, merge
from rproxy.routing.slots import slot_of
from rproxy.routing.split import Plan, cut_request, elements
from tests.oracle import Typed, encode, encode_request, parse_reply, parse_request
from tests.wire.test_fuzz import replies as wire_replies

TABLE = built_in()
KEYS = st.sampled_from(
    [b"a", b"b", b"c", b"", b"{a}1", b"{a}2", b"{b}1", b"\r\n$1\r\n", b"d" * 300]
)
VALUES = st.binary(max_size=20)
Store = dict[bytes, bytes]


def words_of(frame: bytes) -> list[bytes]:
    """The arguments of a piece, which has to be one whole request."""
    found = parse_request(frame)
    assert isinstance(found, tuple)
    assert found[1] == len(frame)
    return found[0]


# A server that keeps strings in a dict

Command = Callable[[Store, list[bytes]], object]


def mset(store: Store, args: list[bytes]) -> object:
    store.update(zip(args[::2], args[1::2], strict=True))
    return Typed("+", b"OK")


SERVER: dict[bytes, Command] = {
    b"mget": lambda store, keys: [store.get(key) for key in keys],
    b"mset": mset,
    b"del": lambda store, keys: sum(store.pop(key, None) is not None for key in keys),
    b"unlink": lambda store, keys: sum(store.pop(key, None) is not None for key in keys),
    b"exists": lambda store, keys: sum(key in store for key in keys),
    b"touch": lambda store, keys: sum(key in store for key in keys),
}


def served(store: Store, request: list[bytes], protocol: int) -> bytes:
    return encode(SERVER[request[0].lower()](store, request[1:]), protocol)


@given(
    name=st.sampled_from(sorted(SERVER)),
    pairs=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=20),
    store=st.dictionaries(KEYS, VALUES),
    protocol=st.sampled_from([2, 3]),
    every_key=st.booleans(),
)
def test_pieces_are_worth_the_whole(
    name: bytes, pairs: list[tuple[bytes, bytes]], store: Store, protocol: int, every_key: bool
) -> None:
    request = [name]
    for key, value in pairs:
        request += (key, value) if name == b"mset" else (key,)
    whole, parts = dict(store), dict(store)
    plan = cut_request(TABLE, request, every_key)
    replies = [served(parts, words_of(frame), protocol) for frame in plan.frames]
    assert plan.merge(replies) == served(whole, request, protocol)
    assert parts == whole
    assert plan.total == len(pairs)


@given(st.lists(KEYS, min_size=1, max_size=30))
def test_pieces_have_one_slot_each_in_the_order_of_appearance(keys: list[bytes]) -> None:
    plan = cut_request(TABLE, [b"DEL", *keys])
    assert plan.slots == list(dict.fromkeys(slot_of(key) for key in keys))
    for slot, frame in zip(plan.slots, plan.frames, strict=True):
        assert words_of(frame) == [b"DEL", *(key for key in keys if slot_of(key) == slot)]


def test_frames() -> None:
    plan = cut_request(TABLE, [b"MSet", b"a", b"1", b"b", b"", b"a", b"2"])
    assert plan.frames == [
        encode_request([b"MSet", b"a", b"1", b"a", b"2"]),
        encode_request([b"MSet", b"b", b""]),
    ]
    assert plan.slots == [slot_of(b"a"), slot_of(b"b")]
    assert plan.spec is TABLE.lookup(b"mset")
    assert repr(plan) == "<Plan mset: 3 keys in 2 pieces>"


DOCUMENTS = merge(
    TABLE,
    [
        [b"json.mget", -1, [b"readonly"], 1, 1, 1, []],
        [b"json.mset", -1, [b"write"], 1, -1, 3, []],
        [b"m.tails", -1, [], 1, -3, 1, [], [b"request_policy:multi_shard"], [], []],
    ],
)


@pytest.mark.parametrize("every_key", [False, True])
def test_arguments_behind_the_keys_end_every_piece(every_key: bool) -> None:
    request = [b"json.mget", b"a", b"b", b"{a}", b"$.path"]
    plan = cut_request(DOCUMENTS, request, every_key)
    keys = [[b"a"], [b"b"], [b"{a}"]] if every_key else [[b"a", b"{a}"], [b"b"]]
    assert [words_of(frame) for frame in plan.frames] == [
        [b"json.mget", *part, b"$.path"] for part in keys
    ]
    assert plan.total == 3
    replies = [encode(part) for part in keys]
    assert plan.merge(replies) == encode([b"a", b"b", b"{a}"])


@given(st.lists(KEYS, min_size=1, max_size=20), st.tuples(st.binary(), st.binary()))
def test_two_arguments_behind_the_keys(keys: list[bytes], tail: tuple[bytes, bytes]) -> None:
    plan = cut_request(DOCUMENTS, [b"m.tails", *keys, *tail])
    for slot, frame in zip(plan.slots, plan.frames, strict=True):
        mine = [key for key in keys if slot_of(key) == slot]
        assert words_of(frame) == [b"m.tails", *mine, *tail]


def test_groups_of_three() -> None:
    plan = cut_request(DOCUMENTS, b"json.mset a $ 1 b $.x 2 {a} $ 3".split())
    assert [words_of(frame) for frame in plan.frames] == [
        b"json.mset a $ 1 {a} $ 3".split(),
        b"json.mset b $.x 2".split(),
    ]
    assert plan.merge([b"+OK\r\n", b"+OK\r\n"]) == b"+OK\r\n"
    partly = b"-ERR 2 of 3 keys were written, then: no path\r\n"
    assert plan.merge([b"+OK\r\n", b"-ERR no path\r\n"]) == partly


@pytest.mark.parametrize(
    "request_text",
    ["json.mget", "json.mget a", "json.mset a $", "json.mset a $ 1 b", "m.tails x y"],
)
def test_documents_that_cannot_be_cut(request_text: str) -> None:
    with pytest.raises(ValueError, match="can be cut"):
        cut_request(DOCUMENTS, request_text.encode().split())


def test_tail_that_pieces_would_make_too_large() -> None:
    """What a client sends once, every piece has to have: a few megabytes would become many."""
    keys = [b"k%d" % number for number in range(2000)]
    assert len(cut_request(DOCUMENTS, [b"json.mget", *keys, b"$" * 4000]).frames) > 1500
    with pytest.raises(OverflowError):
        cut_request(DOCUMENTS, [b"json.mget", *keys, b"$" * 20_000])


def test_every_key_apart() -> None:
    plan = cut_request(TABLE, [b"MSET", b"a", b"1", b"{a}", b"2", b"a", b"3"], every_key=True)
    assert [words_of(frame)[1:] for frame in plan.frames] == [
        [b"a", b"1"],
        [b"{a}", b"2"],
        [b"a", b"3"],
    ]
    assert plan.slots == [slot_of(b"a")] * 3


def test_cuts_do_not_remember_each_other() -> None:
    """A slot's piece in one request means nothing to the next one."""
    cut_request(TABLE, [b"DEL", b"a", b"b"])
    assert cut_request(TABLE, [b"DEL", b"b", b"a"]).slots == [slot_of(b"b"), slot_of(b"a")]
    cut_request(TABLE, [b"DEL", b"a", b"b"], every_key=True)
    assert len(cut_request(TABLE, [b"DEL", b"b", b"b"]).frames) == 1


@pytest.mark.parametrize(
    "request_text", ["GET a", "MSETNX a 1 b 2", "MSET a 1 b", "MSET a", "MGET", "NOSUCH a", ""]
)
def test_what_cannot_be_cut(request_text: str) -> None:
    with pytest.raises(ValueError, match=r"no such command|can be cut"):
        cut_request(TABLE, request_text.encode().split())


def test_a_hundred_thousand_keys() -> None:
    keys = [b"key:%d" % number for number in range(100_000)]
    plan = cut_request(TABLE, [b"MGET", *keys])
    assert 16_000 < len(plan.frames) <= 16_384
    assert len(plan.frames) == len({*plan.slots})
    merged = parse_reply(plan.merge([encode(words_of(frame)[1:]) for frame in plan.frames]))
    assert isinstance(merged, tuple)
    assert merged[0] == keys


# Merging what servers say

MOVED = b"-CLUSTERDOWN Hash slot not served\r\n"
OOM = b"-OOM command not allowed\r\n"
BLOB = b"!18\r\nMISCONF no\r\n  disk\r\n"


def plan_of(*words: bytes) -> Plan:
    return cut_request(TABLE, [*words])


def mget() -> Plan:
    """Pieces: a and a, b."""
    return plan_of(b"MGET", b"a", b"b", b"a")


@pytest.mark.parametrize(
    "element",
    [
        b"$1\r\nx\r\n",
        b"$0\r\n\r\n",
        b"$4\r\n\r\n\0:\r\n",
        b"$-1\r\n",
        b"_\r\n",
        b"=5\r\ntxt:x\r\n",
        b":12\r\n",
        b"*2\r\n*1\r\n$1\r\nx\r\n%1\r\n+a\r\n~0\r\n",
        b"$?\r\n;3\r\nabc\r\n;0\r\n",
        b"*?\r\n:1\r\n.\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n",
        b"*1\r\n" * 5000 + b":1\r\n",
    ],
)
def test_elements_are_copied_as_they_are(element: bytes) -> None:
    merged = mget().merge([b"*2\r\n$1\r\n1\r\n$1\r\n3\r\n", b"*1\r\n" + element])
    assert merged == b"*3\r\n$1\r\n1\r\n" + element + b"$1\r\n3\r\n"


@pytest.mark.parametrize(
    ("replies", "answer"),
    [
        ([MOVED, b"*1\r\n$1\r\nx\r\n"], MOVED),
        ([b"*2\r\n$1\r\nx\r\n$-1\r\n", MOVED], MOVED),
        ([OOM, MOVED], OOM),
        ([b"nonsense", BLOB], BLOB),
    ],
)
def test_an_error_is_the_answer_to_the_whole(replies: list[bytes], answer: bytes) -> None:
    assert mget().merge(replies) == answer
    assert plan_of(b"DEL", b"a", b"b").merge(replies) == answer


MISSHAPEN_ARRAYS = [
    b"",
    b"*",
    b"*1",
    b"*1\r",
    b"*1\n$1\r\nx\r\n",
    b"*-1\r\n",
    b"_\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
    b"*1\r\n",
    b"*1\r\n$",
    b"*1\r\n$1",
    b"*1\r\n$1\r\n",
    b"*1\r\n$1\r\nx",
    b"*1\r\n$1\r\nx\r",
    b"*1\r\n$1\r\nxy\r\n",
    b"*1\r\n$2\r\nx\r\n",
    b"*1\r\n$999999999999999999\r\nx\r\n",
    b"*1\r\n$9999999999999999999999\r\nx\r\n",
    b"*1\r\n$-",
    b"*1\r\n_\r",
    b"*1\r\n?\r\n",
    b"*1\r\n-ERR inside\r\n",
    b"*1\r\n!3\r\nERR\r\n",
    b"*1\r\n*2\r\n:1\r\n",
    b"*1\r\n$1\r\nx\r\n:1\r\n",
    b"*2\r\n$1\r\nx\r\n",
    b"~1\r\n$1\r\nx\r\n",
    b"|1\r\n+a\r\n+b\r\n*1\r\n$1\r\nx\r\n",
    b"+OK\r\n",
    b":1\r\n",
]


@pytest.mark.parametrize("reply", MISSHAPEN_ARRAYS)
def test_misshapen_array(reply: bytes) -> None:
    answer = b"-ERR a node gave no proper reply to its part of 'mget'\r\n"
    good = b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n"
    assert mget().merge([good, reply]) == answer


@pytest.mark.parametrize("reply", [b"", b":", b":1", b":-1\r\n", b":x\r\n", b":\r\n", b"+OK\r\n",
                                   b":1\r\n:1\r\n", b":9999999999999999999\r\n",
                                   b"$1\r\n1\r\n", b"*1\r\n:1\r\n"])  # fmt: skip
def test_misshapen_sum(reply: bytes) -> None:
    answer = b"-ERR a node gave no proper reply to its part of 'exists'\r\n"
    assert plan_of(b"EXISTS", b"a", b"b").merge([b":1\r\n", reply]) == answer


@pytest.mark.parametrize(
    ("first", "second", "total"), [(0, 0, 0), (3, 9, 12), (10**17, 5, 10**17 + 5)]
)
def test_sum(first: int, second: int, total: int) -> None:
    replies = [b":%d\r\n" % first, b":%d\r\n" % second]
    assert plan_of(b"UNLINK", b"a", b"b").merge(replies) == b":%d\r\n" % total


def test_a_sum_does_not_overflow() -> None:
    plan = plan_of(b"DEL", *(b"%d" % number for number in range(20)))
    assert plan.merge([b":999999999999999999\r\n"] * 20).startswith(b"-ERR ")


# MSET: pieces a (2 keys), b (1 key), c (1 key)


@pytest.mark.parametrize(
    ("replies", "answer"),
    [
        ([b"+OK\r\n"] * 3, b"+OK\r\n"),
        ([MOVED, OOM, MOVED], MOVED),
        ([b"+OK\r\n", b"+OK\r\n", MOVED],
         b"-CLUSTERDOWN 3 of 4 keys were written, then: Hash slot not served\r\n"),
        ([OOM, b"+OK\r\n", MOVED],
         b"-OOM 1 of 4 keys were written, then: command not allowed\r\n"),
        ([b"+OK\r\n", BLOB, b"+OK\r\n"],
         b"-MISCONF 3 of 4 keys were written, then: no disk\r\n"),
        ([b":1\r\n", b"+OK\r\n", b"+OK\r\n"],
         b"-ERR 2 of 4 keys were written, then: "
         b"a node gave no proper reply to its part of 'mset'\r\n"),
        ([b""] * 3, b"-ERR a node gave no proper reply to its part of 'mset'\r\n"),
        ([b"+OK\r\n", b"+OK\r\n", b"-ODD\r\n"], b"-ODD 3 of 4 keys were written\r\n"),
    ],
)  # fmt: skip
def test_mset(replies: list[bytes], answer: bytes) -> None:
    plan = plan_of(b"MSET", b"a", b"1", b"b", b"2", b"a", b"3", b"c", b"4")
    assert plan.merge(replies) == answer


ANY_REPLY = st.sampled_from([b"+OK\r\n", MOVED, BLOB, b"*1\r\n$1\r\nx\r\n", b":1\r\n", b"$5\r\n"])


@given(st.lists(ANY_REPLY, min_size=3, max_size=3))
def test_an_answer_is_always_one_whole_reply(replies: list[bytes]) -> None:
    for name in SERVER:
        words = [b"a", b"1", b"b", b"2", b"c", b"3"]
        plan = plan_of(name, *(words if name == b"mset" else words[::2]))
        answer = plan.merge(replies)
        found = parse_reply(answer)
        assert isinstance(found, tuple)
        assert found[1] == len(answer)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_wrong_number_of_replies(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} replies to 2 pieces"):
        mget().merge([b":1\r\n"] * count)


def test_a_modules_command_is_cut_by_its_policy() -> None:
    tips = [b"request_policy:multi_shard", b"response_policy:agg_sum"]
    table = merge(TABLE, [[b"my.del", -2, [b"write"], 1, -1, 1, [], tips, [], []]])
    plan = cut_request(table, [b"MY.DEL", b"a", b"b"])
    assert plan.merge([b":1\r\n", b":2\r\n"]) == b":3\r\n"


# -- elements --


@given(st.lists(wire_replies, max_size=8))
def test_elements_are_those_of_the_array(parts: list[bytes]) -> None:
    whole = b"*%d\r\n" % len(parts) + b"".join(parts)
    assert elements(whole) == parts
    for cut in range(len(whole)):
        assert elements(whole[:cut]) is None
    assert elements(whole + b":1\r\n") is None


@pytest.mark.parametrize(
    "reply", [b"", b"+OK\r\n", b"*-1\r\n", b"_\r\n", b"-ERR no\r\n", b":1\r\n"]
)
def test_what_is_no_array_has_no_elements(reply: bytes) -> None:
    assert elements(reply) is None
