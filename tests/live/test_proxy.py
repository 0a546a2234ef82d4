"""The whole way through the proxy to a real cluster: keys over all slots, order, size, odd
clients.
"""

from __future__ import annotations

import contextlib
import random
import socket

import pytest
import redis

from rproxy.demo_servers import HOST
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.live.proxies import Proxy, resident

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])


@PROTOCOLS
def test_keys_over_all_slots(proxy: Proxy, protocol: int) -> None:
    client = proxy.client(protocol)
    keys = [f"spread:{number}" for number in range(3000)]
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.set(key, key[::-1])
        assert all(pipe.execute())
        for key in keys:
            pipe.get(key)
        assert pipe.execute() == [key[::-1].encode() for key in keys]
    assert len({slot_of(key.encode()) for key in keys}) > 2000
    assert client.delete(*keys) == len(keys)


@PROTOCOLS
def test_replies_keep_the_clients_version(proxy: Proxy, protocol: int) -> None:
    with proxy.connect() as wire:
        if protocol == 3:
            assert wire.ask(b"HELLO", b"3").startswith(b"%7\r\n")
        wire.ask(b"DEL", b"hash")
        wire.ask(b"HSET", b"hash", b"field", b"value")
        head = b"%1\r\n" if protocol == 3 else b"*2\r\n"
        assert wire.ask(b"HGETALL", b"hash") == head + b"$5\r\nfield\r\n$5\r\nvalue\r\n"
        assert wire.ask(b"GET", b"no such key") == (b"_\r\n" if protocol == 3 else b"$-1\r\n")


def test_versions_do_not_mix(proxy: Proxy) -> None:
    """HELLO in the middle of a pipeline: what came before keeps the old version."""
    with proxy.connect() as wire:
        wire.raw(pack([b"GET", b"none"]) + pack([b"HELLO", b"3"]) + pack([b"GET", b"none"]))
        wire.raw(pack([b"HELLO", b"2"]) + pack([b"GET", b"none"]))
        replies = wire.replies(5)
    assert [replies[0], replies[2], replies[4]] == [b"$-1\r\n", b"_\r\n", b"$-1\r\n"]
    assert replies[1].startswith(b"%7\r\n")
    assert replies[3].startswith(b"*14\r\n")


@PROTOCOLS
def test_mixed_pipeline_keeps_its_order(proxy: Proxy, protocol: int) -> None:
    """1,000 commands: forwarded, split, local, wrong, refused."""
    dice = random.Random(5)
    numbers = dict.fromkeys(range(30), 0)
    with proxy.connect() as wire:
        wire.ask(b"HELLO", b"%d" % protocol)
        names = [b"mixed:%d" % number for number in numbers]
        wire.ask(b"DEL", *names)
        wire.ask(b"MSET", *[word for name in names for word in (name, b"0")])
        sent, expected = [], []
        for step in range(1000):
            number = dice.randrange(30)
            kind = dice.randrange(6)
            if kind == 0:
                numbers[number] += 1
                sent.append(pack([b"INCR", names[number]]))
                expected.append(b":%d\r\n" % numbers[number])
            elif kind == 1:
                chosen = dice.sample(range(30), 5)
                sent.append(pack([b"MGET", *[names[n] for n in chosen]]))
                expected.append(
                    b"*5\r\n"
                    + b"".join(
                        b"$%d\r\n%d\r\n" % (len(str(numbers[n])), numbers[n]) for n in chosen
                    )
                )
            elif kind == 2:
                sent.append(pack([b"PING", b"%d" % step]))
                expected.append(b"$%d\r\n%d\r\n" % (len(str(step)), step))
            elif kind == 3:
                sent.append(pack([b"GET"]))
                expected.append(b"-ERR wrong number of arguments for 'get' command\r\n")
            elif kind == 4:
                sent.append(pack([b"RENAME", b"a", b"b"]))
                expected.append(b"-CROSSSLOT Keys in request don't hash to the same slot\r\n")
            else:
                chosen = dice.sample(range(30), 3)
                sent.append(pack([b"EXISTS", *[names[n] for n in chosen], b"mixed:none"]))
                expected.append(b":3\r\n")
        wire.raw(b"".join(sent))
        assert wire.replies(1000) == expected


def test_binary_keys_and_values(proxy: Proxy) -> None:
    client = proxy.client()
    for key in (b"", b"\0", b"\r\n", b"\xff\xfe", b"{\0}x", b"k" * 70_000, bytes(range(256))):
        value = key[::-1] + b"\r\n$1\r\n"
        assert client.set(key, value)
        assert client.get(key) == value
        assert client.mget(key, b"mget:none") == [value, None]
        assert client.delete(key) == 1


def test_large_values(proxy: Proxy) -> None:
    client = proxy.client()
    value = random.Random(1).randbytes(1 << 20) * 64
    assert client.set("large", value)
    assert client.get("large") == value
    assert client.mget("large", "none")[0] == value
    assert client.unlink("large") == 1


def test_every_byte_alone(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in pack([b"SET", b"slowly", b"1"]) + b"GET slowly\r\n":
            wire.raw(bytes([byte]))
        assert wire.replies(2) == [b"+OK\r\n", b"$1\r\n1\r\n"]


def test_multi_key_commands(proxy: Proxy) -> None:
    client = proxy.client()
    keys = [f"multi:{number}" for number in range(100)]
    client.delete(*keys, "multi:list")
    assert client.mset({key: key for key in keys})
    assert client.mget(*keys, "multi:none", keys[0]) == [
        *(k.encode() for k in keys),
        None,
        keys[0].encode(),
    ]
    client.rpush("multi:list", "a")
    assert client.mget(keys[0], "multi:list") == [keys[0].encode(), None]
    assert client.exists(keys[0], keys[0], "multi:none", keys[1]) == 3
    assert client.touch(*keys) == 100
    assert client.unlink(*keys[:50]) == 50
    assert client.delete(*keys) == 50


def test_cross_slot_commands_are_refused(proxy: Proxy) -> None:
    client = proxy.client()
    with pytest.raises(redis.ResponseError, match="don't hash to the same slot"):
        client.msetnx({"a": 1, "b": 2})
    with pytest.raises(redis.ResponseError, match="don't hash to the same slot"):
        client.sinter(["a", "b"])
    assert client.sinterstore("{t}a", ["{t}b", "{t}c"]) == 0


def test_scripts_and_unkeyed_commands(proxy: Proxy) -> None:
    client = proxy.client()
    assert client.eval("return KEYS[1]", 1, "some key") == b"some key"
    assert client.eval("return 7", 0) == 7
    with pytest.raises(redis.ResponseError, match="Number of keys can't be greater"):
        client.eval("return 1", 5, "a")
    assert client.publish("channel", "message") >= 0


def test_servers_own_unknown_command_error(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        wire.raw(pack([b"NoSuchCommand", b"a", b"b"]) + pack([b"PING"]))
        first, second = wire.replies(2)
    assert first.startswith(b"-ERR unknown command")
    assert b"NoSuchCommand" in first
    assert second == b"+PONG\r\n"


def test_not_served_is_said(proxy: Proxy) -> None:
    """A clear error, and the connection goes on."""
    with proxy.connect() as wire:
        wire.raw(pack([b"SHUTDOWN", b"NOSAVE"]) + pack([b"PING"]))
        first, second = wire.replies(2)
    assert first.startswith(b"-ERR rproxy does not serve '")
    assert second == b"+PONG\r\n"


def test_xread_without_block_is_served(proxy: Proxy) -> None:
    client = proxy.client()
    client.delete("stream")
    assert client.xadd("stream", {"a": "1"}, "1-1") == b"1-1"
    assert client.xread({"stream": "0"}) == [[b"stream", [(b"1-1", {b"a": b"1"})]]]


# -- odd clients --


@pytest.mark.parametrize(
    ("wire_bytes", "answer"),
    [
        (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*99999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\nx", b"-ERR Protocol error: expected '$', got 'x'\r\n"),
        (b'GET "a\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"x" * 70_000, b"-ERR Protocol error: too big inline request\r\n"),
        (b"*1\r\n$600000000\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"-ERR wrong number of arguments for 'get' command\r\n",
        ),
    ],
    ids=["negative", "count", "type", "quotes", "inline", "bulk", "POST", "Host"],
)
def test_garbage_ends_that_client_alone(proxy: Proxy, wire_bytes: bytes, answer: bytes) -> None:
    with proxy.connect() as other, proxy.connect() as wire:
        wire.raw(pack([b"PING"]))
        assert wire.reply() == b"+PONG\r\n"
        wire.raw(wire_bytes)
        assert wire.rest() == answer
        assert other.ask(b"PING") == b"+PONG\r\n"


def test_nothing_is_answered_to_nothing(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        wire.raw(b"*0\r\n*-1\r\n\r\n   \r\n" + pack([b"PING"]))
        assert wire.reply() == b"+PONG\r\n"


def test_half_closed_client_gets_all_its_replies(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        wire.raw(b"".join(pack([b"SET", b"half:%d" % n, b"1"]) for n in range(500)))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b"+OK\r\n" * 500


def test_quit_comes_after_earlier_replies(proxy: Proxy) -> None:
    with proxy.connect() as wire:
        wire.raw(pack([b"SET", b"quit", b"1"]) + pack([b"QUIT"]) + pack([b"SET", b"quit", b"2"]))
        assert wire.rest() == b"+OK\r\n+OK\r\n"
        assert proxy.client().get("quit") == b"1"


def test_clients_that_leave_in_mid_reply(proxy: Proxy) -> None:
    """Others never get a reply that is not theirs."""
    client = proxy.client()
    client.set("leave", b"x" * 3_000_000)
    with proxy.connect() as steady:
        for turn in range(30):
            leaver = proxy.connect()
            leaver.raw(pack([b"GET", b"leave"]) * 5)
            if turn % 2:
                leaver.socket.recv(1000)
            leaver.close()
            steady.send(b"ECHO", b"%d" % turn)
            steady.send(b"SETRANGE", b"leave", b"0", b"%d" % turn)
            assert steady.reply() == b"$%d\r\n%d\r\n" % (len(str(turn)), turn)
            assert steady.reply() == b":3000000\r\n"
    client.delete("leave")


def test_two_thousand_clients(proxy: Proxy) -> None:
    clients = [proxy.connect() for _ in range(2000)]
    for number, wire in enumerate(clients):
        wire.send(b"SET", b"crowd:%d" % number, b"%d" % number)
    assert {wire.reply() for wire in clients} == {b"+OK\r\n"}
    for number, wire in enumerate(clients):
        wire.send(b"GET", b"crowd:%d" % number)
    for number, wire in enumerate(clients):
        assert wire.reply() == b"$%d\r\n%d\r\n" % (len(str(number)), number)
        wire.close()


def test_slow_reader_is_not_read_and_others_go_on(proxy: Proxy) -> None:
    """A client that asks for 300 MB and reads nothing: its socket is left alone, memory stays
    bounded.
    """
    proxy.client().set("slow", b"x" * 100_000)
    before = resident(proxy.process.pid)
    with proxy.connect() as slow, proxy.connect() as other:
        slow.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # the proxy stops reading: that is the point
            slow.raw(pack([b"GET", b"slow"]) * 3000)
        for _ in range(200):
            assert other.ask(b"PING") == b"+PONG\r\n"
            assert other.ask(b"SET", b"other", b"1") == b"+OK\r\n"
        assert resident(proxy.process.pid) - before < 200 << 20


def test_address_is_reported(proxy: Proxy) -> None:
    client = proxy.client()
    client.client_setname("reporter")
    (entry,) = [e for e in client.client_list() if e["name"] == "reporter"]
    assert entry["addr"].startswith(f"{HOST}:")
    assert entry["laddr"] == f"{HOST}:{proxy.port}"
    assert client.client_info()["id"] == entry_id(entry)


def entry_id(entry: dict[str, str]) -> int:
    """CLIENT LIST's id as a number."""
    return int(entry["id"])
