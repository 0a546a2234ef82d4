"""Lane: redirects, gates and lost nodes; one client's commands for one key keep their order
through all of it.
"""

from __future__ import annotations

import pytest

from rproxy.config import Address, Upstream
from rproxy.topology.slotmap import SlotMap
from rproxy.wire.frames import pack
from tests.fakes import NODES, FakeCluster, Replies, even_map

UNREACHABLE = b"-CLUSTERDOWN node-a:1 cannot be reached; the command was not executed\r\n"
UNCOVERED = b"-CLUSTERDOWN Hash slot not served; the command was not executed\r\n"


def send(cluster: FakeCluster, replies: Replies, slot: int, *words: bytes) -> None:
    cluster.lane.table.route(replies.request(slot, *words))


def test_slot_names_the_node() -> None:
    cluster, replies = FakeCluster(), Replies()
    for slot in (0, 5461, 16383):
        send(cluster, replies, slot, b"GET", b"%d" % slot)
    assert [cluster.sent(i) for i in range(3)] == [
        [[b"GET", b"0"]],
        [[b"GET", b"5461"]],
        [[b"GET", b"16383"]],
    ]


def test_moved_keeps_the_order() -> None:
    """Two requests under way, a third arrives between their redirections: it goes last."""
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"SET", b"a", b"1")
    send(cluster, replies, 7, b"SET", b"a", b"2")
    cluster.sent(0)
    cluster.answer(0, b"-MOVED 7 node-b:2\r\n")
    assert repr(cluster.lane.table[7]).startswith("<Gate slot 7")
    send(cluster, replies, 7, b"SET", b"a", b"3")
    assert cluster.sent(0) == cluster.sent(1) == []
    cluster.answer(0, b"-MOVED 7 node-b:2\r\n")
    assert cluster.sent(1) == [[b"SET", b"a", b"1"], [b"SET", b"a", b"2"], [b"SET", b"a", b"3"]]
    assert cluster.lane.table[7] is cluster.link(1)
    send(cluster, replies, 7, b"SET", b"a", b"4")
    assert cluster.sent(1) == [[b"SET", b"a", b"4"]]
    cluster.answer(1, b"+1\r\n+2\r\n+3\r\n+4\r\n")
    assert replies.got == [b"+1\r\n", b"+2\r\n", b"+3\r\n", b"+4\r\n"]


def test_moved_concerns_its_slot_alone() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    send(cluster, replies, 8, b"GET", b"b")
    cluster.sent(0)
    cluster.answer(0, b"-MOVED 7 node-b:2\r\n")
    assert cluster.sent(1) == [[b"GET", b"a"]]
    assert cluster.lane.table[8] is cluster.link(0)


def test_moved_to_an_unknown_node() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    cluster.answer(0, b"-MOVED 7 ::1:7000\r\n")
    link = cluster.connect(Address("::1", 7000))
    assert link.stream.take() == pack([b"GET", b"a"])


def test_moved_in_a_circle_ends_with_the_servers_error() -> None:
    cluster, replies = FakeCluster(upstream=Upstream(max_redirects=4)), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    for turn in range(20):
        if replies.got:
            break
        node = turn % 2
        cluster.answer(node, b"-MOVED 7 node-%c:%d\r\n" % ((98, 2) if node == 0 else (97, 1)))
        cluster.loop.advance(1.0)
    assert replies.got == [b"-MOVED 7 node-b:2\r\n"]


def test_new_map_keeps_the_order_too() -> None:
    """The map changes while a request is under way: the next one waits for it."""
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"SET", b"a", b"1")
    cluster.adopt(cluster.slotmap.with_owner(7, NODES[1]))
    send(cluster, replies, 7, b"SET", b"a", b"2")
    assert cluster.sent(1) == []
    cluster.answer(0, b"-MOVED 7 node-b:2\r\n")
    assert cluster.sent(1) == [[b"SET", b"a", b"1"], [b"SET", b"a", b"2"]]


def test_new_map_and_the_old_owner_still_answers() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"SET", b"a", b"1")
    cluster.adopt(cluster.slotmap.with_owner(7, NODES[1]))
    send(cluster, replies, 7, b"SET", b"a", b"2")
    cluster.answer(0, b"+OK\r\n")
    assert cluster.sent(1) == [[b"SET", b"a", b"2"]]


def test_ask_changes_nothing_but_one_request() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    cluster.answer(0, b"-ASK 7 node-b:2\r\n")
    assert cluster.sent(1) == [[b"ASKING"], [b"GET", b"a"]]
    assert cluster.lane.table[7] is cluster.link(0)
    cluster.answer(1, b"+OK\r\n$1\r\nx\r\n")
    assert replies.got == [b"$1\r\nx\r\n"]


def test_ask_to_an_unknown_node() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    cluster.answer(0, b"-ASK 7 new:7000\r\n")
    link = cluster.connect(Address("new", 7000))
    assert link.stream.take() == pack([b"ASKING"]) + pack([b"GET", b"a"])


@pytest.mark.parametrize(
    "error",
    [
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
    ],
)
def test_not_executed_is_tried_again(error: bytes) -> None:
    """Both come back in order, wait for a moment, and go before what arrived meanwhile."""
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"SET", b"a", b"1")
    send(cluster, replies, 7, b"SET", b"a", b"2")
    cluster.sent(0)
    cluster.answer(0, error + error)
    send(cluster, replies, 7, b"SET", b"a", b"3")
    assert cluster.sent(0) == []
    cluster.loop.advance(1.0)
    assert cluster.sent(0) == [[b"SET", b"a", b"1"], [b"SET", b"a", b"2"]]
    cluster.answer(0, error + error)
    cluster.loop.advance(1.0)
    assert cluster.sent(0) == [[b"SET", b"a", b"1"], [b"SET", b"a", b"2"]]
    cluster.answer(0, b"+1\r\n+2\r\n")
    assert cluster.sent(0) == [[b"SET", b"a", b"3"]]
    cluster.answer(0, b"+3\r\n")
    assert replies.got == [b"+1\r\n", b"+2\r\n", b"+3\r\n"]


def test_not_executed_passes_when_time_is_up() -> None:
    error = b"-CLUSTERDOWN The cluster is down\r\n"
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    for _ in range(100):
        cluster.answer(0, error)
        if replies.got:
            break
        cluster.loop.advance(0.5)
    assert replies.got == [error]
    assert 9.5 <= cluster.loop.now - 1000.0 <= 11.0


def test_what_was_given_up_does_not_hold_up_others() -> None:
    error = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"
    patient = Upstream(retry_delay=20.0, retry_delay_max=20.0)  # type: ignore[arg-type]
    cluster, replies = FakeCluster(upstream=patient), Replies()
    send(cluster, replies, 7, b"SUNIONSTORE", b"a", b"b", b"c")
    cluster.sent(0)
    cluster.answer(0, error)
    cluster.loop.advance(3.0)
    send(cluster, replies, 7, b"GET", b"a")
    assert cluster.sent(0) == []
    cluster.loop.advance(7.1)
    cluster.lane.sweep(cluster.loop.now)
    assert replies.got == [error]
    assert cluster.sent(0) == [[b"GET", b"a"]]


def test_other_errors_pass() -> None:
    cluster, replies = FakeCluster(), Replies()
    for error in (b"-WRONGTYPE x\r\n", b"-ERR x\r\n", b"-NOSCRIPT x\r\n", b"-MOVEDX 1 a:1\r\n"):
        send(cluster, replies, 7, b"GET", b"a")
        cluster.answer(0, error)
        assert replies.got[-1] == error


def test_lost_node_holds_until_another_owns_its_slots() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"SET", b"a", b"1")  # never written
    cluster.link(0).close("cut")
    send(cluster, replies, 7, b"SET", b"a", b"2")
    send(cluster, replies, 8, b"SET", b"b", b"1")
    assert replies.got == []
    cluster.adopt(even_map((NODES[1], NODES[1], NODES[2])))
    assert cluster.sent(1) == [
        [b"SET", b"a", b"1"],
        [b"SET", b"a", b"2"],
        [b"SET", b"b", b"1"],
    ]


def test_lost_node_does_not_disturb_others() -> None:
    cluster, replies = FakeCluster(), Replies()
    cluster.link(0).close("cut")
    send(cluster, replies, 5461, b"GET", b"b")
    assert cluster.sent(1) == [[b"GET", b"b"]]


def test_held_too_long_is_answered() -> None:
    cluster, replies = FakeCluster(), Replies()
    cluster.link(0).close("cut")
    send(cluster, replies, 7, b"SET", b"a", b"1")
    cluster.loop.advance(9.9)
    cluster.lane.sweep(cluster.loop.now)
    assert replies.got == []
    cluster.loop.advance(0.2)
    cluster.lane.sweep(cluster.loop.now)
    assert replies.got == [UNREACHABLE]


def test_too_many_bytes_held_are_answered() -> None:
    cluster, replies = FakeCluster(upstream=Upstream(hold_bytes=1000)), Replies()  # type: ignore[arg-type]
    cluster.link(0).close("cut")
    for _ in range(11):
        send(cluster, replies, 7, b"SET", b"a", b"x" * 72)
    assert replies.got == [
        b"-CLUSTERDOWN too many commands wait for node-a:1 (upstream.hold_bytes); "
        b"the command was not executed\r\n"
    ]


def test_one_request_may_be_larger_than_what_may_be_held() -> None:
    cluster, replies = FakeCluster(upstream=Upstream(hold_bytes=1000)), Replies()  # type: ignore[arg-type]
    cluster.link(0).close("cut")
    send(cluster, replies, 7, b"SET", b"a", b"x" * 2000)
    assert replies.got == []
    send(cluster, replies, 7, b"SET", b"a", b"x")
    assert len(replies.got) == 1


def test_open_breaker_answers_at_once() -> None:
    cluster, replies = FakeCluster(), Replies()
    cluster.link(0).close("cut")
    cluster.lane.pool(NODES[0]).gate.refusing = UNREACHABLE
    send(cluster, replies, 7, b"GET", b"a")
    assert replies.got == [UNREACHABLE]


def test_uncovered_slot() -> None:
    cluster, replies = FakeCluster(), Replies()
    cluster.adopt(SlotMap.empty())
    send(cluster, replies, 7, b"GET", b"a")
    assert cluster.reasons == ["commands for slots that no node owns"]
    cluster.loop.advance(11.0)
    cluster.lane.sweep(cluster.loop.now)
    assert replies.got == [UNCOVERED]


def test_refused_command_for_an_uncovered_slot_has_the_map_asked_for() -> None:
    """Else an incomplete map would stay until the regular look at the cluster."""
    cluster, replies = FakeCluster(), Replies()
    cluster.adopt(SlotMap.empty())
    cluster.lane.orphans.refusing = UNCOVERED
    send(cluster, replies, 7, b"GET", b"a")
    assert replies.got == [UNCOVERED]
    assert cluster.reasons == ["commands for slots that no node owns"]


def test_commands_without_keys_go_to_all_masters_in_turn() -> None:
    cluster, replies = FakeCluster(), Replies()
    for _ in range(6):
        cluster.lane.send_anywhere(replies.request(-1, b"PUBLISH", b"c", b"m"))
    assert [len(cluster.sent(i)) for i in range(3)] == [2, 2, 2]


def test_commands_without_keys_avoid_lost_nodes() -> None:
    cluster, replies = FakeCluster(), Replies()
    cluster.link(0).close("cut")
    for _ in range(4):
        cluster.lane.send_anywhere(replies.request(-1, b"PUBLISH", b"c", b"m"))
    assert [len(cluster.sent(i)) for i in (1, 2)] == [2, 2]


def test_node_that_left_is_drained_and_closed() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    link = cluster.link(0)
    cluster.adopt(even_map((NODES[1], NODES[1], NODES[2])))
    cluster.lane.sweep(cluster.loop.now)
    assert not link.stream.is_closed
    link.stream.feed(b"+OK\r\n")
    cluster.lane.sweep(cluster.loop.now)
    assert link.stream.is_closed
    assert NODES[0] not in cluster.lane.pools
    assert replies.got == [b"+OK\r\n"]


def test_lost_link_during_hand_over_keeps_the_order() -> None:
    """The old owner dies after the first MOVED: what it never read goes on in order."""
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"SET", b"a", b"1")
    cluster.sent(0)
    send(cluster, replies, 7, b"SET", b"a", b"2")  # unwritten
    cluster.answer(0, b"-MOVED 7 node-b:2\r\n")
    send(cluster, replies, 7, b"SET", b"a", b"3")
    cluster.link(0).close("cut")
    assert cluster.sent(1) == [[b"SET", b"a", b"1"], [b"SET", b"a", b"2"], [b"SET", b"a", b"3"]]


def test_stalled_link_is_closed_and_idle_ones_are_asked() -> None:
    cluster, replies = FakeCluster(), Replies()
    send(cluster, replies, 7, b"GET", b"a")
    busy, idle = cluster.link(0), cluster.link(1)
    now = busy.heard_at
    cluster.sent(1)
    cluster.lane.sweep(now + 6.0)
    assert cluster.sent(1) == [[b"PING"]]
    assert not busy.stream.is_closed
    cluster.lane.sweep(now + 16.0)
    assert busy.stream.is_closed
    assert idle.stream.is_closed
