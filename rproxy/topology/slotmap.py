"""The slot map: which node owns which of the 16,384 slots, as one frozen value.

Strategy. The owners are an array of small numbers, so a copy with one slot changed (a MOVED) costs
a copy of 32 KiB and nothing else; the map is never edited, only replaced. The numbers follow the
masters' addresses in rising order, whatever order a node lists them in: two maps of the same
masters are compared as blocks of memory. While slots move, several maps a second are compared, in
the process that serves clients. Two parsers make one from
what a node tells: `parse_shards` from CLUSTER SHARDS (Redis 7), `parse_slots` from CLUSTER SLOTS.
Both take what hiredis gives, of RESP2 (flat lists) and of RESP3 (dicts).

Rules for addresses, which nodes write in many ways:

- No host, or an empty one: the host that was asked (it does not know its own name, or hides it).
- "?": the node has no name to give. Its IP address stands in where the reply has that, else the
  node has no address.
- The TLS port where our links use TLS, the plain one otherwise. Where links use TLS and a node
  names one port only, that is taken to be the TLS port; never the reverse.
- A node without an address is left out, so its slots are not covered.

A replica that is loading or failed is left out. A failed master stays the owner of its slots until
another takes over. A reply without any master is rejected.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple, Self

from rproxy.config import Address
from rproxy.errors import AddressError, ProtocolBroken

SLOTS = 16384

_NOBODY = 0xFFFF
"""Number in the owners' array of a slot without an owner."""

_STRANGER = 0x8000
"""From this number on: masters that the other map does not know."""

_STRETCH = 128
"""Slots that are compared at once."""

Range = tuple[int, int]
"""First and last slot, both included."""


class Node(NamedTuple):
    """One server of the cluster."""

    host: str
    """Name or IP address to connect to."""

    port: int
    """The port that fits our links: plain or TLS."""

    id: str = ""
    """The cluster's own name for it, 40 hex digits; empty where only a redirection told of it."""

    role: str = "master"
    """`master` or `replica`."""

    health: str = "online"
    """`online`, `loading` or `fail`, as CLUSTER SHARDS says; `online` where nobody says."""

    @property
    def address(self) -> Address:
        """Where it is."""
        return Address(self.host, self.port)

    def __str__(self) -> str:
        return str(self.address)


class Shard(NamedTuple):
    """A master, its replicas, and what they serve."""

    master: Node
    replicas: tuple[Node, ...]
    ranges: tuple[Range, ...]


class SlotMap:
    """Slot -> node. Frozen: every change is a new map."""

    __slots__ = ("_owners", "_replicas", "covered", "epoch", "masters")

    def __init__(
        self,
        masters: tuple[Node, ...],
        replicas: Mapping[Address, tuple[Node, ...]],
        owners: array[int],
        epoch: int,
        covered: int,
    ) -> None:
        """`owners` holds an index into `masters` for each slot, `covered` is how many slots have
        one. Use `of`, `empty` or a parser.
        """
        self.masters = masters
        self.epoch = epoch
        self.covered = covered
        self._replicas = replicas
        self._owners = owners

    @classmethod
    def empty(cls) -> Self:
        """The map of a cluster of which nothing is known."""
        return cls.of(())

    @classmethod
    def of(cls, shards: Iterable[Shard], epoch: int = 0) -> Self:
        """The map that the shards make; where two claim a slot, the later has it."""
        found = tuple(shards)
        masters = sorted((shard.master for shard in found), key=lambda node: node.address)
        numbers = {node.address: number for number, node in enumerate(masters)}
        owners = array("H", [_NOBODY]) * SLOTS
        for shard in found:
            number = numbers[shard.master.address]
            for first, last in shard.ranges:
                owners[first : last + 1] = array("H", [number]) * (last + 1 - first)
        replicas = {shard.master.address: shard.replicas for shard in found if shard.replicas}
        return cls(tuple(masters), replicas, owners, epoch, SLOTS - owners.count(_NOBODY))

    # -- asking --

    def owner(self, slot: int) -> Node | None:
        """The master of a slot, or None where nobody serves it."""
        number = self._owners[slot]
        return None if number == _NOBODY else self.masters[number]

    def replicas(self, master: Node) -> tuple[Node, ...]:
        """The replicas of a master that can serve reads."""
        return self._replicas.get(master.address, ())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All masters, then all replicas."""
        return self.masters + tuple(node for team in self._replicas.values() for node in team)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The masters with their replicas and slots, as the map is now."""
        ranges: list[list[Range]] = [[] for _ in self.masters]
        for number, first, last in _runs(self._owners):
            if number != _NOBODY:
                ranges[number].append((first, last))
        return tuple(
            Shard(master, self.replicas(master), tuple(own))
            for master, own in zip(self.masters, ranges, strict=True)
        )

    @property
    def serving(self) -> frozenset[Address]:
        """The masters that own slots."""
        numbers = set(self._owners) - {_NOBODY}
        return frozenset(self.masters[number].address for number in numbers)

    def diff(self, other: SlotMap) -> list[int]:
        """The slots whose owner's address differs between the maps, in rising order."""
        mine, theirs = self._owners, other._numbered_as(self)
        if mine == theirs:
            return []
        return [
            slot
            for first in range(0, SLOTS, _STRETCH)
            if mine[first : first + _STRETCH] != theirs[first : first + _STRETCH]
            for slot in range(first, first + _STRETCH)
            if mine[slot] != theirs[slot]
        ]

    def _numbered_as(self, other: SlotMap) -> array[int]:
        """The owners by their numbers in the other map."""
        mine = [node.address for node in self.masters]
        theirs = [node.address for node in other.masters]
        if mine == theirs:
            return self._owners
        numbers = {address: number for number, address in enumerate(theirs)}
        known = {n: numbers.get(address, _STRANGER + n) for n, address in enumerate(mine)}
        known[_NOBODY] = _NOBODY
        return array("H", map(known.__getitem__, self._owners))

    # -- changing --

    def with_owner(self, slot: int, address: Address) -> SlotMap:
        """The same map but for one slot, which the node there owns; the map need not know it."""
        masters = self.masters
        number = next((n for n, node in enumerate(masters) if node.address == address), None)
        replicas = self._replicas
        if number is None:
            number = len(masters)
            masters = (*masters, self._promoted(address))
            replicas = _without(replicas, address)
        owners = self._owners[:]
        covered = self.covered + (owners[slot] == _NOBODY)
        owners[slot] = number
        return SlotMap(masters, replicas, owners, self.epoch, covered)

    def without_idle(self, masters: Set[Address]) -> SlotMap:
        """The same map without those of the masters there that own no slot."""
        idle = ({node.address for node in self.masters} - self.serving) & masters
        if not idle:
            return self
        rest = [shard for shard in self.shards if shard.master.address not in idle]
        return SlotMap.of(rest, self.epoch)

    def at_epoch(self, epoch: int) -> SlotMap:
        """The same map, known to be of that epoch."""
        return SlotMap(self.masters, self._replicas, self._owners, epoch, self.covered)

    def _promoted(self, address: Address) -> Node:
        """The node there as a master: a replica that took over, or one that nobody knew."""
        for node in self.nodes:
            if node.address == address:
                return node._replace(role="master")
        return Node(address.host, address.port)

    # -- comparing --

    def __eq__(self, other: object) -> bool:
        """Whether both name the same nodes, roles and owners; the epoch does not matter."""
        return (
            isinstance(other, SlotMap)
            and set(self.nodes) == set(other.nodes)
            and self._teams() == other._teams()
            and not self.diff(other)
        )

    def __hash__(self) -> int:
        return hash((frozenset(self.nodes), self.covered))

    def _teams(self) -> dict[Address, set[Node]]:
        return {master: set(team) for master, team in self._replicas.items() if team}

    def __repr__(self) -> str:
        return (
            f"<SlotMap {len(self.masters)} masters, {len(self.nodes)} nodes, "
            f"{self.covered} slots, epoch {self.epoch}>"
        )


def _runs(owners: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(number, first slot, last slot) of each run of slots with one owner."""
    first = 0
    for slot in range(1, SLOTS + 1):
        if slot == SLOTS or owners[slot] != owners[first]:
            yield owners[first], first, slot - 1
            first = slot


def _without(
    replicas: Mapping[Address, tuple[Node, ...]], address: Address
) -> dict[Address, tuple[Node, ...]]:
    return {
        master: tuple(node for node in team if node.address != address)
        for master, team in replicas.items()
    }


# -- redirections --


def address_of_redirect(text: str, asked_host: str) -> Address | None:
    """Where MOVED or ASK points; None where the text does not say, and the cluster must be asked.

    `asked_host` is the host of the node that answered: it stands in where the text has none.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        return None
    try:
        return Address.parse(f"{host or asked_host}:{port}")
    except AddressError:
        # "?" among others: the node has no name to give.
        return None


# -- what nodes tell --


def parse_shards(reply: object, asked: Address, *, tls: bool = False) -> SlotMap:
    """The map in a reply to CLUSTER SHARDS by the node at `asked`; raises ProtocolBroken.

    `tls`: whether our links use TLS, which decides between a node's two ports.
    """
    return _map_of(_told_by_shards(reply, asked, tls), asked, "CLUSTER SHARDS")


def parse_slots(reply: object, asked: Address) -> SlotMap:
    """The map in a reply to CLUSTER SLOTS by the node at `asked`; raises ProtocolBroken.

    Its ports are those that fit the connection that asked.
    """
    return _map_of(_told_by_slots(reply, asked), asked, "CLUSTER SLOTS")


def _map_of(shards: Iterator[Shard], asked: Address, command: str) -> SlotMap:
    try:
        found = list(shards)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ProtocolBroken(f"{asked}: {command} makes no sense: {error}") from error
    if not found:
        raise ProtocolBroken(f"{asked}: {command} names no master")
    return SlotMap.of(found)


def _told_by_shards(reply: Any, asked: Address, tls: bool) -> Iterator[Shard]:
    for item in reply:
        shard = _fields(item)
        told = [_shards_node(_fields(node), asked, tls) for node in shard["nodes"]]
        nodes = [node for node in told if node is not None]
        bounds = shard["slots"]
        ranges = tuple(_range(*pair) for pair in zip(bounds[::2], bounds[1::2], strict=True))
        masters = [node for node in nodes if node.role == "master"]
        # After a failover the old master may still be listed beside the new one.
        master = min(masters, key=lambda node: _HEALTH.index(node.health), default=None)
        if master is not None and (ranges or master.health == "online"):
            serving = [n for n in nodes if n.role == "replica" and n.health == "online"]
            yield Shard(master, tuple(serving), ranges)


def _shards_node(told: Mapping[str, Any], asked: Address, tls: bool) -> Node | None:
    ports = ("tls-port", "port") if tls else ("port",)
    port = next((told[name] for name in ports if told.get(name)), 0)
    host = _host(told.get("endpoint"), told.get("ip"), asked)
    if host is None or not port:
        return None
    role, health = _text(told["role"]), _text(told.get("health", b"online"))
    known = health if health in _HEALTH else "fail"
    return Node(host, int(port), _text(told["id"]), _ROLES.get(role, role), known)


_HEALTH = ("online", "loading", "fail")
"""From the most to the least useful."""

_ROLES = {"slave": "replica"}


def _told_by_slots(reply: Any, asked: Address) -> Iterator[Shard]:
    ranges: dict[Address, list[Range]] = {}
    teams: dict[Address, Shard] = {}
    for first, last, *members in reply:
        master, *others = [_slots_node(member, asked) for member in members]
        # One item a range: a master with several ranges comes several times.
        if master is not None:
            replicas = tuple(node._replace(role="replica") for node in others if node is not None)
            ranges.setdefault(master.address, []).append(_range(first, last))
            teams[master.address] = Shard(master, replicas, ())
    for address, shard in teams.items():
        yield shard._replace(ranges=tuple(ranges[address]))


def _slots_node(told: Any, asked: Address) -> Node | None:
    host, port, *rest = told
    about = _fields(rest[1]) if len(rest) > 1 else {}
    found = _host(host, about.get("ip"), asked)
    if found is None or not port:
        return None
    return Node(found, int(port), _text(rest[0]) if rest else "")


def _host(told: bytes | None, ip: bytes | None, asked: Address) -> str | None:
    """The host by the rules at the top of this file, or None where the node has no address."""
    if not told:
        return asked.host
    if told == b"?":
        return _text(ip) if ip else None
    return _text(told)


def _fields(item: Any) -> dict[str, Any]:
    """A map as RESP3 (dict) or RESP2 (flat list) give it."""
    pairs = item.items() if isinstance(item, dict) else zip(item[::2], item[1::2], strict=True)
    return {_text(name): value for name, value in pairs}


def _range(first: int, last: int) -> Range:
    if not 0 <= first <= last < SLOTS:
        raise ValueError(f"slots {first} to {last}")
    return first, last


def _text(told: bytes) -> str:
    return told.decode()
