"""Commands for the whole keyspace that take more than one question to each node."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import hiredis

from rproxy import errors
from rproxy.engine.broadcast import Replies, joined, to_masters
from rproxy.engine.replies import encode
from rproxy.engine.scan import scan
from rproxy.engine.stepwise import stepwise
from rproxy.engine.ways import MASTERS, Way
from rproxy.upstream.cluster import parse_reply
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session


async def _scan(engine: Engine, argv: list[bytes], protocol: int) -> bytes:
    return await scan(engine.cluster, argv, engine.pins)


async def _randomkey(engine: Engine, argv: list[bytes], protocol: int) -> bytes:
    """Every key with the same chance: a node is chosen by how many keys it has."""
    cluster = engine.cluster
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
            return encode(engine.pins.to_client(key))
        left[pool] = 0  # its keys are gone since it counted them
    return encode(None, protocol)


def _keys(engine: Engine, session: Session, request: Request) -> None:
    """KEYS of all masters, under clients' names."""
    name, wanted = request.argv()
    asked, again = engine.pins.pattern(wanted)
    if asked != wanted:
        session.rewrite(request, pack([name, asked]), request.spec)

    def found(replies: Replies, protocol: int) -> bytes:
        keys = [key for raw in replies for key in parse_reply(raw)]
        return encode(engine.pins.found(keys, wanted if again else None))

    to_masters(engine, session, request, found if engine.pins.pairs else joined)


KEYSPACE = {
    "keys": Way(MASTERS, _keys),
    "randomkey": Way(MASTERS, stepwise(_randomkey)),
    "scan": Way(MASTERS, stepwise(_scan)),
}
"""Command -> its Way."""
