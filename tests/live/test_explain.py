"""PROXY in front of a real cluster: the nodes that it names are those that serve the keys."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from rproxy.routing.slots import slot_of
from rproxy.upstream.cluster import parse_reply
from tests.live.proxies import Proxy, running


def told(client: Any, *words: str) -> dict[str, Any]:
    """What PROXY says, as a map; clients of RESP2 get its names and values in turn."""
    found: Any = client.execute_command("PROXY", *words)
    pairs = found.items() if isinstance(found, dict) else zip(*[iter(found)] * 2, strict=True)
    return {
        name.decode(): value.decode() if isinstance(value, bytes) else value
        for name, value in pairs
    }


@pytest.mark.parametrize("protocol", [2, 3])
def test_named_node_has_the_key(proxy: Proxy, cluster: LocalCluster, protocol: int) -> None:
    with proxy.client(protocol) as client:
        client.set("explained", "1")
        (row,) = told(client, "EXPLAIN", "GET", "explained")["slots"]
        slot, node, state = row
        assert (slot, state) == (slot_of(b"explained"), b"open")
        host, _, port = node.decode().rpartition(":")
        with redis.Redis(host, int(port)) as direct:
            assert direct.get("explained") == b"1"


@pytest.mark.parametrize("protocol", [2, 3])
def test_nothing_is_executed(proxy: Proxy, protocol: int) -> None:
    with proxy.client(protocol) as client:
        client.set("kept", "1")
        for words in ("DEL kept", "FLUSHALL", "SET kept 2", "QUIT", "MULTI", "SUBSCRIBE x"):
            assert told(client, "EXPLAIN", *words.split())["command"] == words.split()[0].lower()
        assert client.get("kept") == b"1"


def test_commands_of_the_servers_table(proxy: Proxy) -> None:
    with proxy.client() as client:
        known = {entry.decode() for entry, *_ in wire_commands(proxy)}
        wait_until(lambda: known <= set(told(client, "COMMANDS")), 10.0, "the table to be learnt")
        words = told(client, "COMMANDS")
        assert (words["get"], words["dbsize"], words["del"]) == ("slot", "masters", "split")


def wire_commands(proxy: Proxy) -> list[Any]:
    """COMMAND's reply, as the servers give it."""
    with proxy.connect() as wire:
        found = parse_reply(wire.ask(b"COMMAND"))
        assert isinstance(found, list)
        return found


def test_unknown_command(proxy: Proxy) -> None:
    with proxy.client() as client:
        assert told(client, "EXPLAIN", "NOSUCHCOMMAND", "x")["treatment"] == "unknown"
        with pytest.raises(redis.ResponseError, match="unknown command 'nosuchcommand'"):
            told(client, "COMMANDS", "nosuchcommand")


def test_pinned_keys(cluster: LocalCluster) -> None:
    with running(cluster, config='[[pin]]\nprefix = "q:"\n') as proxy, proxy.client() as client:
        about = told(client, "EXPLAIN", "RENAME", "q:1", "q:2")
        slot = slot_of(b"{q:}")
        assert (about["treatment"], about["keys"]) == ("slot", [[b"q:1", slot], [b"q:2", slot]])


def test_help(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        assert wire.ask(b"PROXY", b"HELP").startswith(b"*7\r\n+PROXY <subcommand>")
