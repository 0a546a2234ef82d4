"""Which of several nodes' views of the cluster to believe. Pure.

Among the views, the best is the one with the highest epoch, then with the most covered slots, then
what most nodes tell. Against the map in use:

1. A view of the same or a higher epoch that covers at least as many slots is believed.
2. Any other view is doubtful: it may come from a node that is cut off or has just started. It is
   believed if more than half of the nodes asked, and two at least, tell the same.
3. Else, if another node tells a view that is not doubtful, that one is believed.
4. Else nothing is, and the cluster should soon be asked again: what is the best view in `PATIENCE`
   rounds, one after the other, is believed.

So a stale minority is never believed at once, and slots that really lost their owner, or a cluster
that was built anew, are learnt after a few rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rproxy.topology.slotmap import SlotMap

PATIENCE = 6
"""Rounds in a row after which a doubtful view is believed."""


class View(NamedTuple):
    """What one node tells."""

    slotmap: SlotMap
    """Its slot map."""

    epoch: int
    """Its cluster_current_epoch, from CLUSTER INFO."""


class Judge:
    """Picks the view to believe; remembers what was doubtful in the rounds before."""

    def __init__(self) -> None:
        self._doubted: SlotMap | None = None
        self._rounds = 0

    def believed(self, current: SlotMap, views: Sequence[View], asked: int) -> View | None:
        """The view to believe, or None for none yet; `views`, one at least, of `asked` nodes."""
        found = self._undoubted(current, views, asked)
        if found is None:
            return self._patient(best_view(views))
        self._doubted, self._rounds = None, 0
        return found

    def _undoubted(self, current: SlotMap, views: Sequence[View], asked: int) -> View | None:
        """Rules 1 to 3."""
        best = best_view(views)
        if is_fine(current, best) or votes(best, views) > max(1, asked // 2):
            return best
        fine = [view for view in views if is_fine(current, view)]
        return best_view(fine) if fine else None

    def _patient(self, view: View) -> View | None:
        """Rule 4; counts this round."""
        again = self._doubted is not None and same_owners(self._doubted, view.slotmap)
        self._doubted, self._rounds = view.slotmap, self._rounds + 1 if again else 1
        return view if self._rounds >= PATIENCE else None


def is_fine(current: SlotMap, view: View) -> bool:
    """Whether nothing speaks against the view."""
    return view.epoch >= current.epoch and view.slotmap.covered >= current.covered


def best_view(views: Sequence[View]) -> View:
    """The one to prefer; the first of equals."""
    return max(views, key=lambda view: (view.epoch, view.slotmap.covered, votes(view, views)))


def votes(view: View, views: Sequence[View]) -> int:
    """How many of the views give every slot to the same node as `view`, itself included."""
    return sum(same_owners(view.slotmap, other.slotmap) for other in views)


def same_owners(one: SlotMap, other: SlotMap) -> bool:
    """Whether both give every slot to the same node."""
    return not one.diff(other)
