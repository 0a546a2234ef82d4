"""MONITOR: the lines of all masters, for as long as the client wants them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from tests.live.proxies import Proxy, Wire

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])


def lines_until(wire: Wire, wanted: Callable[[list[bytes]], bool]) -> list[bytes]:
    """The lines that a monitor sees until they are as wanted."""
    lines: list[bytes] = []
    while not wanted(lines):
        lines.append(wire.reply())
    return lines


@PROTOCOLS
def test_monitor_sees_all_masters(proxy: Proxy, protocol: int) -> None:
    client = proxy.client()
    names = [b"seen:%d:%d" % (protocol, number) for number in range(9)]
    with proxy.connect() as wire:
        wire.ask(b"HELLO", b"%d" % protocol)
        assert wire.ask(b"MONITOR") == b"+OK\r\n"
        wire.send(b"MONITOR")
        for name in names:
            client.set(name, "1")
        lines = lines_until(wire, lambda lines: all(any(n in x for x in lines) for n in names))
        assert all(line.startswith(b"+") and b" [0 " in line for line in lines)
        assert sum(b'"SET"' in line and names[0] in line for line in lines) == 1


def test_monitor_ends(cluster: LocalCluster, proxy: Proxy) -> None:
    """With RESET and with the connection; until then keys are out of bounds, as in Redis."""
    refused = b"-ERR Replica can't interact with the keyspace\r\n"
    with proxy.connect() as wire, proxy.connect() as other, proxy.connect() as asking:
        assert [w.ask(b"MONITOR") for w in (wire, other)] == [b"+OK\r\n"] * 2
        wire.send(b"GET", b"a")
        assert refused in lines_until(wire, lambda lines: refused in lines)
        assert b" flags=O " in asking.ask(b"CLIENT", b"LIST")
        wire.send(b"RESET")
        lines_until(wire, lambda lines: b"+RESET\r\n" in lines)
        assert wire.ask(b"GET", b"monitor:none") == b"$-1\r\n"
    monitors = "flags=O"
    wait_until(
        lambda: not any(monitors in node.call("CLIENT", "LIST").decode() for node in cluster.nodes),
        PATIENCE,
        "the end of the feeds",
    )
