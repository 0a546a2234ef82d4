"""What a node says of itself in CLUSTER NODES: its slots, those that leave it, its config epoch.

The slot map needs none of this. Who walks through all keys does: a slot's keys lie at two nodes
while it migrates, and a node that has got a slot back has a new config epoch. Pure.

    07c37df 127.0.0.1:30004@31004,host myself,master - 0 1426238317239 4 connected 0-5460 [93->-e7d]
"""

from __future__ import annotations

from typing import NamedTuple

from rproxy.config import Address
from rproxy.errors import AddressError, ProtocolBroken

_FIELDS = 8
"""Fields of a line before the slots."""


class OwnView(NamedTuple):
    """One node's view of itself."""

    id: str
    epoch: int
    ranges: tuple[tuple[int, int], ...]
    """First and last slot of each run of slots that it owns, in rising order."""

    leaving: dict[int, str]
    """Slots that are migrating away -> id of the node that takes them."""

    addresses: dict[str, Address]
    """Id -> address of every node that has one."""

    def last_of_run(self, slot: int) -> int | None:
        """The last slot that it owns without a gap from `slot` on; None if not even that one."""
        end = None
        for first, last in self.ranges:
            if first <= slot <= last or (end is not None and first == end + 1):
                end = last
        return end


def parse_own_view(text: bytes) -> OwnView:
    """A CLUSTER NODES reply as its sender's view of itself; ProtocolBroken where it has none."""
    addresses: dict[str, Address] = {}
    own: list[str] = []
    for line in text.decode("ascii", "replace").splitlines():
        fields = line.split(" ")
        if len(fields) < _FIELDS:
            continue
        address = _address(fields[1])
        if address is not None:
            addresses[fields[0]] = address
        if "myself" in fields[2].split(","):
            own = fields
    try:
        return _own_view(own, addresses)
    except (ValueError, IndexError):
        raise ProtocolBroken("a CLUSTER NODES reply that does not name its sender") from None


def _own_view(fields: list[str], addresses: dict[str, Address]) -> OwnView:
    ranges: list[tuple[int, int]] = []
    leaving: dict[int, str] = {}
    for word in fields[_FIELDS:]:
        if word.startswith("["):
            slot, arrow, node = word.strip("[]").partition("->-")
            if arrow:
                leaving[int(slot)] = node
        else:
            first, _, last = word.partition("-")
            ranges.append((int(first), int(last or first)))
    return OwnView(fields[0], int(fields[6]), tuple(sorted(ranges)), leaving, addresses)


def _address(word: str) -> Address | None:
    """`ip:port@cport[,hostname[,field=...]]`; the name wins, as clients are told to use it."""
    plain, _, aux = word.partition("@")
    host, _, port = plain.rpartition(":")
    names = [part for part in aux.split(",")[1:] if part and "=" not in part]
    try:
        return Address.parse(
            f"[{host}]:{port}" if ":" in host else f"{(names or [host])[0]}:{port}"
        )
    except AddressError:
        return None
