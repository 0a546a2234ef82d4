"""CLIENT PAUSE: requests wait where they come in, and go on when the pause ends.

Strategy. While a pause lasts, the sessions' command table is one in which everything that has to
wait is marked, and so off the straight path; the ladder hands a marked request to this file, which
holds it and its session. When the pause ends, the table is the old one again and the requests go
down the ladder in the order in which they came. Without a pause nothing is looked at.

As in Redis: WRITE lets pass what cannot write; a second pause makes the first one longer or
stricter, never shorter; UNPAUSE waits as well while everything does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rproxy.engine.multi import of
from rproxy.routing.access import DENIED, PAUSED, marked
from rproxy.routing.specs import CommandSpec, CommandTable
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    import asyncio

    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

MAY_WRITE = frozenset({"eval", "evalsha", "fcall", "pfcount", "publish", "spublish"})
"""Commands that can change something, or tell others, without the flag `write`."""


def writes(spec: CommandSpec) -> bool:
    """Whether a pause of writes holds this command; EXEC, if one of its commands would be held."""
    return "write" in spec.server_flags or spec.name in MAY_WRITE or spec.name == "exec"


def anything(spec: CommandSpec) -> bool:
    """A pause of everything holds every command."""
    return True


class Pause:
    """The pause of one worker, if there is one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[tuple[Session, Request]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self.holds_all = False

    @property
    def is_on(self) -> bool:
        """Whether a pause lasts."""
        return self._timer is not None

    def holds(self, session: Session, request: Request) -> bool:
        """Whether the request has to wait; one that is a mistake has its error at once."""
        spec = request.spec
        if spec is None or PAUSED not in spec.server_flags or DENIED in spec.server_flags:
            return False
        if not session.client.authenticated or not spec.takes(len(request.argv())):
            return False
        if spec.name != "exec" or self.holds_all:
            return True
        transaction = of(session)
        queued = [] if transaction is None else transaction.kept
        return any(request.spec is not None and writes(request.spec) for request in queued)

    def begin(self, seconds: float, everything: bool) -> None:
        """Hold requests for so long; a pause that is on already ends no sooner for it."""
        loop = self._engine.cluster.loop
        self._until = max(self._until, loop.time() + seconds)
        self.holds_all = self.holds_all or everything
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._until - loop.time(), self.end)
        self._engine.use_table()

    def marks(self, table: CommandTable) -> CommandTable:
        """The table that sessions use meanwhile."""
        if not self.is_on:
            return table
        return marked(table, PAUSED, anything if self.holds_all else writes)

    def take(self, session: Session, request: Request) -> None:
        """Keep the request, and its session's next ones, until the pause ends."""
        session.hold()
        self._waiting.append((session, request))

    def end(self) -> None:
        """Let everybody go on."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer, self._until, self.holds_all = None, 0.0, False
        self._engine.use_table()
        waiting, self._waiting = self._waiting, []
        for session, request in waiting:
            request.spec = self._engine.spec_of(request)
            self._engine.resume(session, request)
