"""Which writes leave what: only what is certain."""

from __future__ import annotations

import pytest

from rproxy.engine.noloop import LARGEST, MOST_KEYS, expected
from rproxy.routing.commands import built_in
from rproxy.wire.frames import Request, pack
from tests.fakes import bulk

NIL = b"_\r\n"

CASES: dict[str, list[tuple[bytes, bytes]]] = {
    "SET k v": [(b"k", bulk(b"v"))],
    "set k v EX 10 NX": [(b"k", bulk(b"v"))],
    "SETEX k 10 v": [(b"k", bulk(b"v"))],
    "PSETEX k 10 v": [(b"k", bulk(b"v"))],
    "SETNX k v": [(b"k", bulk(b"v"))],
    "GETSET k v": [(b"k", bulk(b"v"))],
    "MSET a 1 b 2 a 3": [(b"a", bulk(b"3")), (b"b", bulk(b"2"))],
    "DEL a b": [(b"a", NIL), (b"b", NIL)],
    "UNLINK a": [(b"a", NIL)],
    "INCR k": [],
    "HSET k f v": [],
    "EXEC": [],
    "GET k": [],
    f"SET k {'v' * LARGEST}": [(b"k", bulk(b"v" * LARGEST))],
    f"SET k {'v' * (LARGEST + 1)}": [],
    f"DEL {' '.join(map(str, range(MOST_KEYS + 1)))}": [],
}


@pytest.mark.parametrize("command", CASES, ids=lambda command: command[:20])
def test_what_a_command_leaves(command: str) -> None:
    words = command.encode().split()
    request = Request(pack(words))
    request.spec = built_in().lookup(words[0])
    assert expected(request) == CASES[command]
