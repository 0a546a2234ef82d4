"""Scripts: remembered on their way to the servers, so that a node that lacks one can be taught it.

SCRIPT EXISTS says whether EVALSHA will find the script, wherever its keys are: masters that lack
one that is remembered are taught it first. SCRIPT FLUSH has all workers forget what they remember.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import hiredis

from rproxy import errors
from rproxy.engine.everywhere import forget_scripts
from rproxy.engine.replies import encode
from rproxy.engine.stepwise import stepwise
from rproxy.engine.ways import MASTERS, Way
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine

SCRIPT_AT = {"eval": 1, "eval_ro": 1, "script|load": 2}
"""Commands that bring a script, and where it stands."""


def teach(engine: Engine, request: Request) -> None:
    """Remember the script that a well-formed request brings; forget all that it flushes."""
    at = SCRIPT_AT.get(request.spec.name)
    if at is not None:
        engine.cluster.scripts.remember(request.argv()[at])
    elif request.spec.name == "script|flush":
        forget_scripts(engine)


async def _exists(engine: Engine, argv: list[bytes], protocol: int) -> bytes:
    """1 for each script that all masters have, by now at least."""
    cluster = engine.cluster
    pools, names = cluster.masters(2), argv[2:]
    rows = await asyncio.gather(*(cluster.tell(pool, *argv[:2], *names) for pool in pools))
    for row in rows:
        if isinstance(row, hiredis.ReplyError):
            return errors.reply(str(row))
    found = []
    for name, *known in zip(names, *rows, strict=True):
        body = None if all(known) else cluster.scripts.find(name)
        if body is not None:
            lacking = [pool for pool, has in zip(pools, known, strict=True) if not has]
            told = [cluster.tell(pool, b"SCRIPT", b"LOAD", body) for pool in lacking]
            known = [reply == name.lower() for reply in await asyncio.gather(*told)]
        found.append(int(all(known)))
    return encode(found)


SCRIPTING = {"script|exists": Way(MASTERS, stepwise(_exists))}
"""Command -> its Way."""
