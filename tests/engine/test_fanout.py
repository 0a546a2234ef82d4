"""Fanout: a request for several slots in pieces; its client gets one reply, in its place.

The keys b, c and a belong to the nodes 0, 1 and 2. How replies are merged is tested in
tests/routing/test_split.py.
"""

from __future__ import annotations

import itertools

import pytest

from rproxy.config import Upstream
from rproxy.errors import TAIL_TOO_LONG
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.fakes import NODES, FakeProxy, array, bulk, serve

PONG = b"+PONG\r\n"
TRYAGAIN = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"
MAY_HAVE_RUN = b"-ERR upstream connection lost; the command may have been executed\r\n"
WRONG_TYPE = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
ORDERS = list(itertools.permutations(range(3)))


def words(text: str) -> list[bytes]:
    return text.encode().split()


def asked(text: str) -> tuple[FakeProxy, list[list[list[bytes]]]]:
    """A proxy whose one client has sent that command, and what each node was sent."""
    proxy = FakeProxy()
    proxy.client().say(*words(text))
    return proxy, [proxy.cluster.sent(index) for index in range(3)]


# -- pieces --


@pytest.mark.parametrize(
    ("command", "pieces"),
    [
        ("MGET a b c", ["MGET b", "MGET c", "MGET a"]),
        ("MGET b {b}2 a b", ["MGET b {b}2 b", "", "MGET a"]),
        ("mset a 1 b 2 {a}2 3", ["mset b 2", "", "mset a 1 {a}2 3"]),
        ("DEL a b", ["DEL b", "", "DEL a"]),
        ("UNLINK a b c c", ["UNLINK b", "UNLINK c c", "UNLINK a"]),
        ("EXISTS c a", ["", "EXISTS c", "EXISTS a"]),
        ("TOUCH c b", ["TOUCH b", "TOUCH c", ""]),
    ],
)
def test_pieces(command: str, pieces: list[str]) -> None:
    assert asked(command)[1] == [[words(piece)] if piece else [] for piece in pieces]


def test_slots_of_one_node_are_pieces_of_their_own() -> None:
    """A node refuses keys of two slots, even of its own."""
    keys = [key for key in map(b"%d".__mod__, range(100)) if slot_of(key) <= 5460][:3]
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", *keys)
    assert proxy.cluster.sent(0) == [[b"MGET", key] for key in keys]
    proxy.cluster.answer(0, b"".join(array([b"of " + key]) for key in keys))
    assert client.hear() == array([b"of " + key for key in keys])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MGET a b c b", array([b"of a", b"of b", b"of c", b"of b"])),
        ("DEL a b c {c}2", b":4\r\n"),
        ("MSET a 1 b 2 c 3", b"+OK\r\n"),
    ],
)
def test_the_last_piece_completes_the_reply(
    command: str, reply: bytes, order: tuple[int, ...]
) -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(*words(command))
    for index in order:
        assert client.hear() == b""
        serve(proxy.cluster, [index])
    assert client.hear() == reply
    assert client.session.under_way == 0


def test_resp3_pieces_go_over_resp3_links() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.ask(b"HELLO", b"3")
    client.say(b"MGET", b"a", b"b")
    assert proxy.cluster.sent(0) == []
    proxy.cluster.answer(2, b"*1\r\n_\r\n", 3)
    proxy.cluster.answer(0, b"*1\r\n$1\r\nx\r\n", 3)
    assert client.hear() == b"*2\r\n_\r\n$1\r\nx\r\n"


def test_tail_that_is_too_long_for_every_piece() -> None:
    proxy = FakeProxy()
    proxy.engine._learnt([[b"json.mget", -1, [b"readonly"], 1, 1, 1, []]])
    client = proxy.client()
    keys = [b"k%d" % number for number in range(2000)]
    client.send(pack([b"JSON.MGET", *keys, b"$" * 20_000]) + pack([b"PING"]))
    assert client.hear() == TAIL_TOO_LONG + PONG
    assert client.session.under_way == 0
    client.say(b"JSON.MGET", b"a", b"b", b"$")
    assert proxy.cluster.sent(0) == [[b"JSON.MGET", b"b", b"$"]]
    assert proxy.cluster.sent(2) == [[b"JSON.MGET", b"a", b"$"]]


def test_large_split_request() -> None:
    """Larger than what is copied: the pieces do not lean on the client's bytes."""
    values = {key: key * 50_000 for key in (b"a", b"b", b"c")}
    proxy = FakeProxy()
    client = proxy.client()
    client.send(pack([b"MSET", *itertools.chain.from_iterable(values.items())]))
    client.send(pack([b"SET", b"b", b"y" * 200_000]))
    assert proxy.cluster.sent(2) == [[b"MSET", b"a", values[b"a"]]]
    assert proxy.cluster.sent(1) == [[b"MSET", b"c", values[b"c"]]]
    assert proxy.cluster.sent(0)[0] == [b"MSET", b"b", values[b"b"]]


# -- errors of one piece --


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("command", "good", "answer"),
    [
        ("MGET a b c", array([b"v"]), WRONG_TYPE),
        ("DEL a b c", b":1\r\n", WRONG_TYPE),
        (
            "MSET a 1 b 2 c 3",
            b"+OK\r\n",
            b"-WRONGTYPE 2 of 3 keys were written, then: Operation against a key holding the wrong "
            b"kind of value\r\n",
        ),
    ],
)
def test_error_of_one_piece_is_the_answer_once_all_are_home(
    command: str, good: bytes, answer: bytes, order: tuple[int, ...]
) -> None:
    """Not before: what the client sends next must not overtake a piece that is under way."""
    proxy = FakeProxy()
    client = proxy.client()
    client.say(*words(command))
    for index in order:
        assert client.hear() == b""
        proxy.cluster.answer(index, WRONG_TYPE if index == 1 else good)
    assert client.hear() == answer


def test_reply_of_the_wrong_shape() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"a", b"b")
    client.say(b"PING")
    proxy.cluster.answer(0, b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n")
    proxy.cluster.answer(2, array([b"v"]))
    heard = client.hear()
    assert heard.startswith(b"-ERR ")
    assert heard.endswith(b"\r\n" + PONG)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("MSET a 1 b 2", b"-ERR 1 of 2 keys were written, then: upstream connection lost; "),
        ("DEL a b", MAY_HAVE_RUN),
    ],
)
def test_lost_link_answers_a_piece_that_may_have_run(command: str, answer: bytes) -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(*words(command))
    proxy.cluster.sent(0)
    proxy.cluster.link(0).close("cut")
    assert client.hear() == b""
    serve(proxy.cluster, [2])
    assert client.hear().startswith(answer)


def test_piece_that_changes_nothing_is_sent_again() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"a", b"b")
    proxy.cluster.sent(0)
    proxy.cluster.link(0).close("cut")
    serve(proxy.cluster, [2])
    assert client.hear() == b""
    proxy.cluster.connect(NODES[0])
    serve(proxy.cluster, [0])
    assert client.hear() == array([b"of a", b"of b"])


def test_late_piece_makes_the_whole_late() -> None:
    proxy = FakeProxy(upstream=Upstream(command_timeout=30.0))  # type: ignore[arg-type]
    client = proxy.client()
    client.say(b"MGET", b"a", b"b")
    client.say(b"GET", b"b")
    serve(proxy.cluster, [2])
    proxy.cluster.sent(0)
    assert proxy.cluster.link(0).expire(proxy.cluster.tick.time + 31.0) == 2
    late = b"-ERR no reply within upstream.command_timeout; the command may have been executed\r\n"
    assert client.hear() == late * 2
    client.say(b"GET", b"b")
    proxy.cluster.answer(0, array([b"late"]) + b"+late\r\n+mine\r\n")
    assert client.hear() == b"+mine\r\n"


# -- slots that move --


def test_piece_follows_its_slot() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"a", b"b")
    proxy.cluster.sent(0)
    proxy.cluster.answer(0, b"-MOVED %d node-b:2\r\n" % slot_of(b"b"))
    assert proxy.cluster.sent(1) == [[b"MGET", b"b"]]
    proxy.cluster.answer(1, array([b"moved"]))
    serve(proxy.cluster, [2])
    assert client.hear() == array([b"of a", b"moved"])


@pytest.mark.parametrize(
    ("command", "apart", "replies", "merged"),
    [
        (
            "MGET b {b}2 b",
            ["MGET b", "MGET {b}2", "MGET b"],
            array([b"1"]) + array([b"2"]) + array([b"3"]),
            array([b"1", b"2", b"3"]),
        ),
        ("DEL b {b}2", ["DEL b", "DEL {b}2"], b":1\r\n:0\r\n", b":1\r\n"),
        ("MSET b 1 {b}2 2", ["MSET b 1", "MSET {b}2 2"], b"+OK\r\n+OK\r\n", b"+OK\r\n"),
        (
            "MSET b 1 {b}2 2",
            ["MSET b 1", "MSET {b}2 2"],
            b"+OK\r\n-OOM command not allowed\r\n",
            b"-OOM 1 of 2 keys were written, then: command not allowed\r\n",
        ),
    ],
)
def test_half_migrated_slot_takes_its_command_key_by_key(
    command: str, apart: list[str], replies: bytes, merged: bytes
) -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(*words(command))
    client.say(b"PING")
    proxy.cluster.sent(0)
    proxy.cluster.answer(0, TRYAGAIN)
    assert proxy.cluster.sent(0) == [words(piece) for piece in apart]
    proxy.cluster.answer(0, replies)
    assert client.hear() == merged + PONG
    assert client.session.under_way == proxy.cluster.tick.under_way == 0


def test_piece_for_a_half_migrated_slot_is_taken_apart_alone() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"a", b"b", b"{b}2", b"c")
    proxy.cluster.sent(0)
    serve(proxy.cluster, [1])
    proxy.cluster.answer(0, TRYAGAIN)
    assert proxy.cluster.sent(0) == [[b"MGET", b"b"], [b"MGET", b"{b}2"]]
    serve(proxy.cluster, [2])
    proxy.cluster.answer(0, array([b"1"]))
    proxy.cluster.answer(0, b"-ASK %d node-b:2\r\n" % slot_of(b"b"))
    assert proxy.cluster.sent(1) == [[b"ASKING"], [b"MGET", b"{b}2"]]
    assert client.hear() == b""
    proxy.cluster.answer(1, b"+OK\r\n" + array([b"2"]))
    assert client.hear() == array([b"of a", b"1", b"2", b"of c"])


def test_one_key_is_not_taken_apart_but_tried_again() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"a", b"b")
    proxy.cluster.sent(0)
    proxy.cluster.answer(0, TRYAGAIN)
    assert proxy.cluster.sent(0) == []
    proxy.cluster.loop.advance(1.0)
    serve(proxy.cluster)
    assert client.hear() == array([b"of a", b"of b"])


def test_what_no_policy_can_merge_is_not_taken_apart() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"SUNION", b"b", b"{b}2")
    proxy.cluster.sent(0)
    proxy.cluster.answer(0, TRYAGAIN)
    proxy.cluster.loop.advance(1.0)
    assert proxy.cluster.sent(0) == [[b"SUNION", b"b", b"{b}2"]]


def test_keys_taken_apart_go_before_what_waits_for_the_slot() -> None:
    proxy = FakeProxy()
    first, second = proxy.client(), proxy.client()
    first.say(b"SET", b"b", b"1")
    first.say(b"MSET", b"b", b"2", b"{b}2", b"2")
    proxy.cluster.sent(0)
    proxy.cluster.answer(0, b"-CLUSTERDOWN The cluster is down\r\n")
    second.say(b"SET", b"b", b"3")
    proxy.cluster.answer(0, TRYAGAIN)
    proxy.cluster.loop.advance(1.0)
    sent = [[b"SET", b"b", b"1"], [b"MSET", b"b", b"2"], [b"MSET", b"{b}2", b"2"]]
    assert proxy.cluster.sent(0) == sent
    proxy.cluster.answer(0, b"+OK\r\n" * 3)
    assert proxy.cluster.sent(0) == [[b"SET", b"b", b"3"]]
    assert first.hear() == b"+OK\r\n" * 2


# -- ghosts --


def test_client_that_leaves_turns_its_pieces_into_ghosts() -> None:
    proxy = FakeProxy()
    gone, there = proxy.client(), proxy.client()
    gone.say(b"MGET", b"a", b"b", b"c")
    there.say(b"MGET", b"a", b"b", b"c")
    serve(proxy.cluster, [1])
    gone.session.close("it left")
    serve(proxy.cluster, [2, 0])
    assert there.hear() == array([b"of a", b"of b", b"of c"])
    assert gone.stream.unsent == proxy.cluster.tick.under_way == 0


def test_reply_under_way_to_a_piece_without_a_client_is_not_kept() -> None:
    proxy = FakeProxy()
    gone, there = proxy.client(), proxy.client()
    gone.say(b"MGET", b"a", b"b")
    there.say(b"GET", b"b")
    gone.session.close("it left")
    reply = array([b"v" * 4_000_000])
    for at in range(0, len(reply), 1_000_000):
        proxy.cluster.answer(0, reply[at : at + 1_000_000])
    proxy.cluster.answer(0, bulk(b"mine"))
    assert there.hear() == bulk(b"mine")


def test_ghost_is_not_taken_apart() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"b", b"{b}2")
    proxy.cluster.sent(0)
    client.session.close("it left")
    proxy.cluster.answer(0, TRYAGAIN)
    proxy.cluster.loop.advance(1.0)
    assert proxy.cluster.sent(0) == []
    assert proxy.cluster.tick.under_way == 0


def test_muted_split_command_is_executed() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"CLIENT", b"REPLY", b"SKIP")
    client.say(b"DEL", b"a", b"b")
    client.say(b"DEL", b"a", b"b", b"c")
    serve(proxy.cluster)
    assert client.hear() == b":3\r\n"
