"""Replies: Python values become frames of the client's protocol version."""

from __future__ import annotations

from typing import Any

import pytest

from rproxy.engine.replies import encode, simple, verbatim


@pytest.mark.parametrize(
    ("value", "resp2", "resp3"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (b"\0\xff", b"$2\r\n\0\xff\r\n", b"$2\r\n\0\xff\r\n"),
        ("é", b"$2\r\n\xc3\xa9\r\n", b"$2\r\n\xc3\xa9\r\n"),
        ("\udcff", b"$1\r\n\xff\r\n", b"$1\r\n\xff\r\n"),
        (-7, b":-7\r\n", b":-7\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ((1, None), b"*2\r\n:1\r\n$-1\r\n", b"*2\r\n:1\r\n_\r\n"),
        (
            {"a": 1, "b": [None]},
            b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*1\r\n$-1\r\n",
            b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*1\r\n_\r\n",
        ),
    ],
    ids=repr,
)
def test_encode(value: Any, resp2: bytes, resp3: bytes) -> None:
    assert encode(value) == encode(value, 2) == resp2
    assert encode(value, 3) == resp3


def test_texts() -> None:
    assert simple("PONG") == b"+PONG\r\n"
    assert verbatim("a\nb", 2) == b"$3\r\na\nb\r\n"
    assert verbatim("a\nb", 3) == b"=7\r\ntxt:a\nb\r\n"


def test_what_no_reply_can_carry() -> None:
    with pytest.raises(TypeError, match="cannot carry a object"):
        encode(object())
