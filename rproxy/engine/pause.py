"""CLIENT PAUSE: requests wait where they come in, and go on when the pause ends.

Strategy. While a pause lasts, the sessions' command table is one in which everything that has to
wait is marked, and so off the straight path; the ladder hands a marked request to this file, which
holds it and its session. When the pause ends, the table is the old one again and the requests go
down the ladder in the order in which they came. Without a pause nothing is looked at.

As in Redis: WRITE lets pass what cannot write, also scripts and functions that say so; a second
pause makes the first one longer or stricter, never shorter; UNPAUSE waits as well while everything
does.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rproxy.engine.merging import fields_of
from rproxy.engine.multi import of
from rproxy.errors import NetworkError
from rproxy.routing.access import DENIED, PAUSED, marked
from rproxy.routing.specs import CommandSpec, CommandTable
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    import asyncio

    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

NO_WRITES = b"no-writes"
"""The flag of scripts and functions that only read."""

MAY_WRITE = frozenset({"eval", "evalsha", "fcall", "pfcount", "publish", "spublish"})
"""Commands that can change something, or tell others, without the flag `write`."""


def writes(spec: CommandSpec) -> bool:
    """Whether a pause of writes holds this command; EXEC, if one of its commands would be held."""
    return "write" in spec.server_flags or spec.name in MAY_WRITE or spec.name == "exec"


def only_reads(script: bytes) -> bool:
    """Whether the script's first line says `#!lua flags=no-writes`, perhaps among others."""
    line, _, _ = script.partition(b"\n")
    options = dict(word.partition(b"=")[::2] for word in line.split()[1:])
    return line.startswith(b"#!") and NO_WRITES in options.get(b"flags", b"").split(b",")


def readers(libraries: Any) -> set[bytes]:
    """Names of the functions in FUNCTION LIST's reply, as hiredis gives it, that only read."""
    if not isinstance(libraries, list):
        return set()
    functions = [
        fields_of(function)
        for library in map(fields_of, libraries)
        for function in library[b"functions"]
    ]
    return {function[b"name"] for function in functions if NO_WRITES in function[b"flags"]}


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
        self._readers: set[bytes] = set()
        """Functions of which servers have said, during this pause, that they only read."""
        self.holds_all = False

    @property
    def waiting(self) -> int:
        """How many sessions wait for the end."""
        return sum(not session.stream.is_closed for session, _ in self._waiting)

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
        if self.holds_all:
            return True
        if spec.name != "exec":
            return self._may_write(request)
        transaction = of(session)
        return transaction is not None and any(map(self._may_write, transaction.kept))

    def _may_write(self, request: Request) -> bool:
        """Whether a pause of writes is for the command: scripts may say that they only read."""
        if request.spec is None or not writes(request.spec):
            return False
        name, word = request.spec.name, request.argv()[1:2]
        if name in ("eval", "evalsha"):
            body = word[0] if name == "eval" else self._engine.cluster.scripts.find(word[0])
            return body is None or not only_reads(body)
        return name != "fcall" or word[0] not in self._readers

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
        if request.spec.name == "fcall" and not self.holds_all:
            self._engine.spawn(self._ask_for(request.argv()[1]))

    async def _ask_for(self, function: bytes) -> None:
        """Let calls of the function pass if the servers say that it only reads."""
        with suppress(NetworkError):
            (libraries,) = await self._engine.cluster.ask(("FUNCTION", "LIST"))
            if self.is_on and function in readers(libraries):
                self._readers.add(function)
                self._let_pass()

    def _let_pass(self) -> None:
        """Take what waits down the ladder again: some of it need not wait any more."""
        waiting, self._waiting = self._waiting, []
        for session, request in waiting:
            request.spec = self._engine.spec_of(request)
            self._engine.resume(session, request)

    def end(self) -> None:
        """Let everybody go on."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer, self._until, self.holds_all = None, 0.0, False
        self._readers.clear()
        self._engine.use_table()
        self._let_pass()
