"""CLUSTER: rproxy as a cluster of one node that owns all slots, or as no cluster at all.

Without `cluster_emulation` rproxy answers as a single server does, which has no cluster. With it,
cluster clients can be pointed at rproxy: they learn of one node, at the address that they reached,
and send everything there. Every worker tells the same. The nodes behind are named nowhere, and are
asked only for what they hold: COUNTKEYSINSLOT and GETKEYSINSLOT go to the slot's owner.

KEYSLOT is arithmetic and is always answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rproxy import errors
from rproxy.engine.numbers import integer
from rproxy.engine.replies import encode, verbatim
from rproxy.engine.ways import HERE, SLOT, TO_ANY, UNSERVED, Way, refusal, unserved
from rproxy.routing.slots import slot_of
from rproxy.routing.specs import CommandSpec
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

SLOTS = 16384
BUS_OFFSET = 10000
"""What a node adds to its port for its bus; clients expect the number, nobody listens there."""

DISABLED = errors.reply("ERR This instance has cluster support disabled")
INVALID_SLOT = errors.reply("ERR Invalid slot")


class Myself(NamedTuple):
    """The one node."""

    host: str
    port: int

    @property
    def id(self) -> str:
        """40 hexadecimal digits, the same from every worker and after a restart."""
        return hashlib.sha1(f"rproxy {self.host} {self.port}".encode()).hexdigest()


def myself(session: Session) -> Myself:
    """The node, as this client reached it; a Unix socket has no host and no port."""
    host, _, port = session.client.local_address.rpartition(":")
    return Myself("" if port == "0" else host.strip("[]"), int(port))


def _slots(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    node = myself(session)
    return encode([[0, SLOTS - 1, [node.host, node.port, node.id, []]]], session.protocol)


def _shards(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    node = myself(session)
    about = {
        "id": node.id,
        "port": node.port,
        "ip": node.host,
        "endpoint": node.host,
        "role": "master",
        "replication-offset": 0,
        "health": "online",
    }
    return encode([{"slots": [0, SLOTS - 1], "nodes": [about]}], session.protocol)


def _nodes(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    node = myself(session)
    where = f"{node.host}:{node.port}@{node.port + BUS_OFFSET}"
    line = f"{node.id} {where} myself,master - 0 0 1 connected 0-{SLOTS - 1}\n"
    return verbatim(line, session.protocol)


def _info(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    covered = engine.cluster.slotmap.covered
    fields = {
        "cluster_state": "ok" if covered == SLOTS else "fail",
        "cluster_slots_assigned": covered,
        "cluster_slots_ok": covered,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0,
        "cluster_known_nodes": 1,
        "cluster_size": 1,
        "cluster_current_epoch": 1,
        "cluster_my_epoch": 1,
        "cluster_stats_messages_sent": 0,
        "cluster_stats_messages_received": 0,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    text = "".join(f"{name}:{value}\r\n" for name, value in fields.items())
    return verbatim(text, session.protocol)


def _myid(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    return encode(myself(session).id)


def _links(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    return encode([])


def _replicas(engine: Engine, session: Session, argv: list[bytes]) -> bytes:
    if argv[2].decode("ascii", "replace") != myself(session).id:
        return errors.reply(b"ERR Unknown node " + argv[2][:40])
    return encode([])


TOLD: dict[str, Callable[[Engine, Session, list[bytes]], bytes]] = {
    "cluster|slots": _slots,
    "cluster|shards": _shards,
    "cluster|nodes": _nodes,
    "cluster|info": _info,
    "cluster|myid": _myid,
    "cluster|myshardid": _myid,
    "cluster|links": _links,
    "cluster|replicas": _replicas,
    "cluster|slaves": _replicas,
}
"""What is told of the one node."""


def cluster(engine: Engine, spec: CommandSpec) -> Way:
    """The Way of CLUSTER and its subcommands."""
    if spec.name == "cluster|keyslot":
        return Way(HERE, _keyslot)
    if not engine.config.cluster_emulation:
        return refusal(UNSERVED, DISABLED)
    if spec.name in TOLD:
        return Way(HERE, _tell)
    why = "it changes or describes one node: send it to that node"
    return WAYS.get(spec.name) or unserved(spec.name, why)


def _keyslot(engine: Engine, session: Session, request: Request) -> None:
    session.answer(encode(slot_of(engine.pins.to_server(request.argv()[2]))), request)


def _tell(engine: Engine, session: Session, request: Request) -> None:
    session.answer(TOLD[request.spec.name](engine, session, request.argv()), request)


def _stranger(engine: Engine, session: Session, request: Request) -> None:
    session.answer(errors.unknown_subcommand_reply(b"CLUSTER", request.argv()[1]), request)


def _ask_owner(engine: Engine, session: Session, request: Request) -> None:
    slot = integer(request.argv()[2])
    if slot is None:
        session.answer(errors.NOT_AN_INTEGER, request)
    elif not 0 <= slot < SLOTS:
        session.answer(INVALID_SLOT, request)
    else:
        request.slot = slot
        session.forward(request)


WAYS = {
    "cluster": Way(HERE, _stranger),
    "cluster|help": TO_ANY,
    "cluster|countkeysinslot": Way(SLOT, _ask_owner),
    "cluster|getkeysinslot": Way(SLOT, _ask_owner),
}
"""What more the one node does; only a slot's owner knows the keys in it."""
