"""Which of several nodes' views is believed, rule by rule."""

from __future__ import annotations

import pytest

from rproxy.topology.slotmap import Node, Shard, SlotMap
from rproxy.topology.views import PATIENCE, Judge, View, best_view

FULL = ((0, 16383),)
HALF = ((0, 8191),)
REST = ((8192, 16383),)


def view(*owners: tuple[int, tuple[tuple[int, int], ...]], epoch: int = 1) -> View:
    """What a node tells where masters by number own those ranges."""
    shards = [Shard(Node(f"n{number}", 6379), (), ranges) for number, ranges in owners]
    return View(SlotMap.of(shards, epoch), epoch)


ONE = view((1, FULL), epoch=5)
SMALLER = view((1, HALF), epoch=6)
OLDER = view((1, HALF), (2, REST), epoch=4)


@pytest.mark.parametrize(
    ("views", "winner"),
    [
        ([view((1, FULL)), view((2, FULL), epoch=2)], 1),
        ([view((1, HALF)), view((2, FULL))], 1),
        ([view((1, FULL)), view((2, HALF), epoch=2)], 1),
        ([view((1, FULL)), view((2, FULL)), view((2, FULL))], 1),
        ([view((1, FULL)), view((2, FULL))], 0),
    ],
)
def test_the_best_view(views: list[View], winner: int) -> None:
    assert best_view(views) is views[winner]


@pytest.mark.parametrize(
    "told",
    [
        view((2, FULL), epoch=5),
        view((2, FULL), epoch=6),
        view((1, HALF), (2, REST), epoch=5),
    ],
)
def test_nothing_speaks_against_the_same_coverage_and_epoch(told: View) -> None:
    assert Judge().believed(ONE.slotmap, [told], 3) is told


def test_a_larger_view_of_the_same_epoch_is_believed() -> None:
    assert Judge().believed(view((1, HALF), epoch=5).slotmap, [ONE], 3) is ONE


def test_anything_is_believed_where_nothing_is_known() -> None:
    told = view((1, ()), epoch=0)
    assert Judge().believed(SlotMap.empty(), [told], 3) is told


@pytest.mark.parametrize("told", [SMALLER, OLDER, view((1, HALF), epoch=5)])
@pytest.mark.parametrize(
    ("tellers", "asked", "believed"),
    [(1, 1, False), (1, 2, False), (1, 3, False), (2, 2, True), (2, 3, True), (2, 4, False)],
)
def test_a_doubtful_view_needs_most_of_the_asked_and_two(
    told: View, tellers: int, asked: int, believed: bool
) -> None:
    assert (Judge().believed(ONE.slotmap, [told] * tellers, asked) is told) is believed


def test_a_doubtful_view_is_not_believed_while_another_node_tells_better() -> None:
    judge = Judge()
    for _ in range(3 * PATIENCE):
        assert judge.believed(ONE.slotmap, [SMALLER, ONE], 3) is ONE


def test_what_is_better_than_the_doubtful_best_may_be_news() -> None:
    news = view((2, FULL), epoch=5)
    assert Judge().believed(ONE.slotmap, [SMALLER, news], 3) is news


@pytest.mark.parametrize("told", [SMALLER, OLDER])
def test_a_doubtful_view_that_persists_is_believed(told: View) -> None:
    judge = Judge()
    answers = [judge.believed(ONE.slotmap, [told], 1) for _ in range(PATIENCE)]
    assert answers == [None] * (PATIENCE - 1) + [told]


def test_doubtful_views_that_differ_do_not_persist() -> None:
    judge = Judge()
    for last in (100, 200) * PATIENCE:
        told = view((1, ((0, last),)), epoch=6)
        assert judge.believed(ONE.slotmap, [told], 1) is None


def test_doubt_that_was_cleared_up_starts_anew() -> None:
    judge = Judge()
    for _ in range(PATIENCE):
        assert judge.believed(ONE.slotmap, [SMALLER], 1) is None
        assert judge.believed(ONE.slotmap, [ONE], 1) is ONE
