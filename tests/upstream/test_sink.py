"""LinkTable: a Sink for every slot, and no Sink kept that no slot uses; rproxy's own requests."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.transport.stream import Tick
from rproxy.upstream.gate import Gate
from rproxy.upstream.link import Link
from rproxy.upstream.sink import LinkTable, Sink, answer, call, take_apart
from rproxy.wire.frames import Request, pack
from tests.fakes import FakeCluster, FakeProxy, Replies

LAST = 16383


def gates(count: int) -> list[Gate]:
    """Sinks that are told apart by their reason, which is their number."""
    return [Gate(None, str(number)) for number in range(count)]


def test_first_sink_has_every_slot() -> None:
    (first,) = gates(1)
    table = LinkTable(first)
    assert all(table[slot] is first for slot in range(LAST + 1))


def test_slot_is_given_to_another_sink() -> None:
    first, other = gates(2)
    table = LinkTable(first)
    table[0] = table[LAST] = other
    assert table[0] is table[LAST] is other
    assert table[1] is table[LAST - 1] is first


@pytest.mark.parametrize("slot", [-1, LAST + 1, 1 << 30])
def test_no_such_slot(slot: int) -> None:
    first, other = gates(2)
    table = LinkTable(first)
    with pytest.raises(IndexError, match=f"no slot {slot}"):
        table[slot]
    with pytest.raises(IndexError, match=f"no slot {slot}"):
        table[slot] = other
    assert table.replace(other, first) == 0


def test_replace() -> None:
    first, old, new = gates(3)
    table = LinkTable(first)
    for slot in (3, 5, 7):
        table[slot] = old
    assert table.replace(old, new) == 3
    assert [table[slot] is new for slot in range(3, 8)] == [True, False, True, False, True]
    assert table.replace(old, new) == 0
    assert table.replace(first, new) == LAST + 1 - 3
    assert table.replace(new, new) == LAST + 1
    assert table[0] is new


def test_sink_without_a_slot_is_let_go() -> None:
    first, second, third = gates(3)
    free = sys.getrefcount(second)
    table = LinkTable(first)
    table[1] = second
    table[2] = second
    assert sys.getrefcount(second) == free + 1
    table[1] = first
    assert sys.getrefcount(second) == free + 1
    table[2] = third
    assert sys.getrefcount(second) == free
    table.replace(third, first)
    assert sys.getrefcount(third) == free
    table.replace(first, second)
    assert sys.getrefcount(first) == free
    del table
    assert sys.getrefcount(second) == free


def test_every_slot_may_have_a_sink_of_its_own() -> None:
    """While all slots move at once."""
    first = Gate(None, "first")
    table = LinkTable(first)
    for slot in range(0, LAST + 1, 16):
        table[slot] = Gate(None, str(slot))
    for slot in range(LAST + 1):
        found = table[slot]
        assert isinstance(found, Gate)
        assert found.reason == ("first" if slot % 16 else str(slot))


SLOTS = st.integers(0, 9)
SINKS = st.integers(0, 4)


@given(st.lists(st.tuples(st.booleans(), SLOTS, SINKS, SINKS)))
def test_table_is_a_list_of_sinks(steps: list[tuple[bool, int, int, int]]) -> None:
    """Whatever is put where: what the table says is what a list would say."""
    sinks = gates(5)
    table = LinkTable(sinks[0])
    model = [sinks[0]] * (LAST + 1)
    for is_replacing, slot, one, other in steps:
        if is_replacing:
            assert table.replace(sinks[one], sinks[other]) == model.count(sinks[one])
            model = [sinks[other] if sink is sinks[one] else sink for sink in model]
        else:
            table[slot] = model[slot] = sinks[one]
    assert [table[slot] for slot in range(11)] == model[:11]


def test_request_goes_to_its_slots_sink() -> None:
    replies = Replies()
    one, two = Link(Tick()), Link(Tick())
    table = LinkTable(one)
    table[7] = two
    table.route(replies.request(6, b"GET", b"six"))
    table.route(replies.request(7, b"GET", b"seven"))
    assert one.stream.take() == pack([b"GET", b"six"])
    assert two.stream.take() == pack([b"GET", b"seven"])


def test_mere_sink_takes_nothing() -> None:
    with pytest.raises(RuntimeError, match="Sink takes no requests"):
        Sink().take(Request(pack([b"PING"])))


# -- rproxy's own requests --


def test_call_gets_the_reply() -> None:
    got: list[bytes] = []
    link = Link(Tick())
    request = call(pack([b"PING"]), got.append, 42)
    assert request.slot == 42
    link.take(request)
    link.stream.feed(b"+PONG\r\n")
    assert got == [b"+PONG\r\n"]


def test_answer_reaches_the_owner() -> None:
    replies = Replies()
    answer(replies.request(1, b"GET", b"a"), b"-ERR ours\r\n")
    assert replies.got == [b"-ERR ours\r\n"]


def test_nobody_is_told_for_a_ghost_but_its_gate() -> None:
    replies, cluster = Replies(), FakeCluster()
    gate = Gate(cluster.lane, "test", None, 7)
    link = Link(Tick())
    request = replies.request(7, b"GET", b"a")
    request.deadline = 1.0
    link.take(request)
    assert link.guard(gate, 7) == 1
    link.expire(2.0)
    assert request.is_ghost
    del replies.got[:]
    answer(request, b"-ERR ours\r\n")
    assert replies.got == []
    assert gate.outstanding == 0
    answer(request, b"-ERR ours\r\n")
    assert gate.outstanding == 0


def test_only_some_owners_take_their_requests_apart() -> None:
    assert not take_apart(Replies().request(1, b"MGET", b"a", b"b"))
    assert not take_apart(Request(pack([b"MGET", b"a", b"b"])))
    client = FakeProxy().client()
    client.say(b"GET", b"b")
    assert not client.session.take_apart_request(Request(pack([b"MGET", b"a", b"b"])))
