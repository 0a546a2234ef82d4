"""Commands for the whole keyspace that take more than one question to each node.

Each has its place among the client's replies before the first question is asked, and is answered
when the last one is. The client's later commands wait meanwhile: they must not be executed between
two questions of an earlier one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import hiredis

from rproxy import errors
from rproxy.engine.replies import encode
from rproxy.engine.scan import scan
from rproxy.upstream.cluster import Cluster
from rproxy.upstream.sink import answer
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Work = Callable[[Cluster, list[bytes], int], Awaitable[bytes]]
"""The cluster, the request's arguments and the protocol version -> the reply."""


def _at_leisure(work: Work) -> Callable[[Engine, Session, Request], None]:
    """Answers a request with what a coroutine returns."""

    def take(engine: Engine, session: Session, request: Request) -> None:
        session.enter(request)
        session.hold()
        reply = work(engine.cluster, request.argv(), session.protocol)
        engine.spawn(_answer(session, request, reply))

    return take


async def _answer(session: Session, request: Request, reply: Awaitable[bytes]) -> None:
    try:
        raw = await reply
    except errors.RproxyError as error:
        raw = errors.reply(f"ERR {error}")
    answer(request, raw)
    session.release()


async def _scan(cluster: Cluster, argv: list[bytes], protocol: int) -> bytes:
    return await scan(cluster, argv)


async def _randomkey(cluster: Cluster, argv: list[bytes], protocol: int) -> bytes:
    """Every key with the same chance: a node is chosen by how many keys it has."""
    pools = cluster.masters(2)
    sizes = await asyncio.gather(*(cluster.tell(pool, b"DBSIZE") for pool in pools))
    for size in sizes:
        if isinstance(size, hiredis.ReplyError):
            return errors.reply(str(size))
    left = dict(zip(pools, sizes, strict=True))
    while any(left.values()):
        (pool,) = random.choices([*left], weights=[*left.values()])
        key = await cluster.tell(pool, b"RANDOMKEY")
        if isinstance(key, hiredis.ReplyError):
            return errors.reply(str(key))
        if key is not None:
            return encode(key)
        left[pool] = 0  # its keys are gone since it counted them
    return encode(None, protocol)


KEYSPACE: dict[str, Callable[[Engine, Session, Request], None]] = {
    "randomkey": _at_leisure(_randomkey),
    "scan": _at_leisure(_scan),
}
"""Command -> what takes a request for it."""
