"""CLUSTER with and without the emulation."""

from __future__ import annotations

import pytest

from rproxy.upstream.cluster import parse_reply
from tests.fakes import FakeProxy

DISABLED = b"-ERR This instance has cluster support disabled\r\n"
SLOT_OF_FOO = b"12182"


@pytest.mark.parametrize("sub", ["SLOTS", "SHARDS", "NODES", "INFO", "MYID", "HELP", "NONSENSE"])
def test_by_default_there_is_no_cluster(sub: str) -> None:
    assert FakeProxy().client().ask(b"CLUSTER", sub.encode()) == DISABLED


def test_one_node_owns_all_slots_at_the_address_that_the_client_reached() -> None:
    client = FakeProxy(cluster_emulation=True).client()
    node = parse_reply(client.ask(b"CLUSTER", b"MYID"))
    assert len(node) == 40
    assert parse_reply(client.ask(b"CLUSTER", b"SLOTS")) == [
        [0, 16383, [b"127.0.0.1", 6379, node, []]]
    ]
    line = parse_reply(client.ask(b"CLUSTER", b"NODES")).decode()
    expected = f"{node.decode()} 127.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-16383\n"
    assert line == expected
    assert b"cluster_state:ok\r\n" in client.ask(b"CLUSTER", b"INFO")
    assert client.ask(b"CLUSTER", b"LINKS") == b"*0\r\n"
    assert client.ask(b"CLUSTER", b"REPLICAS", node) == b"*0\r\n"
    assert client.ask(b"CLUSTER", b"REPLICAS", b"x") == b"-ERR Unknown node x\r\n"


def test_shards_are_maps_for_resp3() -> None:
    client = FakeProxy(cluster_emulation=True).client()
    client.identity.local_address = "[::1]:7000"
    client.ask(b"HELLO", b"3")
    (shard,) = parse_reply(client.ask(b"CLUSTER", b"SHARDS"))
    assert shard[b"slots"] == [0, 16383]
    (node,) = shard[b"nodes"]
    assert (node[b"ip"], node[b"port"], node[b"health"]) == (b"::1", 7000, b"online")


@pytest.mark.parametrize("words", [["COUNTKEYSINSLOT"], ["GETKEYSINSLOT", "10"]])
def test_a_slot_s_owner_is_asked_for_its_keys(words: list[str]) -> None:
    proxy = FakeProxy(cluster_emulation=True)
    sub, *rest = (word.encode() for word in words)
    proxy.client().say(b"CLUSTER", sub, SLOT_OF_FOO, *rest)
    sent = [proxy.cluster.sent(index) for index in range(3)]
    assert sent == [[], [], [[b"CLUSTER", sub, SLOT_OF_FOO, *rest]]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("COUNTKEYSINSLOT 16384", "ERR Invalid slot"),
        ("COUNTKEYSINSLOT -1", "ERR Invalid slot"),
        ("COUNTKEYSINSLOT x", "ERR value is not an integer or out of range"),
        ("NONSENSE", "ERR unknown subcommand 'NONSENSE'. Try CLUSTER HELP."),
        (
            "RESET",
            "ERR rproxy does not serve 'cluster reset' yet: "
            "it changes or describes one node: send it to that node",
        ),
    ],
)
def test_mistakes_and_administration(words: str, expected: str) -> None:
    client = FakeProxy(cluster_emulation=True).client()
    assert client.ask(b"CLUSTER", *words.encode().split()) == f"-{expected}\r\n".encode()
