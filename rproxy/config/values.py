"""The kinds of values that options have: durations, sizes, secrets, addresses.

Each is made from what a TOML file or a command line can hold by `parse`, which raises ValueError
with the reason, and reads well when printed: `250ms`, `64mb`, `***`, `[::1]:6379`. Durations and
sizes are numbers (seconds, bytes) for everyone else.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import re
from typing import NamedTuple, Self

from rproxy.errors import AddressError

_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)

_PORT = re.compile(r"[0-9]{1,5}")

# A name or an IP address; what a URL would put around one is a mistake.
_HOST = re.compile(r"[^\s\[\]/@?]{1,255}")

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

# As in redis.conf: kb is 1024, k is 1000.
_SIZES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 1 << 10,
    "m": 10**6,
    "mb": 1 << 20,
    "g": 10**9,
    "gb": 1 << 30,
}


class Seconds(float):
    """A duration: a number of seconds, or a text such as "250ms", "5s", "2m", "1h"."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """The duration that a file says; raises ValueError."""
        seconds = _amount(
            value, {"": 1.0, **_DURATIONS}, 'expected a duration such as "5s" or "250ms"'
        )
        return cls(seconds)

    def __str__(self) -> str:
        for unit in ("h", "m", "s"):
            if self and self % _DURATIONS[unit] == 0:
                return f"{self / _DURATIONS[unit]:.0f}{unit}"
        return f"{self * 1000:.15g}ms" if self else "0s"


class Bytes(int):
    """A size: a number of bytes, or a text such as "64kb", "256mb", "1gb"."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """The size that a file says; raises ValueError."""
        size = _amount(value, _SIZES, 'expected a size such as "256mb" or a number of bytes')
        if size != int(size):
            raise ValueError("expected a whole number of bytes")
        return cls(size)

    def __str__(self) -> str:
        for unit in ("gb", "mb", "kb"):
            if self and self % _SIZES[unit] == 0:
                return f"{self // _SIZES[unit]}{unit}"
        return f"{int(self)}"


def _amount(value: object, units: dict[str, int] | dict[str, float], expected: str) -> float:
    """`value` in the base unit; raises ValueError where it is negative, endless or no amount."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        amount: float = value
    elif isinstance(value, str) and (match := _AMOUNT.fullmatch(value)):
        unit = match[2].lower()
        if unit not in units:
            raise ValueError(f"unknown unit {match[2]!r}: {expected}")
        number = float(match[1]) if "." in match[1] else int(match[1])
        amount = number * units[unit]
    else:
        raise ValueError(expected)
    if not (0 <= amount < math.inf):
        raise ValueError("must be 0 or more, and finite")
    return amount


class Secret:
    """A password: it never shows itself; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    @classmethod
    def parse(cls, value: object) -> Self:
        """The secret that a file says; raises ValueError, which does not quote it."""
        if not isinstance(value, str):
            raise ValueError("expected a text in quotes")
        return cls(value)

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def matches(self, candidate: bytes) -> bool:
        """Whether a client's password is this one; a near miss takes as long as a far one."""
        return hmac.compare_digest(self._text.encode(), candidate)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***"


class Address(NamedTuple):
    """Where a TCP peer is: a name or an IP address (IPv6 without brackets), and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object, lowest_port: int = 1) -> Address:
        """The address that "host:port" or "[v6]:port" names; raises AddressError.

        The last colon is the one before the port, so that IPv6 addresses as nodes write them,
        `::1:6379`, work too.
        """
        if not isinstance(text, str):
            raise AddressError('expected an address such as "10.0.0.1:6379"')
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not colon or not _HOST.fullmatch(host):
            raise AddressError(f'expected an address such as "10.0.0.1:6379", not {text!r}')
        if not _PORT.fullmatch(port) or not lowest_port <= int(port) < 65536:
            raise AddressError(f"no port from {lowest_port} to 65535 in {text!r}")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect there, as far as the text tells."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixPath(NamedTuple):
    """Where a Unix socket is."""

    path: str

    @property
    def is_loopback(self) -> bool:
        """Always: a Unix socket ends on this machine."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse_listen(text: object) -> Address | UnixPath:
    """What "host:port", "[::1]:6379" or "unix:/path" names; raises AddressError.

    Port 0 lets the system choose one.
    """
    if not isinstance(text, str) or not text.startswith("unix:"):
        return Address.parse(text, lowest_port=0)
    path = text.removeprefix("unix:")
    if not path or "\0" in path or len(path.encode()) > 100:
        raise AddressError("expected the path of a socket, up to 100 bytes long, after unix:")
    return UnixPath(path)


_COMMAND = re.compile(r"[!-{}~]+(?:\|[!-{}~]+)?")


def parse_command(text: object) -> str:
    """A command's name in lower case, such as "keys" or "config|set"; raises ValueError."""
    if not isinstance(text, str) or not _COMMAND.fullmatch(text):
        raise ValueError('expected the name of a command, such as "keys" or "config|set"')
    return text.lower()


class PinRule(NamedTuple):
    """Keys that share one slot because of how they begin."""

    prefixes: tuple[bytes, ...]
    """How they begin: one of these."""

    tag: bytes
    """Their hash tag."""

    def __str__(self) -> str:
        words = [prefix.decode("utf-8", "replace") for prefix in self.prefixes]
        return f"{{ prefix = {words}, tag = {self.tag.decode('utf-8', 'replace')!r} }}"


def parse_pin(table: object) -> PinRule:
    """What `{ prefix = "arq:" }` means, or several prefixes with one tag; raises ValueError.

    The empty prefix stands for all keys that no other prefix fits; its tag has to be named.
    """
    if not isinstance(table, dict) or not table.keys() <= {"prefix", "tag"}:
        raise ValueError("expected [[pin]] tables with a prefix and perhaps a tag")
    found = table.get("prefix")
    prefixes = [_word(word) for word in (found if isinstance(found, list) else [found])]
    tag = _word(table["tag"]) if "tag" in table else b"".join(prefixes[:1])
    if not prefixes or not tag:
        raise ValueError("name at least one prefix, and a tag where the first prefix is empty")
    if b"}" in tag:
        raise ValueError("a hash tag ends at the first }: name one without it, such as tag = 'a'")
    return PinRule(tuple(prefixes), tag)


def _word(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError('prefix and tag are texts: prefix = "arq:"')
    return value.encode()
