"""The answer to a request with too few or too many arguments, in Redis's own words.

The check itself is `arity_ok` in specs.pxd, or `CommandSpec.takes` in Python. It is made before
keys are looked for, and counts what the server counts later: MSET wants whole pairs.
"""

from __future__ import annotations

from rproxy.routing.specs import CommandFlag, CommandSpec


def arity_error(spec: CommandSpec) -> bytes:
    """The error reply, RESP2 and RESP3 alike; a subcommand is named `object|encoding`."""
    problem = f"wrong number of arguments for '{spec.name}' command"
    if spec.flags & CommandFlag.EXEC:
        return f"-EXECABORT Transaction discarded because of: {problem}\r\n".encode()
    return f"-ERR {problem}\r\n".encode()
