"""When the cluster is asked, whom, and what comes of it; on a loop that skips waiting."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from rproxy.config import Seconds
from rproxy.topology.refresh import MAX_PAUSE, View
from rproxy.topology.slotmap import Node, Shard, SlotMap
from rproxy.topology.views import PATIENCE
from tests.topology.worlds import FULL, HALF, ONE, World, at, scene, view


@pytest.fixture(autouse=True)
def skipping_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The throttle's clock is the loop's."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr("asyncio_throttle.throttler.time", clock)


# -- the first map --


@scene([1, 2, 3, 4, 5, 6, 7])
async def test_any_one_living_seed_is_enough(world: World) -> None:
    world.all_say(ONE, 7)
    world.refresher.start()
    await asyncio.sleep(0.1)
    assert world.maps == [ONE.slotmap]
    assert world.notes.replaced == [(1, 16384, 1, 16384)]
    assert world.notes.waits == []


@scene([1, 2], chance=1.0)
async def test_while_no_seed_answers_it_says_so_and_tries_with_growing_pauses(world: World) -> None:
    world.refresher.start()
    await asyncio.sleep(30)
    assert world.notes.waits == list(range(1, len(world.notes.waits) + 1))
    pauses = [b - a for a, b in itertools.pairwise(world.notes.rounds)]
    # The pause, and the random delay of a round with it.
    assert pauses[:4] == pytest.approx([0.3, 0.55, 1.05, 2.05])
    assert max(pauses) == pytest.approx(MAX_PAUSE + 0.05)
    assert repr(world.refresher) == "<Refresher waiting for a seed, 2 nodes failed>"
    world.all_say(ONE, 2)
    await asyncio.sleep(6)
    assert world.maps == [ONE.slotmap]


@scene([1, 2, 3])
async def test_whatever_goes_wrong_on_the_way_is_that_node_s_failure(world: World) -> None:
    world.answers = {at(1): OSError("no route"), at(2): UnicodeError("label too long")}
    world.all_say(ONE, 3)
    await world.started()
    assert world.notes.failed == [("n1:6379", "no route"), ("n2:6379", "label too long")]


# -- when --


@scene([1], chance=0.5, refresh_interval=Seconds(60))
async def test_it_looks_again_after_the_interval(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    await asyncio.sleep(58)
    assert len(world.notes.rounds) == 1
    await asyncio.sleep(3)
    assert len(world.notes.rounds) == 2
    assert world.notes.reasons == ["start", "regular look"]


@scene([1])
async def test_many_requests_make_one_round(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    for number in range(100):
        world.refresher.request_refresh(f"MOVED {number}")
    await asyncio.sleep(5)
    assert world.notes.reasons == ["start", "MOVED 0"]


@scene([1, 2], fetch_timeout=Seconds(1))
async def test_a_request_during_a_round_makes_one_more_after_it(world: World) -> None:
    world.all_say(ONE, 1, 2)
    await world.started()
    world.answers[at(2)] = None
    world.refresher.request_refresh("first")
    await asyncio.sleep(0.5)
    assert world.asked == [at(1), at(2)]
    world.refresher.request_refresh("second")
    assert len(world.notes.rounds) == 2
    await asyncio.sleep(5)
    assert world.notes.reasons == ["start", "first", "second"]


@scene([1])
async def test_rounds_keep_their_distance(world: World) -> None:
    world.all_say(ONE, 1)
    world.refresher.start()
    for _ in range(1000):
        world.refresher.request_refresh("MOVED")
        await asyncio.sleep(0.01)
    pauses = [b - a for a, b in itertools.pairwise(world.notes.rounds)]
    assert min(pauses) >= 0.25
    assert len(pauses) >= 36


@scene([1])
async def test_after_a_failed_round_it_tries_again_by_itself(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    world.answers.clear()
    world.refresher.request_refresh("link lost")
    await asyncio.sleep(3)
    world.all_say(view((1, HALF), (2, ((8192, 16383),)), epoch=2), 1)
    await asyncio.sleep(6)
    assert world.notes.replaced[-1] == (2, 16384, 2, 8192)
    assert world.notes.waits == []


@scene([1])
async def test_closing_ends_a_round_under_way(world: World) -> None:
    await world.refresher.close()
    world.answers[at(1)] = None
    world.refresher.start()
    await asyncio.sleep(0.1)
    await world.refresher.close()
    assert len(asyncio.all_tasks()) == 1


@scene([1])
async def test_a_bug_is_not_silent(world: World) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    world.answers[at(1)] = KeyError("bug")
    world.refresher.start()
    await asyncio.sleep(1)
    assert [type(about["exception"]) for about in told] == [KeyError]


# -- whom --

SIX = view((1, ((0, 4999),)), (2, ((5000, 9999),)), (3, ((10000, 12999),)), (4, ((13000, 16383),)))


@scene([9])
async def test_masters_are_asked_first_then_seeds(world: World) -> None:
    world.all_say(SIX, 1, 2, 3, 4, 9)
    await world.started()
    await world.refreshed()
    assert world.asked == [at(1), at(2), at(3)]


@scene([9], chance=0.75)
async def test_masters_take_turns(world: World) -> None:
    world.all_say(SIX, 1, 2, 3, 4, 9)
    await world.started()
    await world.refreshed()
    assert world.asked == [at(4), at(1), at(2)]


@scene([9])
async def test_who_failed_last_time_is_asked_last(world: World) -> None:
    world.all_say(SIX, 2, 3, 4, 9)
    await world.started()
    await world.refreshed(2)
    assert world.asked == [at(1), at(2), at(3), at(2), at(3), at(4)]


@scene([9], ask_nodes=2)
async def test_who_answers_again_is_asked_first_again(world: World) -> None:
    world.all_say(SIX, 2, 3, 4, 9)
    await world.started()
    await world.refreshed()
    world.all_say(SIX, 1)
    del world.answers[at(2)], world.answers[at(3)], world.answers[at(4)]
    await world.refreshed()
    world.all_say(SIX, 2, 3, 4)
    world.asked.clear()
    await world.refreshed()
    assert world.asked == [at(1), at(9)]


@scene([1, 2, 3, 4, 5, 6, 7], ask_nodes=1, fetch_timeout=Seconds(2))
async def test_more_are_asked_each_time_while_nobody_answers(world: World) -> None:
    world.answers.update({at(number): None for number in range(1, 7)})
    world.all_say(ONE, 7)
    world.refresher.start()
    # One hangs for two seconds, then two, and among the next four is one that answers.
    await asyncio.sleep(6.01)
    assert world.maps == [ONE.slotmap]
    assert world.notes.failed[0] == ("n1:6379", "no answer within 2s")


@scene([9])
async def test_when_all_known_nodes_are_gone_the_seeds_are_asked_by_name(world: World) -> None:
    world.all_say(SIX, 9)
    await world.started()
    world.all_say(view((5, FULL), epoch=2), 9)
    await world.refreshed()
    assert world.asked == [at(1), at(2), at(3), at(4), at(9)]
    assert world.maps[-1].owner(0) == Node("n5", 6379)


@scene([9], ask_nodes=2)
async def test_replicas_and_masters_in_trouble_come_after_the_others(world: World) -> None:
    failing = Shard(Node("n1", 6379, health="fail"), (), HALF)
    replica = Node("n3", 6379, role="replica")
    healthy = Shard(Node("n2", 6379), (replica,), ((8192, 16383),))
    world.all_say(View(SlotMap.of([failing, healthy]), 1), 1, 2, 3, 9)
    await world.started()
    await world.refreshed()
    assert world.asked == [at(2), at(1)]


# -- what comes of it --


@scene([1])
async def test_the_same_map_is_told_once(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    world.all_say(ONE._replace(epoch=5), 1)
    await world.refreshed(3)
    assert len(world.maps) == 1


@scene([1, 2, 3, 4], ask_nodes=4)
async def test_two_answers_of_four_nodes_asked_are_not_most(world: World) -> None:
    world.all_say(ONE, 1, 2, 3, 4)
    await world.started()
    world.answers = {at(number): view((1, HALF), epoch=2) for number in (1, 2)}
    await world.refreshed()
    assert len(world.maps) == 1


@scene([1])
async def test_doubt_asks_by_itself_until_it_is_settled(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    world.all_say(view((1, HALF), epoch=2), 1)
    world.refresher.request_refresh("CLUSTERDOWN")
    await asyncio.sleep(0.5 * PATIENCE + 0.1)
    assert [each.covered for each in world.maps] == [16384, 8192]
    assert world.notes.kept == [(16384, 8192, 2)] * (PATIENCE - 1)
    assert world.notes.reasons[-1] == "a view that is in doubt"
    await asyncio.sleep(30)
    assert len(world.notes.rounds) == 1 + PATIENCE


@scene([1])
async def test_a_patch_is_the_map_in_use(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    patched = world.maps[0].with_owner(5, at(2))
    world.refresher.adopt_patch(patched)
    world.all_say(View(patched, 2), 1)
    await world.refreshed()
    assert len(world.maps) == 1
    world.all_say(ONE._replace(epoch=3), 1)
    await world.refreshed()
    assert world.notes.replaced[-1] == (1, 16384, 3, 1)


@scene([1])
async def test_master_that_lost_its_slots_is_left_out(world: World) -> None:
    """It is called a master until all nodes have heard of the failover."""
    world.all_say(view((1, HALF), (2, ((8192, 16383),)), (4, ())), 1, 2)
    await world.started()
    assert [node.address for node in world.maps[-1].masters] == [at(1), at(2), at(4)]  # 4 is new
    world.all_say(view((1, HALF), (2, ()), (3, ((8192, 16383),)), (4, ())), 1, 3)
    await world.refreshed(3)
    assert [node.address for node in world.maps[-1].masters] == [at(1), at(3), at(4)]
    assert len(world.maps) == 2
    world.all_say(view((1, HALF), (2, ((8192, 16383),)), (3, ())), 1, 3)
    await world.refreshed()
    assert [node.address for node in world.maps[-1].masters] == [at(1), at(2)]
    assert world.maps[-1].covered == 16384


# -- doubts --


@scene([1, 2], fetch_timeout=Seconds(1))
async def test_doubts_are_settled_by_a_round_that_began_after_them(world: World) -> None:
    world.all_say(ONE, 1, 2)
    await world.started()
    world.answers[at(2)] = None
    world.refresher.request_refresh("a round that is under way")
    await asyncio.sleep(0.5)
    settled: list[int] = []
    world.refresher.doubt(lambda: settled.append(len(world.notes.rounds)))
    await asyncio.sleep(5)
    assert settled == [3]
    assert world.notes.reasons[2] == "a node that was silent speaks again"


@scene([1])
async def test_doubts_wait_for_a_view_that_is_believed(world: World) -> None:
    world.all_say(ONE, 1)
    await world.started()
    settled: list[int] = []
    world.all_say(view((1, HALF)), 1)
    world.refresher.doubt(lambda: settled.append(1))
    await asyncio.sleep(0.6)
    assert settled == []
    world.all_say(ONE, 1)
    await asyncio.sleep(0.6)
    assert settled == [1]
