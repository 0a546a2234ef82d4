"""A real Redis Cluster on this machine, made of server processes.

For `rproxy demo`, the tests and the benchmarks.

Strategy: start empty servers, give each master its epoch and share of the slots, introduce every
node to every other, hang the replicas on, and look until all nodes tell the same complete story.
No redis-cli is needed, and only commands that Redis 6.2, 7 and Valkey share are used.

    with LocalCluster(masters=3, replicas=1) as cluster:
        cluster.nodes[0].call("CLUSTER", "INFO")
        cluster.begin_migration(slot=866, to_port=cluster.nodes[1].port)

Rules:
- Everything listens on loopback, keeps its files in one temporary directory, and saves nothing.
- stop() may be called at any time and twice; after it no process and no file is left. A start that
  fails or is interrupted stops what it had started before the error goes on.
- The masters come first in `nodes`; the replicas follow, one of each master in turn. The order
  says how the cluster began: roles change by failover, `nodes` does not.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rproxy.demo_servers import (
    Access,
    NodeProcess,
    ServerGroup,
    TlsFiles,
    check_node_port,
    find_server,
    free_node_ports,
    wait_until,
)
from rproxy.errors import RproxyError, UsageError

SLOTS = 16384
# How long a cluster may take to form, agree or fail over, in seconds; usually it is three.
SETTLE_TIMEOUT = 30.0
# How many keys one MIGRATE carries at most, and how long it may take, in milliseconds.
MIGRATE_BATCH, MIGRATE_TIMEOUT = 100, 5000

# What every node is started with, unless LocalCluster's `options` say otherwise.
NODE_OPTIONS: Mapping[str, str] = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "save": "",
    "appendonly": "no",
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    # The address others are told: without it a node does not know its own until somebody met it.
    "cluster-announce-ip": "127.0.0.1",
    # A replica stays with its master, also when another master has none.
    "cluster-migration-barrier": "100",
    # First synchronisation at once, without a file.
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    # Nodes do not list a replica that has received nothing yet; a ping is enough.
    "repl-ping-replica-period": "1",
}


class LocalCluster:
    """A cluster of `masters` with `replicas` each, as child processes of this one.

    Also a context manager, which starts and stops it.
    """

    # The kind of node to start; a test may put a container in the process's place.
    node_type: type[NodeProcess] = NodeProcess

    def __init__(
        self,
        masters: int = 3,
        replicas: int = 1,
        *,
        base_port: int | None = None,
        directory: Path | None = None,
        server: Path | None = None,
        options: Mapping[str, str] | None = None,
        tls: TlsFiles | None = None,
        password: str | None = None,
        node_timeout_ms: int = 2000,
    ) -> None:
        """Nothing is started yet.

        base_port: the first node's port, the others count up from it; None picks free ones.
        directory: where the temporary directory is made.
        server: the program to run; None looks for one (demo_servers.find_server).
        options: server options by name, added to NODE_OPTIONS or in their place.
        node_timeout_ms: after how long without an answer the nodes declare one dead.
        """
        if masters < 3:
            raise UsageError("a cluster needs at least 3 masters: fewer cannot vote in a failover")
        if replicas < 0:
            raise UsageError("the number of replicas cannot be negative")
        self.nodes: list[NodeProcess] = []
        self._shape = masters, replicas
        self._base_port = base_port
        self._directory = directory
        self.server = server
        self._access = Access(password, tls)
        self._options = {
            **NODE_OPTIONS,
            **_access_options(self._access),
            "cluster-node-timeout": str(node_timeout_ms),
            **(options or {}),
        }
        self._group: ServerGroup | None = None
        # Slots on their way: slot -> (from, to).
        self._moving: dict[int, tuple[NodeProcess, NodeProcess]] = {}
        # When a node that was elected may stand again: port -> time.
        self._electable: dict[int, float] = {}
        self._election_interval = 4 * max(node_timeout_ms, 1000) / 1000

    def __repr__(self) -> str:
        return f"<LocalCluster {' '.join(map(repr, self.nodes)) or 'stopped'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """Every node as "host:port", the way rproxy's --seed takes it."""
        return [f"{node.host}:{node.port}" for node in self.nodes]

    # Starting and stopping

    def start(self) -> None:
        """Start the servers, join them and return when the cluster serves all slots.

        Raises UsageError for a taken port or a missing server program, RproxyError where the
        cluster does not come up in time.
        """
        masters, replicas = self._shape
        server = self.server or find_server()
        ports = self._choose_ports(masters * (1 + replicas))
        try:
            self._group = ServerGroup(self._directory)
            self.nodes = [self._make_node(self._group, server, port) for port in ports]
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_answering()
            self._join()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all servers and remove their files. May be called again."""
        if self._group is not None:
            self._group.close()
        self._group = None
        self.nodes = []
        self._moving.clear()

    def spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start another program, such as a proxy, that ends with the cluster at the latest."""
        if self._group is None:
            raise UsageError("the cluster does not run")
        return self._group.spawn(argv, env=env)

    def wait_ready(self, timeout: float = SETTLE_TIMEOUT) -> None:
        """Return when all living nodes see all slots served and agree on owners and replicas."""
        wait_until(self._is_ready, timeout, f"agreement of {self!r}")

    def _choose_ports(self, count: int) -> list[int]:
        if self._base_port is None:
            return free_node_ports(count)
        ports = list(range(self._base_port, self._base_port + count))
        for port in ports:
            check_node_port(port)
        return ports

    def _make_node(self, group: ServerGroup, server: Path, port: int) -> NodeProcess:
        options = {("tls-port" if self._access.tls else "port"): str(port), **self._options}
        argv = [word for name, text in options.items() for word in (f"--{name}", text)]
        return self.node_type(group, server, port, argv, self._access)

    def _join(self) -> None:
        masters = self.nodes[: self._shape[0]]
        for rank, master in enumerate(masters):
            first, end = (SLOTS * r // len(masters) for r in (rank, rank + 1))
            # Different epochs from the start spare the nodes from settling conflicts.
            master.call("CLUSTER", "SET-CONFIG-EPOCH", rank + 1)
            master.call("CLUSTER", "ADDSLOTS", *range(first, end))
        for rank, node in enumerate(self.nodes):
            for other in self.nodes[rank + 1 :]:
                node.call("CLUSTER", "MEET", other.host, other.port)
        for rank, replica in enumerate(self.nodes[len(masters) :]):
            self._replicate(replica, masters[rank % len(masters)])

    def _replicate(self, replica: NodeProcess, master: NodeProcess) -> None:
        def accepted() -> bool:
            try:
                return bool(replica.call("CLUSTER", "REPLICATE", master.node_id) == b"OK")
            except RproxyError as error:
                # It has not been introduced to the master yet.
                if "Unknown node" not in str(error):
                    raise
                return False

        wait_until(accepted, SETTLE_TIMEOUT, f"{replica!r} to know {master!r}")

    def _is_ready(self) -> bool:
        living = [node for node in self.nodes if node.alive]
        try:
            views = [_view(node) for node in living]
            states = {node.port: _state(node) for node in living}
        except (OSError, RproxyError):
            return False
        agreed = all(view == views[0] for view in views)
        return agreed and all(_is_settled(views[0], port, states[port]) for port in states)

    # Growing

    def add_node(self, master_port: int | None = None) -> NodeProcess:
        """Start one more node: a master without slots, or a replica of the node `master_port`."""
        if self._group is None:
            raise UsageError("the cluster does not run")
        top = max(node.port for node in self.nodes) + 1
        if self._base_port is None:
            top = free_node_ports(1)[0]
        check_node_port(top)
        node = self._make_node(self._group, self.server or find_server(), top)
        friend = self._any_living()
        node.start()
        node.wait_answering()
        self.nodes.append(node)
        node.call("CLUSTER", "MEET", friend.host, friend.port)
        if master_port is not None:
            self._replicate(node, self.node(master_port))
        wait_until(lambda: self._all_know(node), SETTLE_TIMEOUT, f"{node!r} to join")
        return node

    def _all_know(self, node: NodeProcess) -> bool:
        return all(
            node.node_id.encode() in other.call("CLUSTER", "NODES")
            for other in self.nodes
            if other.alive
        )

    # Who is who

    def node(self, port: int) -> NodeProcess:
        """The node on this port."""
        for node in self.nodes:
            if node.port == port:
                return node
        raise UsageError(f"no node of this cluster on port {port}")

    def slot_owner(self, slot: int) -> NodeProcess:
        """The node that owns the slot, in the view of the first living node."""
        for first, last, master, *_ in self._any_living().call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.node(master[1])
        raise RproxyError(f"nobody owns slot {slot}")

    def _any_living(self) -> NodeProcess:
        for node in self.nodes:
            if node.alive:
                return node
        raise RproxyError("no node of the cluster runs")

    # Moving slots

    def migrate_slot(self, slot: int, to_port: int) -> int:
        """Move a slot with all its keys to the node on `to_port`; returns the number of keys."""
        self.begin_migration(slot, to_port)
        moved = self.move_keys(slot)
        self.finish_migration(slot)
        return moved

    def begin_migration(self, slot: int, to_port: int) -> None:
        """Mark the slot as on its way; no key moves. The owner answers ASK for a missing key."""
        source, target = self.slot_owner(slot), self.node(to_port)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
        self._moving[slot] = source, target

    def move_keys(self, slot: int, count: int | None = None) -> int:
        """Move up to `count` keys (default: all) of a slot on its way; returns how many moved."""
        source, target = self._moving[slot]
        moved = 0
        while count is None or moved < count:
            most = MIGRATE_BATCH if count is None else min(MIGRATE_BATCH, count - moved)
            keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, most)
            if not keys:
                break
            self._migrate(source, target, keys)
            moved += len(keys)
        return moved

    def _migrate(self, source: NodeProcess, target: NodeProcess, keys: list[bytes]) -> None:
        password = self._access.password
        auth = () if password is None else ("AUTH", password)
        where = target.host, target.port, "", 0, MIGRATE_TIMEOUT
        source.call("MIGRATE", *where, *auth, "KEYS", *keys, timeout=MIGRATE_TIMEOUT / 1000 + 1)

    def finish_migration(self, slot: int) -> None:
        """Give the slot, whose keys have all moved, to its new owner; returns when all know."""
        source, target = self._moving[slot]
        # The new owner takes the next epoch: one who had not heard of the last would take it twice.
        wait_until(self._agree_on_epoch, SETTLE_TIMEOUT, f"agreement of {self!r} on the epoch")
        others = [node for node in self.nodes if node not in (source, target) and node.alive]
        # The new owner first: were it the last, a client would be sent to and fro meanwhile.
        for node in (target, source, *others):
            if node.call("ROLE")[0] == b"master":
                node.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        del self._moving[slot]
        known = f"{target!r} to be known as the owner of slot {slot}"
        wait_until(lambda: self._all_name(slot, target), SETTLE_TIMEOUT, known)

    def _agree_on_epoch(self) -> bool:
        living = [node for node in self.nodes if node.alive]
        return len({_state(node)["cluster_current_epoch"] for node in living}) == 1

    def _all_name(self, slot: int, owner: NodeProcess) -> bool:
        views = (_view(node) for node in self.nodes if node.alive)
        return all(owner.port == _owner_port(view, slot) for view in views)

    # Changing roles

    def failover(self, replica_port: int, timeout: float = SETTLE_TIMEOUT) -> None:
        """Make a replica the master in good order (both alive); returns when all nodes agree."""
        replica = self.node(replica_port)
        state = _state(replica)
        if state["role"] != "slave":
            raise UsageError(f"{replica!r} is no replica")
        master = self.node(int(state["master_port"]))
        # A server that was elected counts the same votes again until it may stand once more, and
        # then takes itself for a master that no other node accepts.
        time.sleep(max(0.0, self._electable.get(replica_port, 0.0) - time.monotonic()))
        replica.call("CLUSTER", "FAILOVER")
        wait_until(lambda: _state(replica)["role"] == "master", timeout, f"{replica!r} to lead")
        wait_until(lambda: _state(master)["role"] == "slave", timeout, f"{master!r} to follow")
        self._electable[replica_port] = time.monotonic() + self._election_interval
        self.wait_ready(timeout)


def _access_options(access: Access) -> dict[str, str]:
    options: dict[str, str] = {}
    if access.password is not None:
        options |= {"requirepass": access.password, "masterauth": access.password}
    if access.tls is not None:
        options |= {
            "port": "0",
            "tls-ca-cert-file": str(access.tls.ca),
            "tls-cert-file": str(access.tls.certificate),
            "tls-key-file": str(access.tls.key),
            "tls-cluster": "yes",
            "tls-replication": "yes",
        }
    return options


def _view(node: NodeProcess) -> dict[tuple[int, int], list[int]]:
    """Slot range -> port of the master, then those of its replicas, as this node sees it."""
    return {
        (first, last): [master[1], *sorted(replica[1] for replica in replicas)]
        for first, last, master, *replicas in node.call("CLUSTER", "SLOTS")
    }


def _owner_port(view: dict[tuple[int, int], list[int]], slot: int) -> int | None:
    return next((ports[0] for (first, last), ports in view.items() if first <= slot <= last), None)


def _state(node: NodeProcess) -> dict[str, str]:
    """What this node says of the cluster and of its own role, by field name."""
    text: bytes = node.call("CLUSTER", "INFO") + node.call("INFO", "replication")
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


def _is_settled(view: dict[tuple[int, int], list[int]], port: int, state: dict[str, str]) -> bool:
    """Whether a node sees all slots served and, as a replica, has the keys and is listed."""
    if state["cluster_state"] != "ok" or state["cluster_slots_ok"] != str(SLOTS):
        return False
    if state["role"] == "master":
        return True
    its_shards = [ports for ports in view.values() if ports[0] == int(state["master_port"])]
    return state["master_link_status"] == "up" and all(port in ports for ports in its_shards)
