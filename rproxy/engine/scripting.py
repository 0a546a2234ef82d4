"""Scripts are remembered on their way to the servers: a node that lacks one can be taught it."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        engine.cluster.scripts.clear()
