"""The slot map: what nodes tell, in all the ways they write it, and the copies that MOVED makes."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.config import Address
from rproxy.errors import ProtocolBroken
from rproxy.topology.slotmap import (
    SLOTS,
    Node,
    Shard,
    SlotMap,
    address_of_redirect,
    parse_shards,
    parse_slots,
)

ASKED = Address("10.0.0.9", 7000)


def node(number: int, **fields: Any) -> Node:
    """Master number `number`, unless said otherwise."""
    return Node(f"10.0.0.{number}", 6379, **fields)


def three_masters(epoch: int = 0) -> SlotMap:
    """All slots on three masters, the first with a replica."""
    return SlotMap.of(
        [
            Shard(node(1), (node(4, role="replica"),), ((0, 5460),)),
            Shard(node(2), (), ((5461, 10922),)),
            Shard(node(3), (), ((10923, 16383),)),
        ],
        epoch,
    )


# -- asking and changing --


def test_owners_at_the_edges_of_ranges() -> None:
    slotmap = three_masters()
    hosts = [str(slotmap.owner(slot)) for slot in (0, 5460, 5461, 10922, 10923, 16383)]
    assert hosts == [f"10.0.0.{n}:6379" for n in (1, 1, 2, 2, 3, 3)]
    assert slotmap.covered == SLOTS
    assert repr(slotmap) == "<SlotMap 3 masters, 4 nodes, 16384 slots, epoch 0>"


def test_the_empty_map() -> None:
    slotmap = SlotMap.empty()
    assert (slotmap.covered, slotmap.nodes, slotmap.owner(5)) == (0, (), None)
    assert slotmap.shards == ()


def test_replicas_belong_to_their_master() -> None:
    slotmap = three_masters()
    assert slotmap.replicas(node(1)) == (node(4, role="replica"),)
    assert slotmap.replicas(node(2)) == ()


def test_a_patch_changes_one_slot_of_a_new_map() -> None:
    old = three_masters(epoch=7)
    new = old.with_owner(5, Address("10.0.0.2", 6379))
    assert (old.owner(5), new.owner(5), new.owner(4)) == (node(1), node(2), node(1))
    assert old.diff(new) == [5]
    assert (new.epoch, new.covered, new.masters) == (7, SLOTS, old.masters)


def test_a_patch_may_name_a_node_that_nobody_knows() -> None:
    new = three_masters().with_owner(5, Address("10.0.0.8", 1234))
    assert new.owner(5) == Node("10.0.0.8", 1234)
    assert Node("10.0.0.8", 1234) in new.nodes


def test_a_patch_to_a_replica_promotes_it() -> None:
    new = three_masters().with_owner(5, Address("10.0.0.4", 6379))
    assert new.owner(5) == node(4, role="master")
    assert new.replicas(node(1)) == ()
    assert [str(known) for known in new.nodes].count("10.0.0.4:6379") == 1


def test_a_patch_can_cover_a_slot() -> None:
    old = SlotMap.of([Shard(node(1), (), ((0, 9),))])
    assert old.with_owner(10, node(1).address).covered == 11


def test_shards_follow_a_patch() -> None:
    new = three_masters().with_owner(5, node(2).address)
    assert [shard.ranges for shard in new.shards] == [
        ((0, 4), (6, 5460)),
        ((5, 5), (5461, 10922)),
        ((10923, 16383),),
    ]


@given(st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(1, 5)), max_size=20))
def test_patches_are_what_they_say(patches: list[tuple[int, int]]) -> None:
    slotmap, expected = three_masters(), {}
    for slot, number in patches:
        slotmap = slotmap.with_owner(slot, node(number).address)
        expected[slot] = node(number).address
    for slot, address in expected.items():
        owner = slotmap.owner(slot)
        assert owner is not None
        assert owner.address == address
    assert set(three_masters().diff(slotmap)) <= set(expected)
    assert SlotMap.of(slotmap.shards) == slotmap


def test_diff_sees_lost_and_found_slots_but_not_the_order_of_masters() -> None:
    old = SlotMap.of([Shard(node(1), (), ((0, 9),)), Shard(node(2), (), ((10, 19),))])
    new = SlotMap.of([Shard(node(2), (), ((10, 18),)), Shard(node(1), (), ((0, 9), (30, 30)))])
    assert old.diff(new) == [19, 30]
    assert old.diff(old) == []


def test_diff_of_maps_that_do_not_know_the_same_masters() -> None:
    """Either may have more of them, and each its own numbers for those that both know."""
    old = three_masters()
    stranger = Address("10.0.0.0", 1)  # before all others
    new = old.with_owner(5, stranger).with_owner(16383, stranger)
    sorted_anew = SlotMap.of(new.shards)
    assert old.diff(new) == new.diff(old) == old.diff(sorted_anew) == [5, 16383]
    assert new.diff(sorted_anew) == []


@given(st.sets(st.integers(0, SLOTS - 1), max_size=20))
def test_diff_finds_each_slot_that_differs(slots: set[int]) -> None:
    new = three_masters()
    for slot in slots:
        new = new.with_owner(slot, Address("10.0.0.8", 1))
    assert three_masters().diff(new) == sorted(slots)
    assert SlotMap.of(new.shards).diff(three_masters()) == sorted(slots)


def test_serving_are_the_masters_with_slots() -> None:
    slotmap = SlotMap.of([Shard(node(2), (), ()), Shard(node(1), (), ((3, 3),))])
    assert slotmap.serving == {node(1).address}
    assert SlotMap.empty().serving == frozenset()


def test_equal_maps_name_the_same_nodes_and_owners_whatever_the_epoch() -> None:
    assert three_masters(1) == three_masters(2)
    assert hash(three_masters(1)) == hash(three_masters(2))
    assert three_masters() != three_masters().with_owner(5, node(2).address)
    assert three_masters().at_epoch(9).epoch == 9
    first, second, third = three_masters().shards
    elsewhere = [first._replace(replicas=()), second._replace(replicas=first.replicas), third]
    assert three_masters() != SlotMap.of(elsewhere)
    no_replica = SlotMap.of(shard._replace(replicas=()) for shard in three_masters().shards)
    assert three_masters() != no_replica


# -- redirections --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host:6381", Address("host", 6381)),
        ("127.0.0.1:6381", Address("127.0.0.1", 6381)),
        (":6381", Address("10.0.0.9", 6381)),
        ("::1:6381", Address("::1", 6381)),
        ("[::1]:6381", Address("::1", 6381)),
        ("?:6381", None),
        ("", None),
        ("host", None),
        ("host:0", None),
        ("host:x", None),
        ("a b:1", None),
    ],
)
def test_redirections(text: str, expected: Address | None) -> None:
    assert address_of_redirect(text, "10.0.0.9") == expected


def test_a_redirection_without_a_host_by_a_node_of_ipv6() -> None:
    assert address_of_redirect(":6381", "fe80::1") == Address("fe80::1", 6381)


# -- CLUSTER SLOTS --


def test_slots_with_replicas_and_several_ranges() -> None:
    reply = [
        [0, 99, [b"10.0.0.1", 6379, b"id1", []], [b"10.0.0.4", 6379, b"id4", []]],
        [100, 199, [b"10.0.0.2", 6379, b"id2", []]],
        [300, 399, [b"10.0.0.1", 6379, b"id1", []], [b"10.0.0.4", 6379, b"id4", []]],
    ]
    slotmap = parse_slots(reply, ASKED)
    assert slotmap.shards == (
        Shard(node(1, id="id1"), (node(4, id="id4", role="replica"),), ((0, 99), (300, 399))),
        Shard(node(2, id="id2"), (), ((100, 199),)),
    )
    assert slotmap.covered == 300
    assert slotmap.owner(250) is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([b"10.0.0.1", 1, b"id"], "10.0.0.1:1"),
        ([b"10.0.0.1", 1], "10.0.0.1:1"),
        ([b"", 1, b"id"], "10.0.0.9:1"),
        ([None, 1, b"id", [b"ip", b"10.0.0.1"]], "10.0.0.9:1"),
        ([b"redis-1.example.com", 1, b"id", [b"ip", b"10.0.0.1"]], "redis-1.example.com:1"),
        ([b"?", 1, b"id", [b"ip", b"10.0.0.1"]], "10.0.0.1:1"),
        ([b"?", 1, b"id", {b"ip": b"10.0.0.1"}], "10.0.0.1:1"),
        ([b"::1", 1, b"id", []], "[::1]:1"),
    ],
)
def test_hosts_in_slots(told: list[Any], expected: str) -> None:
    assert str(parse_slots([[0, 1, told]], ASKED).owner(0)) == expected


def test_a_master_without_address_leaves_its_slots_uncovered() -> None:
    reply = [[0, 9, [b"?", 1, b"id", []]], [10, 19, [b"h", 1]], [20, 29, [b"h2", 0]]]
    slotmap = parse_slots(reply, ASKED)
    assert [slot for slot in range(40) if slotmap.owner(slot)] == list(range(10, 20))


def test_a_replica_without_address_is_left_out() -> None:
    slotmap = parse_slots([[0, 9, [b"h", 1], [b"?", 1, b"id", []], [b"h2", 2]]], ASKED)
    assert [str(each) for each in slotmap.nodes] == ["h:1", "h2:2"]


# -- CLUSTER SHARDS --


def told_node(**fields: Any) -> list[Any]:
    """A node as RESP2 tells it."""
    all_fields: dict[str, Any] = {
        "id": b"i",
        "port": 6379,
        "ip": b"10.0.0.1",
        "endpoint": b"10.0.0.1",
        "role": b"master",
        "replication-offset": 0,
        "health": b"online",
    } | {name.replace("_", "-"): value for name, value in fields.items()}
    return [
        part
        for name, value in all_fields.items()
        if value != "left out"
        for part in (name.encode(), value)
    ]


def told_shard(slots: list[int], *nodes: list[Any]) -> list[Any]:
    """A shard as RESP2 tells it."""
    return [b"slots", slots, b"nodes", list(nodes)]


def as_resp3(item: list[Any]) -> dict[bytes, Any]:
    """The same shard as RESP3 tells it."""
    shard = dict(zip(item[::2], item[1::2], strict=True))
    nodes = [dict(zip(told[::2], told[1::2], strict=True)) for told in shard[b"nodes"]]
    return shard | {b"nodes": nodes}


REPLICA = told_node(role=b"replica", endpoint=b"10.0.0.4", ip=b"10.0.0.4", id=b"r")


@pytest.mark.parametrize("resp3", [False, True])
def test_shards_of_both_protocols(resp3: bool) -> None:
    reply: list[Any] = [
        told_shard([0, 99, 200, 299], told_node(), REPLICA),
        told_shard([], told_node(endpoint=b"10.0.0.2", ip=b"10.0.0.2")),
    ]
    slotmap = parse_shards([as_resp3(item) for item in reply] if resp3 else reply, ASKED)
    assert slotmap.shards == (
        Shard(node(1, id="i"), (node(4, id="r", role="replica"),), ((0, 99), (200, 299))),
        Shard(node(2, id="i"), (), ()),
    )


def test_shards_as_redis_7_writes_them() -> None:
    # A node that has never met another one does not know its own address.
    reader = hiredis.Reader()
    reader.feed(
        b"*1\r\n*4\r\n$5\r\nslots\r\n*0\r\n$5\r\nnodes\r\n*1\r\n*14\r\n$2\r\nid\r\n$2\r\nab\r\n"
        b"$4\r\nport\r\n:7391\r\n$2\r\nip\r\n$0\r\n\r\n$8\r\nendpoint\r\n$0\r\n\r\n"
        b"$4\r\nrole\r\n$6\r\nmaster\r\n$18\r\nreplication-offset\r\n:0\r\n"
        b"$6\r\nhealth\r\n$6\r\nonline\r\n"
    )
    slotmap = parse_shards(reader.gets(), ASKED)
    assert slotmap.nodes == (Node("10.0.0.9", 7391, "ab"),)
    assert slotmap.covered == 0


@pytest.mark.parametrize(
    ("fields", "tls", "expected"),
    [
        ({"tls_port": 6380}, False, "10.0.0.1:6379"),
        ({"tls_port": 6380}, True, "10.0.0.1:6380"),
        ({}, True, "10.0.0.1:6379"),
        ({"port": "left out", "tls_port": 6380}, True, "10.0.0.1:6380"),
        ({"endpoint": None}, False, "10.0.0.9:6379"),
        ({"endpoint": b"", "hostname": b"h"}, False, "10.0.0.9:6379"),
        ({"endpoint": b"h", "hostname": b"h"}, False, "h:6379"),
        ({"endpoint": b"?"}, False, "10.0.0.1:6379"),
        ({"endpoint": b"fd00::1"}, False, "[fd00::1]:6379"),
        ({"health": b"fail"}, False, "10.0.0.1:6379"),
        ({"health": "left out"}, False, "10.0.0.1:6379"),
    ],
)
def test_a_master_s_address_in_shards(fields: dict[str, Any], tls: bool, expected: str) -> None:
    reply = [told_shard([0, 1], told_node(**fields))]
    assert str(parse_shards(reply, ASKED, tls=tls).owner(0)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 0},
        {"port": "left out", "tls_port": 6380},
        {"endpoint": b"?", "ip": b""},
    ],
)
def test_a_node_without_address_is_left_out(fields: dict[str, Any]) -> None:
    reply = [told_shard([0, 1], told_node(**fields)), told_shard([2, 3], told_node())]
    slotmap = parse_shards(reply, ASKED)
    assert (slotmap.covered, len(slotmap.nodes)) == (2, 1)


@pytest.mark.parametrize("health", [b"loading", b"fail", b"failed", b"something new"])
def test_a_replica_that_cannot_serve_is_left_out(health: bytes) -> None:
    reply = [told_shard([0, 1], told_node(), [*REPLICA[:-1], health])]
    assert len(parse_shards(reply, ASKED).nodes) == 1


def test_after_a_failover_the_online_master_owns_the_slots() -> None:
    old = told_node(health=b"fail")
    new = told_node(endpoint=b"10.0.0.4")
    assert str(parse_shards([told_shard([0, 1], old, new)], ASKED).owner(0)) == "10.0.0.4:6379"
    assert str(parse_shards([told_shard([0, 1], new, old)], ASKED).owner(0)) == "10.0.0.4:6379"


def test_a_failed_master_without_slots_is_left_out() -> None:
    reply = [told_shard([], told_node(health=b"fail")), told_shard([0, 1], told_node(port=1))]
    assert [str(master) for master in parse_shards(reply, ASKED).masters] == ["10.0.0.1:1"]


def test_a_shard_that_has_only_replicas_covers_nothing() -> None:
    reply = [told_shard([0, 1], REPLICA), told_shard([2, 3], told_node())]
    assert parse_shards(reply, ASKED).covered == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ([], "names no master"),
        ([told_shard([0, 1], REPLICA)], "names no master"),
        (None, "makes no sense"),
        (7, "makes no sense"),
        ([7], "makes no sense"),
        ([[b"slots", [0, 1]]], "makes no sense"),
        ([told_shard([0], told_node())], "makes no sense"),
        ([told_shard([0, 16384], told_node())], "makes no sense"),
        ([told_shard([5, 4], told_node())], "makes no sense"),
        ([told_shard([-1, 4], told_node())], "makes no sense"),
        ([told_shard([0, 4], told_node(endpoint=b"\xff"))], "makes no sense"),
        ([told_shard([0, 4], told_node(role=None))], "makes no sense"),
        ([told_shard([0, 4], told_node(port=b"x"))], "makes no sense"),
    ],
)
def test_bad_shards_are_rejected(reply: object, reason: str) -> None:
    with pytest.raises(ProtocolBroken, match=rf"^10.0.0.9:7000: CLUSTER SHARDS {reason}"):
        parse_shards(reply, ASKED)


@pytest.mark.parametrize(
    "reply", [[], None, [[0]], [[0, 1]], [[0, 1, []]], [[0, 1, [b"?", 1]]], [[0, 99999, [b"h", 1]]]]
)
def test_bad_slots_are_rejected(reply: object) -> None:
    with pytest.raises(ProtocolBroken, match=r"^10.0.0.9:7000: CLUSTER SLOTS "):
        parse_slots(reply, ASKED)


VALUES = st.recursive(
    st.none() | st.integers(-5, 20000) | st.binary(max_size=5) | st.sampled_from([b"slots"]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_no_reply_raises_anything_else(reply: object) -> None:
    for parse in (parse_shards, parse_slots):
        try:
            slotmap = parse(reply, ASKED)
        except ProtocolBroken:
            continue
        assert slotmap.masters
