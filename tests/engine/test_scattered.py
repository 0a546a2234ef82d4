"""Transactions over several slots: one MULTI/EXEC for each slot, and their replies in order.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from rproxy.config import Bytes, Clients
from rproxy.routing.slots import slot_of
from rproxy.upstream.link import Link
from tests.engine.test_pinned import (
    ABORTED,
    CROSS_SLOT,
    DISCARD,
    DONE,
    EXEC,
    MAYBE,
    MULTI,
    NIL,
    OK,
    QUEUED,
    SET,
    opened,
    wire,
)
from tests.fakes import FakeClient, FakeProxy

NODE_OF_A = 2
SET_B, SET_C = [b"SET", b"b", b"2"], [b"SET", b"c", b"3"]
MOVED_B = b"-MOVED %d node-b:2\r\n" % slot_of(b"b")
NO_PROPER_REPLY = b"-ERR a node gave no proper reply to its part of the transaction\r\n"


def start() -> tuple[FakeProxy, FakeClient]:
    proxy = FakeProxy(transactions="per-slot")
    return proxy, proxy.client()


def done(commands: int, reply: bytes) -> bytes:
    """A node's replies to MULTI, so many commands, and EXEC."""
    return OK + QUEUED * commands + reply


def queued(client: FakeClient, *commands: list[bytes]) -> None:
    for command in commands:
        client.say(*command)
        assert client.hear() == QUEUED


def three(proxy: FakeProxy, client: FakeClient) -> Link:
    """A transaction for a, b and c, of which a's part was sent EXEC."""
    link = opened(proxy, client, SET)
    queued(client, SET_B, SET_C)
    assert proxy.cluster.sent(0) == proxy.cluster.sent(1) == []
    client.say(*EXEC)
    assert proxy.cluster.written(link) == [EXEC]
    return link


def test_each_slot_has_a_transaction_of_its_own() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    queued(client, SET_B)
    client.say(b"GET", b"a")
    link.stream.feed(QUEUED)
    assert client.hear() == QUEUED
    queued(client, SET_C, [b"GET", b"b"])
    client.say(*EXEC)
    assert proxy.cluster.written(link) == [[b"GET", b"a"], EXEC]
    assert proxy.cluster.sent(0) == []
    link.stream.feed(b"*2\r\n:1\r\n:3\r\n")
    assert client.hear() == b""
    assert proxy.cluster.sent(0) == [MULTI, SET_B, [b"GET", b"b"], EXEC]
    assert proxy.cluster.sent(1) == [MULTI, SET_C, EXEC]
    proxy.cluster.answer(1, done(1, b"*1\r\n:4\r\n"))
    assert client.hear() == b""
    proxy.cluster.answer(0, done(2, b"*2\r\n:2\r\n:5\r\n"))
    assert client.hear() == b"*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n"
    assert repr(proxy.cluster.lane.leases) == "<Leases 0 held, 1 warm, 0 being made>"
    assert client.ask(b"PING") == b"+PONG\r\n"


def test_the_link_is_free_while_the_other_parts_run() -> None:
    proxy, client = start()
    link = three(proxy, client)
    link.stream.feed(DONE)
    assert repr(proxy.cluster.lane.leases) == "<Leases 0 held, 1 warm, 0 being made>"
    proxy.client().send(wire(MULTI, SET))
    assert proxy.cluster.written(link) == [MULTI, SET]


def test_a_whole_pipeline() -> None:
    """MULTI to EXEC in one read, with commands behind it: those wait for EXEC's reply."""
    proxy, client = start()
    client.send(wire(MULTI, SET, SET_B, EXEC, [b"GET", b"b"]))
    link = proxy.cluster.lease(NODE_OF_A)
    assert proxy.cluster.written(link) == [MULTI, SET]
    assert client.hear() == OK
    assert proxy.cluster.written(link) == [EXEC]
    link.stream.feed(done(1, DONE))
    assert proxy.cluster.sent(0) == [MULTI, SET_B, EXEC]
    assert client.hear() == QUEUED * 2
    proxy.cluster.answer(0, done(1, DONE))
    assert client.hear() == b"*2\r\n" + OK * 2
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]


def test_commands_are_cut() -> None:
    """A piece for the first slot belongs to its part, in its place."""
    proxy, client = start()
    link = opened(proxy, client, SET)
    queued(client, [b"MGET", b"b", b"a", b"c"])
    client.send(wire([b"INCR", b"a"], [b"DEL", b"c", b"a"], EXEC))
    assert proxy.cluster.written(link) == [
        [b"MGET", b"a"], [b"INCR", b"a"], [b"DEL", b"a"], EXEC
    ]  # fmt: skip
    link.stream.feed(QUEUED * 3 + b"*4\r\n+OK\r\n*1\r\n$1\r\nA\r\n:2\r\n:1\r\n")
    assert client.hear() == QUEUED * 2
    assert proxy.cluster.sent(0) == [MULTI, [b"MGET", b"b"], EXEC]
    assert proxy.cluster.sent(1) == [MULTI, [b"MGET", b"c"], [b"DEL", b"c"], EXEC]
    assert proxy.cluster.sent(2) == []
    proxy.cluster.answer(0, done(1, b"*1\r\n*1\r\n$1\r\nB\r\n"))
    proxy.cluster.answer(1, done(2, b"*2\r\n*1\r\n$-1\r\n:0\r\n"))
    found = b"*3\r\n$1\r\nB\r\n$1\r\nA\r\n$-1\r\n"
    assert client.hear() == b"*4\r\n+OK\r\n" + found + b":2\r\n:1\r\n"


def test_cut_command_comes_first() -> None:
    proxy, client = start()
    assert client.ask(*MULTI) == OK
    client.say(b"MSET", b"a", b"1", b"b", b"2")
    link = proxy.cluster.lease(NODE_OF_A)
    assert client.hear() == QUEUED
    client.send(wire([b"GET", b"a"], EXEC))
    assert proxy.cluster.written(link) == [MULTI, [b"MSET", b"a", b"1"], [b"GET", b"a"], EXEC]
    link.stream.feed(OK + QUEUED * 2 + b"*2\r\n+OK\r\n$1\r\n1\r\n")
    assert proxy.cluster.sent(0) == [MULTI, [b"MSET", b"b", b"2"], EXEC]
    proxy.cluster.answer(0, done(1, DONE))
    assert client.hear() == QUEUED + b"*2\r\n+OK\r\n$1\r\n1\r\n"


def test_command_that_cannot_be_cut() -> None:
    proxy, client = start()
    opened(proxy, client, SET)
    client.send(wire([b"SINTER", b"b", b"c"], SET_B, EXEC))
    assert client.hear() == CROSS_SLOT + QUEUED + ABORTED
    assert proxy.cluster.sent(0) == proxy.cluster.sent(1) == []


def test_part_that_fails_fails_alone() -> None:
    proxy, client = start()
    three(proxy, client).stream.feed(DONE)
    proxy.cluster.answer(0, done(1, ABORTED))
    proxy.cluster.answer(1, done(1, b"*1\r\n-WRONGTYPE no\r\n"))
    assert client.hear() == b"*3\r\n+OK\r\n" + ABORTED + b"-WRONGTYPE no\r\n"


def test_part_whose_link_is_lost() -> None:
    proxy, client = start()
    three(proxy, client).stream.feed(DONE)
    proxy.cluster.answer(1, done(1, DONE))
    proxy.cluster.sent(0)
    proxy.cluster.link(0).close("gone")
    assert client.hear() == b"*3\r\n+OK\r\n" + MAYBE + OK


def test_part_of_a_wrong_shape() -> None:
    proxy, client = start()
    three(proxy, client).stream.feed(DONE)
    proxy.cluster.answer(0, done(1, b"*2\r\n+OK\r\n+OK\r\n"))
    proxy.cluster.answer(1, done(1, OK))
    assert client.hear() == b"*3\r\n+OK\r\n" + NO_PROPER_REPLY * 2


def test_first_part_of_a_wrong_shape() -> None:
    proxy, client = start()
    three(proxy, client).stream.feed(b"*2\r\n+OK\r\n+OK\r\n")
    assert client.hear() == NO_PROPER_REPLY
    assert proxy.cluster.sent(0) == proxy.cluster.sent(1) == []


def test_nothing_runs_after_a_first_part_that_was_refused() -> None:
    proxy, client = start()
    link = three(proxy, client)
    link.stream.feed(ABORTED)
    assert client.hear() == ABORTED
    assert proxy.cluster.sent(0) == proxy.cluster.sent(1) == []
    assert client.ask(b"PING") == b"+PONG\r\n"


def test_first_part_whose_link_is_lost() -> None:
    proxy, client = start()
    link = three(proxy, client)
    link.close("gone")
    assert client.hear() == MAYBE
    assert proxy.cluster.sent(0) == proxy.cluster.sent(1) == []


def test_watch_covers_its_slot() -> None:
    proxy, client = start()
    client.say(b"WATCH", b"a")
    link = proxy.cluster.lease(NODE_OF_A)
    assert proxy.cluster.written(link) == [[b"WATCH", b"a"]]
    link.stream.feed(OK)
    assert client.hear() == OK
    assert client.ask(b"WATCH", b"b") == CROSS_SLOT
    assert client.ask(*MULTI) == OK
    queued(client, SET_B)
    client.say(*EXEC)
    assert proxy.cluster.written(link) == [MULTI, EXEC]
    link.stream.feed(OK + NIL)
    assert client.hear() == NIL
    assert proxy.cluster.sent(0) == []


def test_watch_that_was_lost() -> None:
    proxy, client = start()
    client.say(b"WATCH", b"a")
    link = proxy.cluster.lease(NODE_OF_A)
    proxy.cluster.written(link)
    link.stream.feed(OK)
    link.close("gone")
    client.send(wire(MULTI, SET_B, EXEC))
    assert client.hear() == OK * 2 + QUEUED + NIL
    assert proxy.cluster.sent(0) == []


def test_discard() -> None:
    proxy, client = start()
    link = opened(proxy, client, SET)
    queued(client, SET_B)
    assert client.ask(*DISCARD) == OK
    assert proxy.cluster.written(link) == [DISCARD]
    assert proxy.cluster.sent(0) == []


def test_refused_command_runs_nothing_anywhere() -> None:
    proxy, client = start()
    opened(proxy, client, SET)
    queued(client, SET_B)
    client.send(wire([b"GET"], EXEC))
    assert client.hear().endswith(ABORTED)
    assert proxy.cluster.sent(0) == []


def test_client_that_leaves_between_the_parts() -> None:
    proxy, client = start()
    link = three(proxy, client)
    client.session.close("gone")
    link.stream.feed(DONE)
    assert proxy.cluster.sent(0) == [MULTI, SET_B, EXEC]
    proxy.cluster.answer(0, done(1, DONE))
    proxy.cluster.answer(1, done(1, DONE))
    assert client.hear() == b""
    assert " 0 held," in repr(proxy.cluster.lane.leases)


def test_client_that_leaves_before_exec_runs_nothing() -> None:
    proxy, client = start()
    opened(proxy, client, SET)
    queued(client, SET_B)
    client.session.close("gone")
    assert proxy.cluster.sent(0) == []


def test_what_is_kept_has_a_limit() -> None:
    proxy = FakeProxy(clients=Clients(transaction_limit=Bytes(500)), transactions="per-slot")
    client = proxy.client()
    opened(proxy, client, SET)
    client.send(wire([b"SET", b"b", b"x" * 300]))
    assert client.hear().startswith(b"-ERR the transaction is too large")
    assert client.ask(*EXEC) == ABORTED


def test_pieces_count_as_what_they_take() -> None:
    proxy = FakeProxy(clients=Clients(transaction_limit=Bytes(3000)), transactions="per-slot")
    client = proxy.client()
    assert client.ask(*MULTI) == OK
    many = [b"MGET", b"a", *(b"%d" % number for number in range(20))]
    client.say(*many)
    proxy.cluster.lease(NODE_OF_A)
    client.say(*many)
    assert client.hear().startswith(QUEUED + b"-ERR the transaction is too large")


@pytest.mark.parametrize("large", [0, 1], ids=["the first part's", "another's"])
def test_replies_that_wait_for_others_count(large: int) -> None:
    limits = Clients(output_limit=Bytes(1000))
    proxy = FakeProxy(clients=limits, transactions="per-slot")
    client = proxy.client()
    replies = [b"*1\r\n$%d\r\n%b\r\n" % (size, b"x" * size) for size in (1, 1)]
    replies[large] = b"*1\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"
    three(proxy, client).stream.feed(replies[0])
    proxy.cluster.answer(0, done(1, replies[1]))
    assert len(client.reasons) == 1
    proxy.cluster.answer(1, done(1, DONE))
    assert client.hear() == b""
    assert proxy.cluster.tick.under_way == 0


def test_one_slot_travels_as_ever() -> None:
    proxy, client = start()
    whole = wire(MULTI, SET, EXEC)
    client.send(whole)
    assert proxy.cluster.sent(2) == [MULTI, SET, EXEC]  # on the shared link
    proxy.cluster.answer(2, done(1, DONE))
    assert client.hear() == OK + QUEUED + DONE


def test_moved_part_goes_to_the_new_owner_as_a_whole() -> None:
    proxy, client = start()
    three(proxy, client).stream.feed(DONE)
    proxy.cluster.answer(1, done(1, DONE))
    assert proxy.cluster.sent(0) == [MULTI, SET_B, EXEC]
    proxy.cluster.answer(0, OK + MOVED_B + ABORTED)
    assert client.hear() == b""
    assert proxy.cluster.sent(1)[-3:] == [MULTI, SET_B, EXEC]
    proxy.cluster.answer(1, done(1, DONE))
    assert client.hear() == b"*3\r\n" + OK * 3
