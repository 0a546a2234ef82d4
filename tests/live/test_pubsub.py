"""Pub/Sub as a plain server has it: the same conversations with both, and what only a proxy can do.

What becomes of subscriptions when the cluster changes is in test_pubsub_changes.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import wait_until
from rproxy.wire.frames import pack
from tests.live.plain import Plain
from tests.live.proxies import Proxy, Wire, running

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])
MIB = 1 << 20


# -- the same conversation with a plain server --


CONVERSATIONS: dict[str, list[str]] = {
    "RESP2": [
        *["SUBSCRIBE a b a", "GET x", "CONFIG GET x", "NoSuch", "GET", "PING", "PING x"],
        *["PING x y", "PSUBSCRIBE p*", "SSUBSCRIBE s", "HELLO 3", "CLIENT LIST", "PUBLISH a 1"],
        *["UNSUBSCRIBE z", "UNSUBSCRIBE b", "UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"],
        *["GET x", "SUNSUBSCRIBE", "GET x", "UNSUBSCRIBE", "PUNSUBSCRIBE x", "SUNSUBSCRIBE"],
    ],
    "RESP3": [
        *["HELLO 3", "SUBSCRIBE a", "GET x", "PING", "PSUBSCRIBE p* p?", "SSUBSCRIBE {s}1 {s}2"],
        *["UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE p*", "SUNSUBSCRIBE {s}2 {s}3"],
        *["SUNSUBSCRIBE", "PUNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"],
    ],
    "versions": ["HELLO 3", "SUBSCRIBE b", "HELLO 2", "GET x", "PING", "RESET", "GET x", "PING"],
    "reset": ["SUBSCRIBE b", "PSUBSCRIBE b*", "RESET", "PUBLISH b 1", "SUBSCRIBE c"],
    "muted": ["CLIENT REPLY OFF|SUBSCRIBE a|PING|PUBLISH a x|UNSUBSCRIBE|CLIENT REPLY ON"],
    "skipped": ["CLIENT REPLY SKIP|SUBSCRIBE q", "CLIENT REPLY ON", "RESET"],
    "pipelined": ["SUBSCRIBE a|PING|UNSUBSCRIBE a|SET x 1|GET x|SUBSCRIBE b|GET x|UNSUBSCRIBE"],
    "behind a reply": ["HELLO 3", "SET y 1|GET y|SUBSCRIBE a|GET y|UNSUBSCRIBE a|DEL y"],
    "own messages": [
        *["HELLO 3", "SUBSCRIBE a", "PUBLISH a self", "PSUBSCRIBE a*", "PUBLISH a self"],
        *["PUBLISH ab self", "PUBLISH b none", "SSUBSCRIBE a", "SPUBLISH a self"],
        *["UNSUBSCRIBE", "PUBLISH a self", "PUNSUBSCRIBE", "PUBLISH a self", "SPUBLISH a 2"],
    ],
    "PUBSUB": [
        *["PUBSUB NUMSUB", "PUBSUB NUMSUB a b", "PUBSUB CHANNELS", "PUBSUB CHANNELS a b"],
        *["PUBSUB NUMPAT", "PUBSUB NUMPAT x", "PUBSUB Foo", "PUBSUB", "PUBSUB SHARDNUMSUB a"],
        *["PUBSUB SHARDCHANNELS", "PUBSUB SHARDCHANNELS a b", "PUBSUB HELP", "HELLO 3"],
        *["SUBSCRIBE abc", "PUBSUB CHANNELS", "PUBSUB CHANNELS b*", "PUBSUB CHANNELS a[^x]?"],
        *["PUBSUB NUMSUB abc b abc", "PSUBSCRIBE x* *", "PUBSUB NUMPAT", "SSUBSCRIBE a"],
        *["PUBSUB SHARDCHANNELS", "PUBSUB SHARDNUMSUB a b", "PUBSUB NUMSUB a", "UNSUBSCRIBE"],
        *["PUBSUB CHANNELS", "PUBSUB NUMSUB abc", "PUNSUBSCRIBE *", "PUBSUB NUMPAT"],
        *["SUNSUBSCRIBE", "PUBSUB SHARDCHANNELS"],
    ],
    "no arguments": ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH a", "SPUBLISH", "MONITOR x"],
    "odd names": ['SUBSCRIBE "" "\\x00\\r\\n" "é"', "PING", 'UNSUBSCRIBE ""'],
}
"""Lines of inline commands; those with a bar between them are sent as one pipeline."""


def hold(port: int, lines: list[str]) -> list[bytes]:
    """What the server there replies, without what tells the two apart (HELLO's reply)."""
    wire, heard = Wire(port), []
    with wire:
        for number, line in enumerate(lines):
            mark = b"mark %d" % number
            wire.raw(b"".join(c.encode() + b"\r\n" for c in line.split("|")))
            wire.send(b"PING", mark)
            while mark not in (frame := wire.reply()):
                heard.append(frame)
    return [frame for frame in heard if b"standalone" not in frame]


@pytest.mark.usefixtures("modern")
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_same_conversation(proxy: Proxy, plain: Plain, name: str) -> None:
    assert hold(proxy.port, CONVERSATIONS[name]) == hold(plain.port, CONVERSATIONS[name])


def test_shard_channels_of_several_slots(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        assert wire.ask(b"SSUBSCRIBE", b"a", b"b").startswith(b"-CROSSSLOT")
        assert wire.ask(b"PING") == b"+PONG\r\n"


@PROTOCOLS
def test_several_clients_are_counted_as_by_one_server(
    proxy: Proxy, plain: Plain, protocol: int
) -> None:
    """Two on a channel, three on a pattern, one of them on both."""

    def counts(port: int) -> list[bytes]:
        wires = [Wire(port) for _ in range(5)]
        for wire in wires[:2]:
            wire.ask(b"SUBSCRIBE", b"count")
        for wire in wires[1:4]:
            wire.ask(b"PSUBSCRIBE", b"c?unt")
        asking = wires[4]
        asking.ask(b"HELLO", b"%d" % protocol)
        try:
            return [
                asking.ask(*words.split())
                for words in (b"PUBLISH count 1", b"PUBSUB NUMSUB count", b"PUBSUB NUMPAT")
            ]
        finally:
            for wire in wires:
                wire.close()

    assert counts(proxy.port) == counts(plain.port)


# -- a library --


@pytest.mark.usefixtures("modern")
@PROTOCOLS
@pytest.mark.parametrize("kind", ["", "p", "s"], ids=["channel", "pattern", "shard channel"])
def test_librarys_subscriber(proxy: Proxy, protocol: int, kind: str) -> None:
    client = proxy.client(protocol)
    pubsub = client.pubsub()  # type: ignore[no-untyped-call]
    getattr(pubsub, f"{kind}subscribe")("news")
    assert taken(pubsub)["type"] == f"{kind}subscribe"
    publish = client.spublish if kind == "s" else client.publish
    assert publish("news", b"x" * 100) == 1
    message = taken(pubsub)
    assert (message["type"], message["channel"]) == (f"{kind}message", b"news")
    assert message["data"] == b"x" * 100
    getattr(pubsub, f"{kind}unsubscribe")("news")
    assert taken(pubsub)["type"] == f"{kind}unsubscribe"
    assert publish("news", b"none") == 0
    pubsub.close()


def taken(pubsub: Any) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] | None = pubsub.get_message(timeout=PATIENCE)
    assert message is not None
    return message


# -- what only a proxy can do --


def everywhere(cluster: LocalCluster, *words: str) -> list[Any]:
    """The answers of all masters."""
    masters = [node for node in cluster.nodes if node.call("ROLE")[0] == b"master"]
    return [node.call(*words) for node in masters]


def test_confirmed_means_subscribed(proxy: Proxy) -> None:
    """Whatever is published once the confirmation is there arrives."""
    with proxy.connect() as publisher:
        for number in range(100):
            with proxy.connect() as wire:
                name = b"fresh:%d" % number
                assert wire.ask(b"SUBSCRIBE", name).endswith(b":1\r\n")
                assert publisher.ask(b"PUBLISH", name, b"hello") == b":1\r\n"
                assert wire.reply().endswith(b"$5\r\nhello\r\n")


def test_one_subscription_at_one_node_for_all_clients(cluster: LocalCluster, proxy: Proxy) -> None:
    wires = [proxy.connect() for _ in range(20)]
    for wire in wires:
        wire.ask(b"SUBSCRIBE", b"shared")
    assert sorted(count for _, count in everywhere(cluster, "PUBSUB", "NUMSUB", "shared")) == [
        *[0, 0, 1]
    ]
    assert wires[0].ask(b"UNSUBSCRIBE", b"shared").endswith(b":0\r\n")
    for wire in wires:
        wire.close()
    wait_until(
        lambda: not any(c for _, c in everywhere(cluster, "PUBSUB", "NUMSUB", "shared")),
        PATIENCE,
        "the end of the subscription",
    )


def test_thousand_subscribers(proxy: Proxy) -> None:
    wires = [proxy.connect() for _ in range(1000)]
    for wire in wires:
        wire.send(b"SUBSCRIBE", b"crowd")
    for wire in wires[::2]:
        assert wire.reply().endswith(b":1\r\n")
    for wire in wires[1::2]:
        assert wire.reply().endswith(b":1\r\n")
    with proxy.connect() as publisher:
        large = b"x" * 20_000
        for message in (b"small", large):
            assert publisher.ask(b"PUBLISH", b"crowd", message) == b":1000\r\n"
    for wire in wires:
        small, big = wire.replies(2)
        assert small.endswith(b"$5\r\nsmall\r\n")
        assert big.endswith(b"$20000\r\n%b\r\n" % large)
        wire.close()


def test_order_of_one_publisher(proxy: Proxy) -> None:
    """Over several channels and a pattern, as one server has it."""
    with proxy.connect() as wire, proxy.connect() as publisher:
        wire.ask(b"PSUBSCRIBE", b"order:*")
        wire.send(b"SUBSCRIBE", b"order:0", b"order:1")
        wire.replies(2)
        publisher.raw(
            b"".join(pack([b"PUBLISH", b"order:%d" % (n % 5), b"%d" % n]) for n in range(500))
        )
        publisher.replies(500)
        numbers = [int(wire.reply().split(b"\r\n")[-2]) for _ in range(700)]
    expected = itertools.chain.from_iterable([n] * (2 if n % 5 < 2 else 1) for n in range(500))
    assert numbers == list(expected)


def test_subscribers_of_all_workers(cluster: LocalCluster) -> None:
    """A worker counts as one receiver with the others."""
    with running(cluster, "--workers", "2") as proxy:
        wires = [proxy.connect() for _ in range(20)]
        for wire in wires:
            assert wire.ask(b"SUBSCRIBE", b"workers").endswith(b":1\r\n")
        with proxy.connect() as publisher:
            count = int(publisher.ask(b"PUBLISH", b"workers", b"all")[1:])
            assert 2 <= count <= 20
        for wire in wires:
            assert wire.reply().endswith(b"$3\r\nall\r\n")
            wire.close()


@pytest.fixture
def events(cluster: LocalCluster) -> Iterator[None]:
    """The nodes publish keyspace events."""
    everywhere(cluster, "CONFIG", "SET", "notify-keyspace-events", "KEA")
    yield
    everywhere(cluster, "CONFIG", "SET", "notify-keyspace-events", "")


@pytest.mark.usefixtures("events")
@pytest.mark.parametrize(
    "words",
    [b"PSUBSCRIBE __keyspace@0__:ev:*", b"PSUBSCRIBE *:ev:?", b"SUBSCRIBE __keyevent@0__:set"],
    ids=lambda words: words.decode(),
)
def test_keyspace_events_of_all_masters(proxy: Proxy, words: bytes) -> None:
    """Each exactly once."""
    client = proxy.client()
    with proxy.connect() as wire:
        assert wire.ask(*words.split()).endswith(b":1\r\n")
        for number in range(9):
            client.set(f"ev:{number}", "")
        frames = wire.replies(9)
        assert wire.ask(b"PING", b"end").endswith(b"end\r\n")
    assert all(any(b"ev:%d" % n in frame for frame in frames) for n in range(9))


def test_patterns_at_every_master_hear_plain_messages_once(proxy: Proxy) -> None:
    with proxy.connect() as wire, proxy.connect() as publisher:
        wire.ask(b"PSUBSCRIBE", b"*")
        for number in range(50):
            assert publisher.ask(b"PUBLISH", b"once", b"%d" % number) == b":1\r\n"
        for number in range(50):
            assert wire.reply().endswith(b"\r\n%d\r\n" % number)
        assert wire.ask(b"PING", b"end").endswith(b"end\r\n")


@pytest.mark.usefixtures("modern")
def test_clients_that_subscribe_are_listed(proxy: Proxy) -> None:
    with proxy.connect() as wire, proxy.connect() as asking:
        wire.ask(b"CLIENT", b"SETNAME", b"listed")
        wire.send(b"SUBSCRIBE", b"a", b"b")
        wire.replies(2)
        wire.ask(b"PSUBSCRIBE", b"p*")
        wire.ask(b"SSUBSCRIBE", b"s")
        listed = asking.ask(b"CLIENT", b"LIST", b"TYPE", b"pubsub")
        assert b" name=listed " in listed
        assert b" flags=P db=0 sub=2 psub=1 ssub=1 " in listed
        assert b" name=listed " not in asking.ask(b"CLIENT", b"LIST", b"TYPE", b"normal")


# -- limits --


@pytest.fixture(scope="module")
def small(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy whose clients may have little."""
    limits = {
        "subscriber_limit": "8mb",
        "subscriber_soft_limit": "6mb",
        "subscriber_soft_time": "1s",
        "max_subscriptions": 10,
        "subscription_bytes": "1kb",
        "idle_timeout": "1s",
    }
    lines = (f"{name} = {value!r}" for name, value in limits.items())
    with running(cluster, config="\n".join(["[clients]", *lines])) as proxy:
        yield proxy


def test_subscriptions_of_one_client_are_limited(small: Proxy) -> None:
    with small.connect() as wire:
        wire.send(b"SUBSCRIBE", *(b"%d" % n for n in range(9)))
        wire.replies(9)
        assert b"clients.max_subscriptions" in wire.ask(b"PSUBSCRIBE", b"10", b"11")
        assert wire.ask(b"SUBSCRIBE", b"1").endswith(b":9\r\n")
        assert wire.ask(b"UNSUBSCRIBE", b"1").endswith(b":8\r\n")
        assert b"clients.subscription_bytes" in wire.ask(b"SUBSCRIBE", b"x" * 1020)
        assert wire.ask(b"SUBSCRIBE", b"x" * 1000).endswith(b":9\r\n")


def dropped(proxy: Proxy) -> int:
    return proxy.text().count("dropped: does not read its messages fast enough")


@pytest.mark.parametrize("size", [4 * MIB, 10_000], ids=["large messages", "small ones"])
def test_slow_subscriber_is_dropped_alone(small: Proxy, size: int) -> None:
    """Above the hard limit."""
    before = dropped(small)
    with small.connect() as slow, small.connect() as quick, small.connect() as publisher:
        for wire in (slow, quick):
            wire.ask(b"SUBSCRIBE", b"much")
        for _ in range(16 * MIB // size * 2):
            publisher.ask(b"PUBLISH", b"much", b"x" * size)
            assert quick.reply().startswith(b"*3\r\n$7\r\nmessage\r\n")
            if dropped(small) > before:
                break
        assert dropped(small) == before + 1
        assert publisher.ask(b"PUBLISH", b"much", b"end") == b":1\r\n"


def test_subscriber_that_stays_slow_is_dropped(small: Proxy) -> None:
    """Above the soft limit, for longer than it may."""
    before = dropped(small)
    with small.connect() as slow, small.connect() as publisher:
        slow.ask(b"SUBSCRIBE", b"slowly")
        filled = fill(publisher, slow)
        wait_until(
            lambda: publisher.ask(b"PUBLISH", b"slowly", b"x") != b":1\r\n",
            PATIENCE,
            f"the end of the slow subscriber after {filled} bytes",
        )
    assert dropped(small) == before + 1


def fill(publisher: Wire, slow: Wire) -> int:
    """Publish until more than the soft limit waits for the client; how many bytes that were."""
    sent = 0
    slow.socket.settimeout(PATIENCE)
    while unsent(publisher) < 6.5 * MIB:
        assert publisher.ask(b"PUBLISH", b"slowly", b"x" * (MIB // 4)) == b":1\r\n"
        sent += MIB // 4
    return sent


def unsent(asking: Wire) -> int:
    listed = asking.ask(b"CLIENT", b"LIST", b"TYPE", b"pubsub")
    return sum(int(field[5:]) for field in listed.split() if field.startswith(b"omem="))


def test_silent_subscriber_is_not_idle(small: Proxy) -> None:
    with small.connect() as wire, small.connect() as idle:
        wire.ask(b"SUBSCRIBE", b"silence")
        idle.ask(b"PING")
        assert idle.rest() == b""
        assert wire.ask(b"PING").endswith(b"$0\r\n\r\n")
