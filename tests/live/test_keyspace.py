"""Commands for the whole keyspace, and scripts, through the proxy to a real cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rproxy.demo import LocalCluster
from rproxy.routing.slots import slot_of
from tests.conftest import ClusterMaker
from tests.live.proxies import Proxy, Wire, running
from tests.live.test_changes import other

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])
COUNT = 3000
BODY = b"return {KEYS[1], ARGV[1]}"


@pytest.fixture(scope="module")
def own(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """A cluster that these tests empty."""
    with new_cluster(masters=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture
def keys(front: Proxy) -> list[bytes]:
    """The only keys of the cluster: many, over all nodes."""
    client = front.client()
    client.flushall()
    names = [f"walk:{number}" for number in range(COUNT)]
    client.mset(dict.fromkeys(names, "x"))
    return [name.encode() for name in names]


def walk(wire: Wire, *options: bytes) -> list[bytes]:
    """All keys that SCAN shows."""
    cursor, found = b"0", []
    while True:
        words = wire.ask(b"SCAN", cursor, *options).split(b"\r\n")
        cursor = words[2]
        assert int(cursor) < 1 << 53
        found += words[5::2]
        if cursor == b"0":
            return found


@PROTOCOLS
def test_everything_is_seen(front: Proxy, keys: list[bytes], protocol: int) -> None:
    client = front.client(protocol)
    assert client.dbsize() == COUNT
    assert sorted(client.keys("walk:*")) == sorted(keys)
    assert sorted(client.scan_iter(count=100)) == sorted(keys)
    client.rpush("list", 1)
    assert [*client.scan_iter(match="*is*", count=500)] == [b"list"]
    assert [*client.scan_iter(_type="LIST", count=500)] == [b"list"]
    assert client.flushdb()
    assert client.dbsize() == 0
    assert client.keys() == []
    assert client.scan() == (0, []) or [*client.scan_iter()] == []
    assert client.randomkey() is None


def test_random_keys_are_fair(front: Proxy, own: LocalCluster) -> None:
    """One node has 90 keys, the others together ten: they are not chosen as often as it is."""
    client = front.client()
    client.flushall()
    names = [f"many:{number}" for number in range(1000)]
    home = own.slot_owner(slot_of(b"many:0"))
    at_home = [name for name in names if own.slot_owner(slot_of(name.encode())) is home][:90]
    elsewhere = [name for name in names if name not in at_home][-10:]
    client.mset(dict.fromkeys(at_home + elsewhere, 1))
    drawn = [client.randomkey() for _ in range(300)]
    assert 5 <= sum(name in {word.encode() for word in elsewhere} for name in drawn) <= 90


def test_no_key_is_missed_while_slots_move(
    front: Proxy, own: LocalCluster, keys: list[bytes]
) -> None:
    """Slots come and go under the walks: some moved as a whole, some left half way."""
    over = threading.Event()

    def move() -> int:
        count = 0
        while not over.is_set():
            slot = slot_of(keys[count % 50])
            own.begin_migration(slot, other(own, slot).port)
            own.move_keys(slot, 1)
            own.move_keys(slot)
            own.finish_migration(slot)
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool, front.connect() as wire:
        moved = pool.submit(move)
        try:
            for count in (100, 1000):
                assert {*walk(wire, b"COUNT", b"%d" % count)} >= {*keys}
        finally:
            over.set()
        assert moved.result(60) > 0


def test_keys_of_a_slot_that_stays_half_migrated(
    front: Proxy, own: LocalCluster, keys: list[bytes]
) -> None:
    tagged = [b"{walk:1}%d" % number for number in range(20)]
    front.client().mset(dict.fromkeys(tagged, "x"))
    slot = slot_of(b"walk:1")
    own.begin_migration(slot, other(own, slot).port)
    own.move_keys(slot, 7)
    with front.connect() as wire:
        assert {*walk(wire, b"COUNT", b"100")} == {*keys, *tagged}
        assert {*walk(wire, b"COUNT", b"100", b"MATCH", b"{walk:1}?")} == {*tagged[:10]}
        assert not walk(wire, b"COUNT", b"100", b"TYPE", b"list")
    own.move_keys(slot)
    own.finish_migration(slot)


def test_another_proxy_goes_on_with_a_cursor(own: LocalCluster, keys: list[bytes]) -> None:
    with running(own) as one, running(own) as two, one.connect() as left, two.connect() as right:
        cursor, found, turn = b"0", set(), 0
        while turn == 0 or cursor != b"0":
            wire = (left, right)[turn % 2]
            words = wire.ask(b"SCAN", cursor, b"COUNT", b"50").split(b"\r\n")
            cursor, turn = words[2], turn + 1
            found.update(words[5::2])
        assert found == {*keys}


@PROTOCOLS
def test_scripts(front: Proxy, own: LocalCluster, protocol: int) -> None:
    client = front.client(protocol)
    name = client.script_load(BODY.decode())
    assert client.script_exists(name, "0" * 40) == [True, False]
    for key in ("a", "b", "c"):
        assert client.evalsha(name, 1, key, 7) == [key.encode(), b"7"]
    for node in own.nodes:
        node.call("SCRIPT", "FLUSH")
    with front.connect() as wire:
        for number in range(100):
            wire.send(b"EVALSHA", name.encode(), b"1", b"k%d" % (number % 7), b"%d" % number)
        for number in range(100):
            argument = b"%d" % number
            expected = b"*2\r\n$2\r\nk%d\r\n$%d\r\n%b\r\n" % (number % 7, len(argument), argument)
            assert wire.reply() == expected
        assert wire.ask(b"SCRIPT", b"FLUSH") == b"+OK\r\n"
        assert wire.ask(b"EVALSHA", name.encode(), b"1", b"k", b"1").startswith(b"-NOSCRIPT")
        assert wire.ask(b"EVAL", BODY, b"0").startswith(b"*")
        assert wire.ask(b"SCRIPT", b"KILL").startswith(b"-NOTBUSY")


def test_functions(front: Proxy, own: LocalCluster) -> None:
    with front.connect() as wire:
        if wire.ask(b"FUNCTION", b"LIST").startswith(b"-"):
            pytest.skip("the servers have no functions")
        wire.ask(b"FUNCTION", b"FLUSH")
        code = b"#!lua name=lib\nredis.register_function('first', function(k, a) return k[1] end)"
        assert wire.ask(b"FUNCTION", b"LOAD", code) == b"$3\r\nlib\r\n"
        assert wire.ask(b"FUNCTION", b"LOAD", code) == b"-ERR Library 'lib' already exists\r\n"
        for key in (b"a", b"b", b"c"):
            assert wire.ask(b"FCALL", b"first", b"1", key) == b"$1\r\n%b\r\n" % key
        assert wire.ask(b"FUNCTION", b"DELETE", b"lib") == b"+OK\r\n"
        assert wire.ask(b"FCALL", b"first", b"1", b"a") == b"-ERR Function not found\r\n"
