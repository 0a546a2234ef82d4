"""The text of arity errors."""

from __future__ import annotations

import pytest

from rproxy.routing.arity import arity_error
from rproxy.routing.commands import built_in


@pytest.mark.parametrize(
    ("name", "sub", "named"),
    [
        (b"GET", None, b"get"),
        (b"MSET", None, b"mset"),
        (b"object", b"ENCODING", b"object|encoding"),
        (b"object", b"nosuch", b"object"),
    ],
)
def test_arity_error(name: bytes, sub: bytes | None, named: bytes) -> None:
    spec = built_in().lookup(name, sub)
    assert spec is not None
    expected = b"-ERR wrong number of arguments for '" + named + b"' command\r\n"
    assert arity_error(spec) == expected
