"""Server commands, access rules and the emulated cluster, in front of real nodes.

What must differ from a plain server (counters, times, names of processes) is compared by shape or
by what it adds up to; tests/live/test_differential.py compares the rest, word for word.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from rproxy.demo import LocalCluster
from rproxy.demo_servers import HOST
from tests.conftest import ClusterMaker
from tests.live.plain import Plain, is_modern, plain_server
from tests.live.proxies import Proxy, running

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])


def client_of(plain: Plain, protocol: int = 2) -> redis.Redis:
    """A redis-py client of the plain server."""
    return redis.Redis(host=HOST, port=plain.port, protocol=protocol)


def titles_and_fields(text: bytes) -> list[str]:
    """INFO's section titles and field names, without what depends on what was done before."""
    names = [line.partition(":")[0] for line in text.decode().splitlines() if line]
    return [name for name in names if not name.startswith(("cmdstat_", "latency_p", "errorstat_"))]


def raw_info(client: Any, *sections: str) -> bytes:
    """INFO's text, not parsed."""
    client.set_response_callback("INFO", lambda reply, **options: reply)
    return bytes(client.execute_command("INFO", *sections))


# -- INFO --


@PROTOCOLS
def test_info_has_the_shape_of_one_server(proxy: Proxy, plain: Plain, protocol: int) -> None:
    with proxy.client(protocol) as ours, client_of(plain, protocol) as theirs:
        for client in (ours, theirs):
            client.flushall()
            client.set("k", "v", ex=100)
        found = titles_and_fields(raw_info(ours, "all"))
        assert "# Proxy" in found
        assert found[: found.index("# Proxy")] == titles_and_fields(raw_info(theirs, "all"))
        for section in ("server", "keyspace", "Clients", "nosuch"):
            assert titles_and_fields(raw_info(ours, section)) == titles_and_fields(
                raw_info(theirs, section)
            )


@PROTOCOLS
def test_info_tells_what_all_nodes_have(proxy: Proxy, protocol: int) -> None:
    with proxy.client(protocol) as client:
        client.flushall()
        for number in range(100):
            client.set(f"k{number}", "v", ex=1000 if number < 40 else None)
        found = client.info("everything")
    assert found["redis_mode"] == "standalone"
    assert found["role"] == "master"
    assert found["cluster_enabled"] == 0
    assert found["tcp_port"] == proxy.port
    assert "slave0" not in found
    assert (found["db0"]["keys"], found["db0"]["expires"]) == (100, 40)
    assert found["slots_covered"] == 16384
    assert found["cmdstat_set"]["calls"] >= 100


# -- CONFIG, ROLE and the like --


@PROTOCOLS
def test_config_get(proxy: Proxy, plain: Plain, protocol: int) -> None:
    with proxy.client(protocol) as ours, client_of(plain, protocol) as theirs:
        found, expected = ours.config_get("*"), theirs.config_get("*")
        assert found.keys() == expected.keys()
        assert found["databases"] == "1"
        assert found["cluster-enabled"] == expected["cluster-enabled"] == "no"
        assert found["port"] == str(proxy.port)


SHAPED = ("ROLE", "MEMORY STATS", "MEMORY USAGE k", "SLOWLOG LEN", "LASTSAVE", "LATENCY RESET")


@PROTOCOLS
def test_replies_of_the_same_shape(proxy: Proxy, plain: Plain, protocol: int) -> None:
    with proxy.client(protocol) as ours, client_of(plain, protocol) as theirs:
        for client in (ours, theirs):
            client.flushall()
            client.set("k", "v")
        for words in SHAPED:
            found, expected = ours.execute_command(words), theirs.execute_command(words)
            assert shape(found) == shape(expected), words


def shape(value: Any) -> Any:
    """The names in a reply, and the types of all else."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return value if isinstance(value, bytes) and value[:1].isalpha() else type(value)


@PROTOCOLS
def test_slowlog_of_all_nodes(proxy: Proxy, cluster: LocalCluster, protocol: int) -> None:
    for node in cluster.nodes:
        node.call("CONFIG", "SET", "slowlog-log-slower-than", "0")
    try:
        with proxy.client(protocol) as client:
            client.slowlog_reset()
            for number in range(12):
                client.get(f"slow{number}")
            entries = client.slowlog_get(-1)
            slow = {entry["command"] for entry in entries}
            assert {b"GET slow%d" % number for number in range(12)} <= slow
            times = [entry["start_time"] for entry in entries]
            assert times == sorted(times, reverse=True)
            assert len({entry["id"] for entry in entries}) == len(entries)
            assert len(client.slowlog_get(3)) == 3
            assert client.slowlog_len() >= 12
    finally:
        for node in cluster.nodes:
            node.call("CONFIG", "SET", "slowlog-log-slower-than", "10000")


# -- administration --


@pytest.mark.parametrize(
    "words",
    [
        "CONFIG SET maxmemory 1",
        "CONFIG RESETSTAT",
        "SAVE",
        "ACL LIST",
        "ACL SETUSER x",
        "FAILOVER",
        "DEBUG SLEEP 0",
        "SHUTDOWN",
        "REPLICAOF NO ONE",
        "MODULE LOAD x",
        "PFSELFTEST",
        "BGSAVE",
    ],
)
def test_administration_is_refused(proxy: Proxy, words: str) -> None:
    with proxy.client() as client, pytest.raises(ResponseError, match=r"rproxy (refuses|does not)"):
        client.execute_command(*words.split())


def debug_options(server: Path) -> list[str]:
    """What lets a server take DEBUG: it always did before 7.0."""
    return ["--enable-debug-command", "yes"] if is_modern(server) else []


@pytest.fixture(scope="module")
def open_cluster(new_cluster: ClusterMaker, program: Path) -> Iterator[LocalCluster]:
    """Nodes that take DEBUG."""
    words = debug_options(program)
    options = {words[0].removeprefix("--"): words[1]} if words else {}
    with new_cluster(masters=3, replicas=0, options=options) as started:
        yield started


@pytest.fixture(scope="module")
def admin(open_cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy that allows administration."""
    with running(open_cluster, config='admin_commands = "allow"\n') as started:
        yield started


@PROTOCOLS
def test_allowed_administration_reaches_every_node(
    admin: Proxy, open_cluster: LocalCluster, protocol: int
) -> None:
    with admin.client(protocol) as client:
        assert client.config_set("hz", 20 + protocol)
        for node in open_cluster.nodes:
            assert node.call("CONFIG", "GET", "hz")[1] == b"%d" % (20 + protocol)
        client.set("k", "v")
        assert client.config_resetstat()
        assert client.info("stats")["total_commands_processed"] < 20
        assert "embstr" in str(client.debug_object("k"))
        assert client.execute_command("ACL", "SETUSER", "someone", "on", "nopass")
        for node in open_cluster.nodes:
            assert b"someone" in node.call("ACL", "USERS")
        assert client.execute_command("ACL", "DELUSER", "someone") == 1


def test_replication_and_databases_as_a_server_of_a_cluster(admin: Proxy) -> None:
    with admin.client() as client:
        for words, text in {
            "REPLICAOF NO ONE": "REPLICAOF not allowed in cluster mode",
            "FAILOVER": "FAILOVER not allowed in cluster mode",
            "SWAPDB 0 1": "SWAPDB is not allowed in cluster mode",
            "SELECT 1": "SELECT is not allowed in cluster mode",
            "SHUTDOWN": "does not serve 'shutdown'",
        }.items():
            with pytest.raises(ResponseError, match=text):
                client.execute_command(*words.split())


def test_the_digest_is_the_one_of_a_single_server(admin: Proxy, program: Path) -> None:
    def fill(client: Any, count: int) -> bytes:
        client.flushall()
        for number in range(count):
            client.set(f"key{number}", number)
            client.rpush(f"list{number}", *range(number + 1))
        return bytes(client.execute_command("DEBUG", "DIGEST"))

    with (
        plain_server(program, *debug_options(program)) as plain,
        client_of(plain) as one,
        admin.client() as other,
    ):
        for count in (0, 1, 2, 50):
            assert fill(one, count) == fill(other, count)


# -- access rules --

RULES = """
deny = ["keys", "config|get", "mget"]
rename = { flushall = "my-flushall", get = "fetch", del = "remove", dbsize = "" }
"""


@PROTOCOLS
def test_denied_and_renamed(cluster: LocalCluster, protocol: int) -> None:
    with running(cluster, config=RULES) as proxy, proxy.client(protocol) as client:
        ask = client.execute_command
        for words in ("KEYS *", "CONFIG GET x", "MGET a b"):
            with pytest.raises(NoPermissionError, match="no permissions to run the '"):
                ask(*words.split())
        for words in ("FLUSHALL", "GET a", "DBSIZE"):
            with pytest.raises(ResponseError, match="unknown command '"):
                ask(*words.split())
        keys = [f"key{number}" for number in range(50)]
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.set(key, key)
                pipe.execute_command("FETCH", key)
            assert pipe.execute()[1::2] == [key.encode() for key in keys]
        assert ask("Remove", *keys) == 50
        assert ask("MY-FLUSHALL") in (True, b"OK")


def test_a_mistaken_name_is_told(cluster: LocalCluster) -> None:
    with running(cluster, config='deny = ["kyes"]\n') as proxy, proxy.client() as client:
        client.ping()
        deadline = time.monotonic() + 10.0
        while "'kyes'" not in proxy.text() and time.monotonic() < deadline:
            client.get("a")
        assert "'kyes'" in proxy.text()


# -- a cluster of one node --


@PROTOCOLS
def test_a_cluster_client(cluster: LocalCluster, protocol: int) -> None:
    with running(cluster, config="cluster_emulation = true\n") as proxy:
        client: Any = redis.RedisCluster(host=HOST, port=proxy.port, protocol=protocol)
        (node,) = client.get_nodes()
        assert (node.host, node.port, node.server_type) == (HOST, proxy.port, "primary")
        client.flushall()
        for number in range(100):
            assert client.set(f"key{number}", number)
        assert client.get("key7") == b"7"
        assert client.mset({"{t}a": 1, "{t}b": 2})
        assert client.dbsize() == 102
        slot = client.keyslot("key7")
        assert client.cluster_countkeysinslot(slot) >= 1
        assert {"key7", b"key7"} & set(client.cluster_get_keys_in_slot(slot, 100))
        with client.pipeline() as pipe:
            assert pipe.get("key1").get("key2").execute() == [b"1", b"2"]
        (line,) = client.cluster_nodes().values()
        assert line["slots"] == [["0", "16383"]]
        assert client.cluster_info(redis.RedisCluster.RANDOM)["cluster_state"] == "ok"
        client.close()


# -- CLIENT PAUSE --


@PROTOCOLS
def test_a_pause_of_writes_holds_them_and_no_reads(proxy: Proxy, protocol: int) -> None:
    with proxy.client(protocol) as client, proxy.client(protocol) as writer:
        client.set("paused", "old")
        assert client.client_pause(60_000, all=False)
        held = threading.Thread(target=writer.set, args=("paused", "new"))
        held.start()
        try:
            assert client.get("paused") == b"old"
        finally:
            assert client.client_unpause()
            held.join(20.0)
        assert not held.is_alive()
        assert client.get("paused") == b"new"


def test_a_pause_of_everything_ends_by_itself(proxy: Proxy) -> None:
    with proxy.client() as client:
        begun = time.monotonic()
        assert client.client_pause(300)
        assert client.ping()
        assert time.monotonic() - begun >= 0.29


# -- several workers --


@pytest.fixture(scope="module")
def workers(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy of three workers."""
    with running(cluster, "--workers", "3") as started:
        yield started


def spread_clients(proxy: Proxy, name: str) -> list[redis.Redis]:
    """Twenty clients that are named: some with each worker."""
    clients = [proxy.client(client_name=f"{name}{number}") for number in range(20)]
    workers = {client.client_id() >> 32 for client in clients}
    assert len(workers) > 1, "all clients have come to one worker"
    return clients


@PROTOCOLS
def test_client_list_and_kill_know_the_clients_of_all_workers(
    workers: Proxy, protocol: int
) -> None:
    clients = spread_clients(workers, "many")
    with workers.client(protocol) as asker:
        listed = {line["name"]: line for line in asker.client_list()}
        assert {f"many{number}" for number in range(20)} <= listed.keys()
        assert asker.info()["connected_clients"] == 21
        ids = [int(line["id"]) for line in asker.client_list()]
        assert ids == sorted(ids)
        for number in range(10):
            assert asker.client_kill_filter(_id=listed[f"many{number}"]["id"]) == 1
        for number in range(10, 20):
            assert asker.client_kill(listed[f"many{number}"]["addr"])
        assert asker.client_kill_filter(_id="999999999999999") == 0
        with pytest.raises(ResponseError, match="No such client"):
            asker.client_kill("127.0.0.1:1")
        left = {line["name"] for line in asker.client_list()}
        assert not left & listed.keys() - {""}
    for client in clients:
        client.close()


def test_a_pause_is_for_the_clients_of_all_workers(workers: Proxy) -> None:
    clients = spread_clients(workers, "paused")
    with workers.client() as asker:
        assert asker.client_pause(400)
        begun = time.monotonic()
        for client in clients:
            client.ping()
            assert time.monotonic() - begun >= 0.35
    for client in clients:
        client.close()
