"""The local cluster and `rproxy demo`: what they start works, and nothing of it stays."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rproxy.demo import SLOTS, LocalCluster
from rproxy.demo_servers import (
    HOST,
    NodeProcess,
    call,
    find_server,
    free_node_ports,
    is_free,
    server_version,
    wait_until,
)
from rproxy.errors import RproxyError, UsageError
from tests.conftest import ClusterMaker

# Generous: what is waited for takes a fraction of it unless the machine is overloaded.
PATIENCE = 30.0


@pytest.fixture(scope="module")
def own(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """A cluster that these tests may change, but leave complete."""
    with new_cluster(masters=3, replicas=1) as cluster:
        yield cluster


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def other_than(cluster: LocalCluster, owner: NodeProcess) -> NodeProcess:
    """Another master than this one."""
    masters = {cluster.slot_owner(slot).port for slot in (0, SLOTS // 2, SLOTS - 1)}
    return cluster.node(min(masters - {owner.port}))


# What a started cluster is


def test_every_slot_has_an_owner_and_every_master_a_replica(cluster: LocalCluster) -> None:
    ranges = cluster.nodes[-1].call("CLUSTER", "SLOTS")
    assert sum(last - first + 1 for first, last, *_ in ranges) == SLOTS
    assert [len(nodes) for _, _, *nodes in ranges] == [2, 2, 2]
    assert {node[1] for _, _, *nodes in ranges for node in nodes} == {
        node.port for node in cluster.nodes
    }


def test_binary_keys_live_on_their_owner(cluster: LocalCluster) -> None:
    for key in (b"plain", b"\x00\r\n\xff", b"{tag\xfe}1", b""):
        owner = cluster.slot_owner(cluster.nodes[0].call("CLUSTER", "KEYSLOT", key))
        assert owner.call("SET", key, b"\r\n\x00") == b"OK"
        assert owner.call("GET", key) == b"\r\n\x00"
        owner.call("DEL", key)


def test_error_replies_are_raised(cluster: LocalCluster) -> None:
    with pytest.raises(RproxyError, match="unknown command"):
        cluster.nodes[0].call("NOSUCHCOMMAND")


# Moving slots and changing roles


def test_half_migrated_slot(own: LocalCluster) -> None:
    slot = own.nodes[0].call("CLUSTER", "KEYSLOT", "{half}")
    owner = own.slot_owner(slot)
    target = other_than(own, owner)
    keys = [b"{half}\xff%d" % number for number in range(250)]
    for key in keys:
        owner.call("SET", key, key)

    own.begin_migration(slot, target.port)
    assert own.move_keys(slot, 130) == 130
    assert owner.call("CLUSTER", "COUNTKEYSINSLOT", slot) == 120
    with pytest.raises(RproxyError, match=f"ASK {slot}"):
        owner.call("GET", "{half}missing")

    assert own.move_keys(slot) == 120
    own.finish_migration(slot)
    own.wait_ready()
    assert own.slot_owner(slot) is target
    assert [target.call("GET", key) for key in keys] == keys
    with pytest.raises(RproxyError, match=f"MOVED {slot}"):
        owner.call("GET", "{half}missing")

    assert own.migrate_slot(slot, owner.port) == 250
    own.wait_ready()
    assert own.slot_owner(slot) is owner


def test_many_moves_in_quick_succession(own: LocalCluster) -> None:
    """Each is known to all nodes when the next begins, and none is taken back later."""
    first = own.nodes[: len(own.nodes) // 2]
    homes = {slot: own.slot_owner(slot) for slot in range(0, SLOTS, SLOTS // 10)}
    moved = {slot: first[(first.index(home) + 1) % len(first)] for slot, home in homes.items()}
    for owners in (moved, homes):
        for slot, owner in owners.items():
            own.migrate_slot(slot, owner.port)
        own.wait_ready()
        assert {slot: own.slot_owner(slot) for slot in owners} == owners


def test_ordered_failover_and_back(own: LocalCluster) -> None:
    master, replica = own.nodes[0], own.nodes[3]
    own.failover(replica.port)
    assert own.slot_owner(0) is replica
    assert master.call("ROLE")[0] == b"slave"
    own.failover(master.port)
    assert own.slot_owner(0) is master
    with pytest.raises(UsageError, match="is no replica"):
        own.failover(master.port)


def test_node_can_be_added(own: LocalCluster) -> None:
    added = own.add_node(master_port=own.nodes[1].port)
    own.wait_ready()
    assert added.call("ROLE")[0] == b"slave"
    assert len(own.addresses) == 7


def test_node_freezes_thaws_and_restarts(own: LocalCluster) -> None:
    replica = own.nodes[4]
    replica.freeze()
    with pytest.raises(TimeoutError):
        replica.call("PING", timeout=0.2)
    assert replica.alive
    replica.thaw()
    assert replica.call("PING") == b"PONG"
    name = replica.node_id
    replica.kill()
    assert not replica.alive
    replica.restart()
    own.wait_ready()
    assert replica.call("CLUSTER", "MYID").decode() == name


# Starting and ending


@pytest.fixture
def processes(new_cluster: ClusterMaker, request: pytest.FixtureRequest) -> ClusterMaker:
    """new_cluster, where the nodes are processes."""
    if request.config.getoption("backend") != "process":
        pytest.skip("looks at processes")
    return new_cluster


def test_stop_leaves_nothing(processes: ClusterMaker, tmp_path: Path) -> None:
    cluster = processes(replicas=0, directory=tmp_path)
    cluster.start()
    pids = [node.pid for node in cluster.nodes]
    ports = [node.port for node in cluster.nodes]
    cluster.nodes[0].freeze()
    assert list(tmp_path.iterdir())
    cluster.stop()
    cluster.stop()
    assert not any(map(exists, pids))
    assert not list(tmp_path.iterdir())
    assert all(map(is_free, ports))


def test_password(processes: ClusterMaker) -> None:
    with processes(replicas=1, password="s3cret") as cluster:
        with pytest.raises(RproxyError, match="NOAUTH"):
            call(HOST, cluster.nodes[0].port, "GET", "key")
        slot = 866
        owner = cluster.slot_owner(slot)
        assert cluster.migrate_slot(slot, other_than(cluster, owner).port) == 0


@pytest.mark.parametrize("shift", [0, 10_000], ids=["port", "bus port"])
def test_taken_port_is_a_clear_error(processes: ClusterMaker, tmp_path: Path, shift: int) -> None:
    base = free_node_ports(3)[0]
    taken = base + 1 + shift
    cluster = processes(replicas=0, base_port=base, directory=tmp_path)
    refused = pytest.raises(UsageError, match=f"port {taken} .*is taken")
    with socket.create_server((HOST, taken)), refused:
        cluster.start()
    assert not list(tmp_path.iterdir())


def test_port_without_room_for_the_bus_is_refused(processes: ClusterMaker) -> None:
    with pytest.raises(UsageError, match="bus port"):
        processes(base_port=60_000).start()


def test_server_that_refuses_its_options_is_a_clear_error(
    processes: ClusterMaker, tmp_path: Path
) -> None:
    broken = processes(options={"no-such-option": "1"}, directory=tmp_path)
    with pytest.raises(RproxyError, match="no-such-option"):
        broken.start()
    assert not broken.nodes
    assert not list(tmp_path.iterdir())


def test_interrupted_start_leaves_nothing(
    processes: ClusterMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    start = NodeProcess.start

    def start_two(node: NodeProcess) -> None:
        if len(started) == 2:
            raise KeyboardInterrupt
        start(node)
        started.append(node.pid)

    monkeypatch.setattr(NodeProcess, "start", start_two)
    with pytest.raises(KeyboardInterrupt):
        processes(directory=tmp_path).start()
    assert len(started) == 2
    assert not any(map(exists, started))
    assert not list(tmp_path.iterdir())


KILLED_PARENT = """
import sys
from pathlib import Path
from rproxy.demo import LocalCluster
cluster = LocalCluster(3, 0, directory=Path(sys.argv[1]))
cluster.start()
print(*[node.pid for node in cluster.nodes], flush=True)
sys.stdin.read()
"""


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_PARENT, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        parent.kill()
    wait_until(lambda: not any(map(exists, pids)), PATIENCE, "the servers to end")
    wait_until(lambda: not list(tmp_path.iterdir()), PATIENCE, "the directory to go")


def test_server_program_says_its_version() -> None:
    assert server_version(find_server())[0].isdigit()
    with pytest.raises(UsageError, match="does not run"):
        server_version(Path("/nonexistent/redis-server"))


# The command


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `rproxy demo` with more arguments; its temporary files go to tmp_path."""
    running: list[subprocess.Popen[str]] = []

    def run(*args: str | int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rproxy", "demo", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """What the process has printed by the time the word is in it."""
    assert process.stdout is not None
    printed = b""
    while word.encode() not in printed:
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        # From the descriptor: select does not see what a buffer holds.
        more = os.read(process.stdout.fileno(), 65536) if ready else b""
        assert more, f"no {word!r} in {printed!r}"
        printed += more
    return printed.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_serves_until_told_to_stop(
    demo: Callable[..., subprocess.Popen[str]],
    free_port: Callable[[], int],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    port = free_port()
    process = demo("--port", port, "--replicas", 0)
    assert f"redis-cli -p {port} set hello world" in read_until(process, "Ctrl-C")
    for key in ("hello", "user:1", "user:2"):
        assert call(HOST, port, "SET", key, "world") == b"OK"
        assert call(HOST, port, "GET", key) == b"world"
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert is_free(port)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_stopped_while_starting_leaves_nothing(
    demo: Callable[..., subprocess.Popen[str]],
    free_port: Callable[[], int],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    process = demo("--port", free_port())
    read_until(process, "Starting")
    wait_until(lambda: bool(list(tmp_path.iterdir())), PATIENCE, "the cluster's directory")
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert not list(tmp_path.iterdir())


def test_demo_stopped_at_once_leaves_nothing(
    demo: Callable[..., subprocess.Popen[str]], free_port: Callable[[], int], tmp_path: Path
) -> None:
    process = demo("--port", free_port())
    process.terminate()
    # Either the interpreter was still starting, or rproxy ended in its own way.
    assert process.wait(PATIENCE) in (-signal.SIGTERM, 0)
    assert not list(tmp_path.iterdir())


def test_demo_on_a_taken_port_is_one_line(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        process = demo("--port", taken.getsockname()[1])
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output.startswith("Error: port ")
    assert output.count("\n") == 1
    assert "--port" in output
    assert not list(tmp_path.iterdir())
