"""A node that says nothing: what is held, what is given up, and when it is believed again."""

from __future__ import annotations

from rproxy.errors import MAY_HAVE_RUN
from rproxy.upstream.gate import Gate
from rproxy.upstream.link import Link
from rproxy.wire.frames import pack
from tests.fakes import NODES, FakeCluster, FakeProxy

SILENT = 1.1
"""A little more than the default of upstream.suspect_time."""

SLOT = 3300
"""Of `b`; `c` is the second node's."""


class Scene:
    """One client's write and read of `b` are under way at the first node."""

    def __init__(self) -> None:
        self.proxy = FakeProxy()
        self.cluster, self.lane = self.proxy.cluster, self.proxy.cluster.lane
        self.client, self.other = self.proxy.client(), self.proxy.client()
        self.link = self.cluster.link(0)
        self.client.say(b"SET", b"b", b"1")
        self.client.say(b"GET", b"b")
        assert self.cluster.sent(0) == [[b"SET", b"b", b"1"], [b"GET", b"b"]]
        self.since = self.cluster.loop.now = self.link.heard_at

    def stall(self) -> None:
        """The first node says nothing for too long."""
        self.lane.sweep(self.since + SILENT)
        assert self.link.stalled

    def move(self, slot: int) -> None:
        """The second node is known to own the slot."""
        self.cluster.adopt(self.cluster.slotmap.with_owner(slot, NODES[1]))

    def others_are_asked(self) -> None:
        """The cluster's answers have come."""
        doubts, self.cluster.doubts = self.cluster.doubts, []
        for settle in doubts:
            settle()


def test_a_silent_node_gets_no_more_and_the_others_as_ever() -> None:
    scene = Scene()
    scene.lane.sweep(scene.since + 0.9)
    assert scene.lane.table[SLOT] is scene.link
    scene.stall()
    assert isinstance(scene.lane.table[SLOT], Gate)
    assert scene.lane.pool(NODES[0]).is_out
    assert "is silent" in scene.cluster.reasons[-1]
    scene.other.say(b"GET", b"b")
    scene.other.say(b"GET", b"c")
    assert scene.cluster.sent(0) == []
    assert scene.cluster.sent(1) == [[b"GET", b"c"]]
    assert scene.client.hear() == b""


def test_an_idle_link_is_not_suspected_but_asked_for_a_sign_of_life() -> None:
    cluster = FakeCluster()
    link = cluster.link(1)
    cluster.lane.sweep(link.heard_at + 3.0)
    assert not link.stalled
    cluster.lane.sweep(link.heard_at + 5.1)
    assert cluster.sent(1) == [[b"PING"]]
    cluster.lane.sweep(link.heard_at + SILENT)
    assert link.stalled


def test_what_it_says_is_put_off_until_the_others_are_asked() -> None:
    """Then replies come in their order, and what was held goes on."""
    scene = Scene()
    scene.stall()
    scene.other.say(b"GET", b"b")
    scene.cluster.answer(0, b"+OK\r\n")
    scene.cluster.answer(0, b"$1\r\n1\r\n")
    assert scene.client.hear() == b""
    assert len(scene.cluster.doubts) == 1
    scene.others_are_asked()
    assert scene.client.hear() == b"+OK\r\n$1\r\n1\r\n"
    assert scene.cluster.sent(0) == [[b"GET", b"b"]]
    assert scene.lane.table[SLOT] is scene.link
    assert not scene.lane.pool(NODES[0]).is_out
    scene.cluster.answer(0, b"$1\r\n2\r\n")
    assert scene.other.hear() == b"$1\r\n2\r\n"


def test_a_thawed_master_that_was_replaced_is_not_believed() -> None:
    """It has acknowledged a write that will be thrown away."""
    scene = Scene()
    scene.stall()
    scene.cluster.answer(0, b"+OK\r\n$1\r\n1\r\n")
    scene.cluster.slotmap = scene.cluster.slotmap.with_owner(SLOT, NODES[1])
    scene.others_are_asked()
    assert scene.client.hear() == MAY_HAVE_RUN
    assert scene.link.stream.is_closed


def test_a_silent_master_is_given_up_when_another_owns_its_slots() -> None:
    """The write has an unknown outcome, the read and what was held go to the new owner."""
    scene = Scene()
    scene.stall()
    scene.other.say(b"SET", b"b", b"2")
    scene.move(SLOT)
    assert scene.client.hear() == MAY_HAVE_RUN
    assert scene.cluster.sent(1) == [[b"GET", b"b"], [b"SET", b"b", b"2"]]


def test_a_map_that_came_before_the_silence_was_noticed() -> None:
    """Requests for the slot wait for what is under way, which never comes home by itself."""
    scene = Scene()
    scene.move(SLOT)
    scene.other.say(b"SET", b"b", b"2")
    assert scene.cluster.sent(1) == []
    scene.lane.sweep(scene.since + SILENT)
    assert scene.client.hear() == MAY_HAVE_RUN
    assert scene.cluster.sent(1) == [[b"GET", b"b"], [b"SET", b"b", b"2"]]


def test_another_slot_s_move_gives_nothing_up() -> None:
    scene = Scene()
    scene.stall()
    scene.move(SLOT + 1)
    assert not scene.link.stream.is_closed
    assert scene.client.hear() == b""


def test_what_was_asked_for_at_the_target_of_a_migration_says_nothing_about_its_owner() -> None:
    scene = Scene()
    scene.cluster.answer(0, b"-ASK 3300 node-b:2\r\n")
    target = scene.cluster.link(1)
    scene.lane.sweep(target.heard_at + SILENT)
    assert target.stalled
    assert not target.stream.is_closed
    scene.cluster.answer(1, b"+OK\r\n+OK\r\n")
    scene.others_are_asked()
    assert scene.client.hear() == b"+OK\r\n"


def test_a_request_for_the_target_of_a_migration_waits_for_a_silent_one() -> None:
    scene = Scene()
    target = scene.cluster.link(1)
    scene.other.say(b"GET", b"c")
    scene.cluster.sent(1)
    scene.lane.sweep(target.heard_at + SILENT)
    scene.cluster.answer(0, b"-ASK 3300 node-b:2\r\n")
    assert scene.cluster.sent(1) == []
    scene.cluster.answer(1, b"$-1\r\n")
    scene.others_are_asked()
    assert scene.cluster.sent(1) == [[b"ASKING"], [b"SET", b"b", b"1"]]


def test_a_silent_link_that_is_lost_is_opened_again() -> None:
    scene = Scene()
    scene.stall()
    scene.link.close("reset")
    scene.others_are_asked()
    assert scene.client.hear() == MAY_HAVE_RUN
    link = scene.cluster.connect(NODES[0])
    assert isinstance(link, Link)
    assert link.stream.take() == pack([b"GET", b"b"])
