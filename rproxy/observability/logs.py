"""The log: one line an event, for an operator.

    2026-01-31T12:00:00.123Z warning w0 link to 10.0.0.1:6379 (RESP2) is down: Connection refused

Time in UTC, level, worker, what happened. `set_up` makes it so for the logger "rproxy" and all
below it; `LogProbe` turns the events of a Probe into lines.

Rules. Never a value, a key or a password. Line ends and other control characters in what peers sent
are made harmless, so nobody can forge a line. What can come in floods goes through RateLimited, per
event and node: the first lines of each interval are written, the others counted, and the count is
written once the interval is over.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rproxy.probe import Probe

LINES = 5
"""Lines of one kind that are written in one interval."""

INTERVAL = 10.0
"""Seconds of such an interval."""

# Whatever could end a line or steer a terminal becomes a space.
_HARMLESS = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029], " ")


class LineFormatter(logging.Formatter):
    """Writes a record as one line; a traceback is folded into it."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        stamp = f"{seconds}.{int(record.msecs):03d}Z"
        line = f"{stamp} {record.levelname.lower()} w{self._worker} {record.getMessage()}"
        if record.exc_info:
            line += " | " + self.formatException(record.exc_info)
        return line.translate(_HARMLESS)


def set_up(level: str, worker: int = 0, stream: TextIO | None = None) -> logging.Logger:
    """Send what rproxy logs, from `level` up, to `stream` (stderr), as worker number `worker`.

    Called again it replaces what it did before.
    """
    logger = logging.getLogger("rproxy")
    writer = logging.StreamHandler(stream or sys.stderr)
    writer.setFormatter(LineFormatter(worker))
    logger.handlers[:] = [writer]
    logger.propagate = False
    logger.setLevel(level.upper())
    return logger


@dataclass(slots=True)
class _Count:
    """What was written of one kind in one interval."""

    since: float
    """When the interval began, on the clock."""

    written: int = 0
    """Lines that went through."""

    left_out: int = 0
    """Lines that did not."""


class RateLimited:
    """Lets `lines` lines of a kind through in each `interval` seconds, and counts the rest."""

    def __init__(
        self,
        emit: Callable[[int, str], None],
        clock: Callable[[], float] = time.monotonic,
        lines: int = LINES,
        interval: float = INTERVAL,
    ) -> None:
        """`emit(level, text)` writes a line."""
        self._emit = emit
        self._clock = clock
        self._lines = lines
        self._interval = interval
        self._counts: dict[str, _Count] = {}

    def line(self, kind: str, level: int, text: str) -> None:
        """Write the line, or count it."""
        self.flush()
        count = self._counts.setdefault(kind, _Count(self._clock()))
        if count.written < self._lines:
            count.written += 1
            self._emit(level, text)
        else:
            count.left_out += 1

    def flush(self) -> None:
        """Tell what was left out in intervals that are over, and forget them."""
        now = self._clock()
        over = [kind for kind, count in self._counts.items() if now - count.since >= self._interval]
        for kind in over:
            self._tell(kind, self._counts.pop(kind))

    def close(self) -> None:
        """Tell what was left out so far."""
        for kind, count in self._counts.items():
            self._tell(kind, count)
        self._counts.clear()

    def _tell(self, kind: str, count: _Count) -> None:
        if count.left_out:
            self._emit(logging.WARNING, f"… and {count.left_out} more: {kind}")


class LogProbe(Probe):
    """Writes the events that an operator wants to know of."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = logger
        self._limited = RateLimited(logger.log, clock)

    def flush(self) -> None:
        """Tell what the rate limit has left out. Call it now and then, or it waits for an event."""
        self._limited.flush()

    def close(self) -> None:
        """Tell all that the rate limit has left out."""
        self._limited.close()

    # -- the process --

    def listening(self, where: str, is_open: bool) -> None:
        self._log.info("listening on %s", where)
        if is_open:
            self._log.warning("%s is open: whoever reaches it needs no password", where)

    def draining(self, reason: str, clients: int) -> None:
        self._log.info("stopping (%s): %d clients may finish", reason, clients)

    def stopped(self, abandoned: int) -> None:
        level = logging.WARNING if abandoned else logging.INFO
        self._log.log(level, "stopped; %d clients had not finished", abandoned)

    def worker_ended(self, worker: int, reason: str) -> None:
        self._log.error("worker %d has ended (%s); another takes its place", worker, reason)

    # -- clients --

    def client_accepted(self, client: str) -> None:
        self._log.debug("client %s has connected", client)

    def client_refused(self, client: str, reason: str) -> None:
        self._warn("clients refused", f"client {client} refused: {reason}")

    def accept_failed(self, reason: str) -> None:
        self._warn("pauses in accepting clients", f"no client is accepted for a while: {reason}")

    def login_failed(self, client: str) -> None:
        self._warn("wrong passwords of clients", f"client {client} gave a wrong password")

    def client_left(self, client: str) -> None:
        self._log.debug("client %s has left", client)

    def client_dropped(self, client: str, reason: str) -> None:
        self._warn("clients dropped", f"client {client} dropped: {reason}")

    def client_broke_protocol(self, client: str, trouble: str) -> None:
        self._warn("protocol errors of clients", f"client {client} broke the protocol: {trouble}")

    # -- links and gates --

    def link_up(self, node: str, protocol: int) -> None:
        text = f"link to {node} (RESP{protocol}) is up"
        self._limited.line(f"links to {node} up", logging.INFO, text)

    def link_down(self, node: str, protocol: int, reason: str) -> None:
        text = f"link to {node} (RESP{protocol}) is down: {reason}"
        self._warn(f"links to {node} down", text)

    def upstream_refused(self, node: str, code: str) -> None:
        kind = f"logins refused by {node}"
        self._limited.line(kind, logging.ERROR, f"{node} refuses our user or password: {code}")

    def subscriptions_lost(self, node: str, topics: int, reason: str) -> None:
        text = f"{topics} subscriptions at {node} are lost, messages may be missed: {reason}"
        self._warn(f"subscriptions at {node} lost", text)

    def subscriptions_back(self, topics: int, seconds: float) -> None:
        text = f"{topics} lost subscriptions are back after {seconds:.3f} s"
        self._limited.line("subscriptions back", logging.INFO, text)

    def subscription_refused(self, node: str, code: str) -> None:
        self._warn(f"subscriptions refused by {node}", f"{node} refuses a subscription: {code}")

    def gate_closed(self, reason: str, slot: int) -> None:
        self._log.debug("commands for %s are held: %s", _place(slot), reason)

    def gate_opened(self, reason: str, slot: int, held: int) -> None:
        self._log.debug("%d held commands for %s go on (%s)", held, _place(slot), reason)

    def gate_refused(self, reason: str, slot: int) -> None:
        text = f"a held command for {_place(slot)} was given up: {reason}"
        self._warn("held commands given up", text)

    # -- redirections --

    def moved(self, slot: int, told_by: str, owner: str) -> None:
        text = f"slot {slot} has moved to {owner}, says {told_by}"
        self._limited.line("slots moved", logging.INFO, text)

    def asked(self, slot: int, told_by: str, target: str) -> None:
        self._log.debug("slot %d is moving from %s to %s", slot, told_by, target)

    # -- the slot map --

    def refresh_started(self, reason: str) -> None:
        self._log.debug("asking for the slot map: %s", reason)

    def refresh_failed(self, node: str, reason: str) -> None:
        text = f"{node} did not give the slot map: {reason}"
        self._warn(f"slot maps not given by {node}", text)

    def no_seed_answers(self, seeds: Sequence[str], attempts: int) -> None:
        text = f"no seed answers, tried {attempts} times, trying on: {', '.join(seeds)}"
        self._warn("no seed answers", text)

    def slotmap_replaced(self, masters: int, covered: int, epoch: int, changed: int) -> None:
        level = logging.INFO if covered == 16384 else logging.WARNING
        text = (
            f"slot map of epoch {epoch}: {masters} masters, {covered} of 16384 slots served, "
            f"{changed} changed hands"
        )
        self._limited.line("slot maps", level, text)

    def slotmap_kept(self, covered: int, offered: int, epoch: int) -> None:
        text = f"a view of epoch {epoch} with {offered} slots is in doubt; the map has {covered}"
        self._warn("views in doubt", text)

    def _warn(self, kind: str, text: str) -> None:
        self._limited.line(kind, logging.WARNING, text)


def _place(slot: int) -> str:
    return "a whole node" if slot < 0 else f"slot {slot}"
