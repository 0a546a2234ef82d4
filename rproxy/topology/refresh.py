"""When to ask the cluster for its slot map again, whom, and which answer to believe.

Strategy. One task asks, so never two rounds at once. It starts a round when somebody requests one
(`request_refresh`: a MOVED, a lost node), and every `refresh_interval` anyway. A round asks
`ask_nodes` nodes at the same time: known masters, then replicas, then the seeds, those that failed
last time only when there is nobody else. Where none of them answers, it goes on to the next ones,
twice as many each time, until somebody does. How a node is asked is handed in as `fetch`. Seeds are
given to it by name, so a name that points elsewhere by now is looked up anew.

Rounds are at least `min_interval` apart, and begin after a small random delay, so that many workers
that see the same MOVED do not ask as one. Requests that come while a round is under way make one
more round, because its answers may be older.

Which view wins. Among the answers: the highest epoch, then the most covered slots, then what most
nodes say. Against the map in use: 1. A view of the same or a higher epoch that covers at least as
many slots replaces it. 2. Any other view is doubtful: it may come from a node that is cut off or
has just started. It replaces the map only if more
   than half of the nodes asked, and two at least, tell the same; or if it is the best view in
   `PATIENCE` rounds one after the other. Doubt is asked about again soon. So a stale minority is
   never believed at once, and slots that really lost their owner, or a cluster that was built anew,
   are learnt within seconds.
A MOVED that was believed since (`adopt_patch`) counts as the map in use.

Before the first map there is nothing to compare with: the seeds are asked until one answers, with
growing pauses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from asyncio_throttle.throttler import Throttler

from rproxy.config import Address, Config
from rproxy.errors import NetworkError
from rproxy.probe import Probe
from rproxy.topology.slotmap import SlotMap

PATIENCE = 3
"""Rounds in a row after which a doubtful view is believed."""

MAX_PAUSE = 5.0
"""Seconds between two rounds at most while nobody answers."""

JITTER = 0.2
"""Largest part of `min_interval` that a round is put off at random."""


class View(NamedTuple):
    """What one node tells."""

    slotmap: SlotMap
    """Its slot map."""

    epoch: int
    """Its cluster_current_epoch, from CLUSTER INFO."""


Fetch = Callable[[Address], Awaitable[View]]
"""Asks one node; raises NetworkError. It is cancelled when it takes too long."""


class Refresher:
    """Keeps the slot map true; tells `on_map` of each new one."""

    def __init__(
        self,
        config: Config,
        fetch: Fetch,
        on_map: Callable[[SlotMap], None],
        probe: Probe,
        chance: Callable[[], float] = random.random,
        pace: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`chance()` gives 0 to 1; `pace()` returns when a round may begin."""
        self._config = config
        self._fetch = fetch
        self._on_map = on_map
        self._probe = probe
        self._chance = chance
        throttle = Throttler(rate_limit=1, period=config.topology.min_interval)
        self._pace = pace or throttle.acquire
        self._current = SlotMap.empty()
        self._known = False
        self._failed: set[Address] = set()
        self._doubted: SlotMap | None = None
        self._doubts = 0
        self._reason: str | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "waiting for a seed" if not self._known else repr(self._current)
        return f"<Refresher {state}, {len(self._failed)} nodes failed>"

    def start(self) -> None:
        """Begin; returns at once, `on_map` is called when there is a map."""
        self._reason = self._reason or "start"
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_report)

    async def close(self) -> None:
        """Stop, and wait until nothing is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def request_refresh(self, reason: str) -> None:
        """Ask the cluster soon; any number of requests make one round."""
        self._reason = self._reason or reason
        self._wanted.set()

    def adopt_patch(self, slotmap: SlotMap) -> None:
        """The map in use was patched after a MOVED."""
        self._current = slotmap

    # -- the task --

    async def _run(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(self._chance() * JITTER * self._config.topology.min_interval)
            await self._pace()
            failures = 0 if await self._round() else failures + 1
            if failures:
                if not self._known:
                    seeds = [str(seed) for seed in self._config.seeds]
                    self._probe.no_seed_answers(seeds, failures)
                await asyncio.sleep(self._pause(failures))
            else:
                await self._until_due()

    def _pause(self, failures: int) -> float:
        shortest = self._config.topology.min_interval
        return min(MAX_PAUSE, shortest * 2.0 ** min(failures - 1, 30)) * (0.5 + self._chance() / 2)

    async def _until_due(self) -> None:
        """Return when a round is wanted, or the interval, give or take a tenth, is over."""
        interval = self._config.topology.refresh_interval * (0.9 + 0.2 * self._chance())
        try:
            async with asyncio.timeout(interval):
                await self._wanted.wait()
        except TimeoutError:
            self._reason = self._reason or "regular look"

    async def _round(self) -> bool:
        """Ask, and take over what is to be believed; False where nobody answered."""
        self._probe.refresh_started(self._reason or "nobody has answered")
        self._reason = None
        self._wanted.clear()
        asked, views = await self._ask()
        if not views:
            return False
        best = best_view(views)
        if self._believes(best, views, asked):
            self._take_over(best)
        else:
            self._probe.slotmap_kept(self._current.covered, best.slotmap.covered, best.epoch)
            self.request_refresh("a view that is in doubt")
        return True

    # -- asking --

    async def _ask(self) -> tuple[int, list[View]]:
        """The views of the first batch in which anybody answered, and the size of that batch."""
        waiting = self._candidates()
        size = self._config.topology.ask_nodes
        while waiting:
            batch, waiting = waiting[:size], waiting[size:]
            answers = await asyncio.gather(*(self._ask_one(address) for address in batch))
            views = [view for view in answers if view is not None]
            if views:
                return len(batch), views
            size *= 2
        return 0, []

    def _candidates(self) -> list[Address]:
        """Whom to ask, in this order; each once."""
        masters = [node.address for node in self._current.masters if node.health == "online"]
        # Another master each time, so that no node answers for all workers.
        turn = int(self._chance() * len(masters))
        others = [node.address for node in self._current.nodes]
        ranked = dict.fromkeys([*masters[turn:], *masters[:turn], *others, *self._config.seeds])
        self._failed &= set(ranked)
        return sorted(ranked, key=lambda address: address in self._failed)

    async def _ask_one(self, address: Address) -> View | None:
        limit = self._config.topology.fetch_timeout
        try:
            async with asyncio.timeout(limit):
                view = await self._fetch(address)
        except TimeoutError:
            self._note_failure(address, f"no answer within {limit}")
        except (NetworkError, OSError, ValueError) as error:
            # ValueError: a host name that cannot be one; the resolver says so only then.
            self._note_failure(address, str(error))
        else:
            self._failed.discard(address)
            return view
        return None

    def _note_failure(self, address: Address, reason: str) -> None:
        self._failed.add(address)
        self._probe.refresh_failed(str(address), reason)

    # -- believing --

    def _believes(self, best: View, views: Sequence[View], asked: int) -> bool:
        """Whether `best` replaces the map in use, by the rule at the top of this file."""
        current = self._current
        if best.epoch >= current.epoch and best.slotmap.covered >= current.covered:
            self._doubted, self._doubts = None, 0
            return True
        same_doubt = self._doubted is not None and same_owners(self._doubted, best.slotmap)
        self._doubts = self._doubts + 1 if same_doubt else 1
        self._doubted = best.slotmap
        return self._doubts >= PATIENCE or votes(best, views) > max(1, asked // 2)

    def _take_over(self, view: View) -> None:
        slotmap = view.slotmap.at_epoch(view.epoch)
        old, self._current = self._current, slotmap
        self._doubted, self._doubts = None, 0
        if self._known and slotmap == old:
            return
        self._known = True
        changed = len(old.diff(slotmap))
        masters = len(slotmap.masters)
        self._probe.slotmap_replaced(masters, slotmap.covered, slotmap.epoch, changed)
        self._on_map(slotmap)


def _report(task: asyncio.Task[None]) -> None:
    # A bug must not end the task in silence: what is raised here goes to the loop's exception
    # handler.
    if not task.cancelled():
        task.result()


def same_owners(one: SlotMap, other: SlotMap) -> bool:
    """Whether both give every slot to the same node."""
    return not one.diff(other)


def votes(view: View, views: Sequence[View]) -> int:
    """How many of the views tell the same owners as `view`, itself included."""
    return sum(same_owners(view.slotmap, other.slotmap) for other in views)


def best_view(views: Sequence[View]) -> View:
    """The one to prefer: highest epoch, most covered slots, most votes; the first of equals."""
    return max(views, key=lambda view: (view.epoch, view.slotmap.covered, votes(view, views)))
