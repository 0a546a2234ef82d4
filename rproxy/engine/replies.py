"""Python values -> reply frames, for what rproxy answers itself.

`encode` knows both protocol versions: a dict is a map in RESP3 and a flat array in RESP2, None is
`_` or `$-1`. str and bytes are bulk strings; `simple` writes a simple string, `verbatim` a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

OK = b"+OK\r\n"


def simple(text: str) -> bytes:
    """A simple string, such as PONG."""
    return f"+{text}\r\n".encode()


def verbatim(text: str, protocol: int) -> bytes:
    """Text for people, such as INFO's: RESP3 says that it is plain text."""
    raw = text.encode("utf-8", "surrogateescape")
    return b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw) if protocol == 3 else _bulk(raw, protocol)


def encode(value: Any, protocol: int = 2) -> bytes:
    """One value as a reply frame of RESP2 or RESP3."""
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    for kind, write in WRITERS:
        if isinstance(value, kind):
            return write(value, protocol)
    raise TypeError(f"a reply cannot carry a {type(value).__name__}")


def _bulk(value: bytes, protocol: int) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def _text(value: str, protocol: int) -> bytes:
    return _bulk(value.encode("utf-8", "surrogateescape"), protocol)


def _integer(value: int, protocol: int) -> bytes:
    return b":%d\r\n" % value


def _double(value: float, protocol: int) -> bytes:
    word = f"{value:.17g}".encode()
    return b",%b\r\n" % word if protocol == 3 else _bulk(word, protocol)


def _array(value: Sequence[Any], protocol: int) -> bytes:
    return b"*%d\r\n" % len(value) + b"".join(encode(item, protocol) for item in value)


def _map(value: Mapping[Any, Any], protocol: int) -> bytes:
    head = b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % (2 * len(value))
    return head + b"".join(
        encode(key, protocol) + encode(item, protocol) for key, item in value.items()
    )


WRITERS: tuple[tuple[type, Callable[[Any, int], bytes]], ...] = (
    (bytes, _bulk),
    (str, _text),
    (int, _integer),
    (float, _double),
    (list, _array),
    (tuple, _array),
    (dict, _map),
)
