"""Gate: what it holds leaves in order, within its bytes and its time, or is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.transport.stream import Tick
from rproxy.upstream.gate import Gate
from rproxy.upstream.link import Link
from rproxy.upstream.sink import LinkTable, answer
from rproxy.wire.frames import Request
from tests.fakes import Replies

REFUSED, FULL, LAST_ERROR = b"-ERR refused\r\n", b"-ERR full\r\n", b"-LOADING x\r\n"


class FakeLane:
    """Counts knocks, and refuses in texts that tell why."""

    def __init__(self) -> None:
        self.time = 100.0
        self.knocks = 0

    def now(self) -> float:
        return self.time

    def knock(self, gate: Gate) -> None:
        self.knocks += 1

    def refusal(self, gate: Gate, last_error: bytes | None, full: bool = False) -> bytes:
        return FULL if full else last_error or REFUSED


class Scene:
    """A gate for slot 7, and requests of which each has its name as its only argument."""

    def __init__(self, max_size: int = 1 << 20, outstanding: int = 0) -> None:
        self.lane = FakeLane()
        self.gate = Gate(self.lane, "test", None, 7, outstanding, max_size, 5.0)
        self.replies = Replies()

    def request(self, name: str) -> Request:
        return self.replies.request(7, b"GET", name.encode())

    def hold(self, *requests: str) -> None:
        """Requests that arrive."""
        for name in requests:
            self.gate.take(self.request(name))

    def bring_back(self, *requests: str) -> None:
        """Requests that a node has sent back."""
        for name in requests:
            self.gate.take_back(self.request(name))

    def under_way(self, *requests: str) -> list[Request]:
        """Requests that were sent before the gate was shut, and that it counts."""
        link = Link(Tick())
        sent = [self.request(name) for name in requests]
        for request in sent:
            link.take(request)
        assert link.guard(self.gate, 7) == len(sent)
        return sent


def names(requests: list[Request]) -> list[str]:
    return [request.argv()[1].decode() for request in requests]


def make_ghost(request: Request) -> None:
    """What a link makes of a request whose deadline has passed."""
    link = Link(Tick())
    request.deadline = 1.0
    link.take(request)
    link.expire(2.0)
    assert request.is_ghost


# -- order --


def test_what_came_back_goes_before_what_has_arrived() -> None:
    scene = Scene()
    scene.hold("3")
    scene.bring_back("1")
    scene.hold("4")
    scene.bring_back("2")
    assert len(scene.gate) == 4
    assert names(scene.gate.empty()) == ["1", "2", "3", "4"]
    assert len(scene.gate) == scene.gate.size == 0
    assert scene.gate.empty() == []


def test_only_what_came_back_is_tried_first() -> None:
    scene = Scene()
    scene.hold("3")
    scene.bring_back("1", "2")
    first = scene.gate.first_to_try()
    assert names(first) == ["1", "2"]
    assert all(request.gate is scene.gate for request in first)
    assert scene.gate.outstanding == 2
    assert len(scene.gate) == 1
    assert scene.gate.first_to_try() == []
    scene.gate.take_back(first[0])
    scene.gate.take_back(first[1])
    assert scene.gate.outstanding == 0
    assert names(scene.gate.empty()) == ["1", "2", "3"]


@given(st.lists(st.sampled_from(["arrives", "comes back", "is tried", "leaves"])))
def test_any_course(steps: list[str]) -> None:
    """Two queues, as two lists would be; size and count are those of what is held."""
    scene = Scene()
    held: list[str] = []
    returned: list[str] = []
    for number, step in enumerate(steps):
        if step == "arrives":
            scene.hold(str(number))
            held.append(str(number))
        elif step == "comes back":
            scene.bring_back(str(number))
            returned.append(str(number))
        elif step == "is tried":
            first = scene.gate.first_to_try()
            assert names(first) == returned
            for request in first:
                scene.gate.take_back(request)
        else:
            assert names(scene.gate.empty()) == returned + held
            held, returned = [], []
        assert len(scene.gate) == len(held) + len(returned)
        frames = [scene.request(name).frame_bytes for name in held + returned]
        assert scene.gate.size == sum(map(len, frames))


# -- counting home --


def test_gate_knocks_for_each_arrival_and_when_all_are_home() -> None:
    """Whether it may open is the lane's to say."""
    scene = Scene()
    answered, sent_back, ghost = scene.under_way("1", "2", "3")
    assert scene.gate.outstanding == 3
    scene.hold("4")
    assert scene.lane.knocks == 1
    make_ghost(ghost)
    scene.gate.came_home(answered)
    scene.gate.take_back(sent_back)
    assert scene.gate.outstanding == 1
    assert scene.lane.knocks == 1
    scene.gate.came_home(ghost)
    assert scene.gate.outstanding == 0
    assert scene.lane.knocks == 2
    assert names(scene.gate.empty()) == ["2", "4"]


def test_nobody_comes_home_twice() -> None:
    scene = Scene()
    first, second = scene.under_way("1", "2")
    for _ in range(3):
        scene.gate.came_home(first)
    assert scene.gate.outstanding == 1
    assert first.gate is None
    scene.gate.came_home(scene.request("a stranger"))
    assert scene.gate.outstanding == 1
    answer(second, b"+OK\r\n")
    assert scene.gate.outstanding == 0


def test_refused_request_is_home_as_well() -> None:
    scene = Scene(max_size=1)
    scene.bring_back("1")
    (second,) = scene.under_way("2")
    scene.gate.take_back(second)
    assert scene.replies.got == [FULL]
    assert scene.gate.outstanding == 0


# -- bytes --


def test_bytes_are_bounded() -> None:
    size = len(Scene().request("1").frame_bytes)
    scene = Scene(max_size=3 * size)
    scene.hold("1", "2")
    scene.bring_back("3")
    assert scene.gate.size == 3 * size
    scene.hold("4")
    scene.bring_back("5")
    assert scene.replies.got == [FULL, FULL]
    assert names(scene.gate.first_to_try()) == ["3"]
    assert scene.gate.size == 2 * size
    scene.hold("6")
    assert names(scene.gate.empty()) == ["1", "2", "6"]


def test_single_request_may_be_larger() -> None:
    scene = Scene(max_size=10)
    scene.hold("x" * 100)
    scene.hold("1")
    assert scene.replies.got == [FULL]
    assert names(scene.gate.empty()) == ["x" * 100]
    scene.hold("y" * 100)
    assert len(scene.gate) == 1


# -- time --


def test_time_is_bounded() -> None:
    scene = Scene()
    scene.hold("1")
    scene.lane.time += 3.0
    scene.hold("2")
    assert scene.gate.expire(104.9) == 0
    assert scene.gate.expire(105.0) == 1
    assert scene.gate.expire(107.9) == 0
    assert names(scene.gate.empty()) == ["2"]
    assert scene.replies.got == [REFUSED]
    assert scene.gate.size == 0


def test_time_counts_from_the_first_gate_on() -> None:
    """A request that comes back again and again does not wait for ever."""
    scene = Scene()
    request = scene.request("1")
    scene.gate.take_back(request)
    assert request.hold_until == 105.0
    for _ in range(4):
        scene.lane.time += 1.0
        (first,) = scene.gate.first_to_try()
        scene.gate.take_back(first)
    assert request.hold_until == 105.0
    assert scene.gate.expire(105.0) == 1


def test_back_off_ends_with_the_last_that_came_back() -> None:
    """What has arrived since has nothing to wait for any more."""
    scene = Scene()
    scene.bring_back("1")
    scene.gate.opens_at = 107.0
    scene.lane.time = 101.0
    scene.bring_back("2")
    scene.lane.time = 102.0
    scene.hold("3")
    scene.lane.knocks = 0
    scene.gate.expire(105.5)
    assert (scene.gate.opens_at, scene.lane.knocks) == (107.0, 0)
    scene.gate.expire(106.5)
    assert (scene.gate.opens_at, scene.lane.knocks) == (0.0, 1)
    assert names(scene.gate.empty()) == ["3"]


def test_the_last_error_is_the_answer_to_what_came_back() -> None:
    scene = Scene()
    request = scene.request("1")
    request.last_error = LAST_ERROR
    scene.gate.take_back(request)
    scene.hold("2")
    assert scene.gate.expire(200.0) == 2
    assert scene.replies.got == [LAST_ERROR, REFUSED]


# -- the breaker --


def test_open_breaker_answers_at_once_but_knocks() -> None:
    """Each command is a reason to try the node again."""
    scene = Scene()
    scene.hold("1")
    scene.gate.refusing = b"-CLUSTERDOWN gone\r\n"
    scene.hold("2")
    scene.bring_back("3")
    assert scene.replies.got == [b"-CLUSTERDOWN gone\r\n"] * 2
    assert scene.lane.knocks == 2
    scene.gate.refusing = None
    scene.hold("4")
    assert names(scene.gate.empty()) == ["1", "4"]


# -- ghosts --


def test_ghosts_are_not_let_in() -> None:
    scene = Scene()
    for take in (scene.gate.take, scene.gate.take_back):
        request = scene.request("gone")
        make_ghost(request)
        take(request)
    assert len(scene.gate) == scene.gate.size == 0


@pytest.mark.parametrize("way_out", ["empty", "first_to_try", "expire"])
def test_ghosts_do_not_leave(way_out: str) -> None:
    scene = Scene()
    gone, there = scene.request("gone"), scene.request("there")
    scene.gate.take_back(gone)
    scene.gate.take_back(there)
    make_ghost(gone)
    del scene.replies.got[:]
    if way_out == "expire":
        assert scene.gate.expire(101.0) == 1
        assert names(scene.gate.empty()) == ["there"]
    else:
        assert names(getattr(scene.gate, way_out)()) == ["there"]
    assert scene.replies.got == []
    assert scene.gate.size == 0


def test_gate_in_a_table() -> None:
    scene = Scene()
    table = LinkTable(scene.gate)
    table.route(scene.request("1"))
    assert repr(scene.gate) == "<Gate slot 7: test, 1 held, 0 outstanding>"
    assert repr(Gate(None, "lost", "node-a:1")) == "<Gate node-a:1: lost, 0 held, 0 outstanding>"
