"""Commands that take more than one question to each node.

Each has its place among the client's replies before the first question is asked, and is answered
when the last one is. The client's later commands wait meanwhile: they must not be executed between
two questions of an earlier one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.upstream.sink import answer
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Work = Callable[["Engine", list[bytes], int], Awaitable[bytes]]
"""The engine, the request's arguments and the protocol version -> the reply."""


def stepwise(work: Work) -> Callable[[Engine, Session, Request], None]:
    """What takes a request and answers it with what a coroutine returns."""

    def take(engine: Engine, session: Session, request: Request) -> None:
        session.enter(request)
        session.hold()
        reply = work(engine, request.argv(), session.protocol)
        engine.spawn(_answer(session, request, reply))

    return take


async def _answer(session: Session, request: Request, reply: Awaitable[bytes]) -> None:
    try:
        raw = await reply
    except errors.RproxyError as error:
        raw = errors.reply(f"ERR {error}")
    answer(request, raw)
    session.release()
