"""When to ask the cluster for its slot map again, and whom.

Strategy. One task asks, so never two rounds at once. It starts a round when somebody requests one
(`request_refresh`: a MOVED, a lost node), and every `refresh_interval` anyway. A round asks
`ask_nodes` nodes at the same time: known masters, then replicas, then the seeds, those that failed
last time only when there is nobody else. Where none of them answers, it goes on to the next ones,
twice as many each time, until somebody does. How a node is asked is handed in as `fetch`. Seeds are
given to it by name, so a name that points elsewhere by now is looked up anew.

Rounds are at least `min_interval` apart, and begin after a small random delay, so that many workers
that see the same MOVED do not ask as one. Requests that come while a round is under way make one
more round, because its answers may be older.

Which answer is believed, views.py decides. Where none is yet, the cluster is asked again soon. A
MOVED that was believed in between (`adopt_patch`) counts as the map in use. A master that has lost
all its slots is left out: after a failover that is the old one, which nodes go on to call a master
until they hear otherwise; as a replica it would be counted, and heard, twice. One that never had
slots is a new one, and may have its first keys already.

Before the first map there is nothing to compare with: the seeds are asked until one answers, with
growing pauses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from asyncio_throttle.throttler import Throttler

from rproxy.config import Address, Config
from rproxy.errors import NetworkError
from rproxy.probe import Probe
from rproxy.topology.slotmap import SlotMap
from rproxy.topology.views import Judge, View, best_view

__all__ = ["Fetch", "Refresher", "View"]

MAX_PAUSE = 5.0
"""Seconds between two rounds at most while nobody answers."""

JITTER = 0.2
"""Largest part of `min_interval` that a round is put off at random."""


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
    ) -> None:
        """`chance()` gives 0 to 1."""
        self._config = config
        self._fetch = fetch
        self._on_map = on_map
        self._probe = probe
        self._chance = chance
        self._pace: Callable[[], Awaitable[None]] = Throttler(
            rate_limit=1, period=config.topology.min_interval
        ).acquire
        self._current = SlotMap.empty()
        self._known = False
        self._failed: set[Address] = set()
        self._judge = Judge()
        self._served: set[Address] = set()
        """Masters that have had slots."""
        self._doubts: list[Callable[[], object]] = []
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

    def doubt(self, settle: Callable[[], object]) -> None:
        """Call `settle` after a round that begins from now on and finds a view to believe."""
        self._doubts.append(settle)
        self.request_refresh("a node that was silent speaks again")

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
        doubts = len(self._doubts)
        asked, views = await self._ask()
        if not views:
            return False
        believed = self._judge.believed(self._current, views, asked)
        if believed is None:
            doubted = best_view(views)
            self._probe.slotmap_kept(self._current.covered, doubted.slotmap.covered, doubted.epoch)
            self.request_refresh("a view that is in doubt")
        else:
            self._take_over(believed)
            self._settle(doubts)
        return True

    def _settle(self, count: int) -> None:
        """Tell those who had their doubts before the round began."""
        settled, self._doubts = self._doubts[:count], self._doubts[count:]
        for settle in settled:
            settle()

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

    def _take_over(self, view: View) -> None:
        slotmap = self._without_demoted(view.slotmap).at_epoch(view.epoch)
        old, self._current = self._current, slotmap
        if self._known and slotmap == old:
            return
        self._known = True
        changed = len(old.diff(slotmap))
        masters = len(slotmap.masters)
        self._probe.slotmap_replaced(masters, slotmap.covered, slotmap.epoch, changed)
        self._on_map(slotmap)

    def _without_demoted(self, slotmap: SlotMap) -> SlotMap:
        known = {node.address for node in slotmap.nodes}
        self._served = (self._served & known) | slotmap.serving
        return slotmap.without_idle(self._served)


def _report(task: asyncio.Task[None]) -> None:
    # A bug must not end the task in silence: what is raised here goes to the loop's exception
    # handler.
    if not task.cancelled():
        task.result()
