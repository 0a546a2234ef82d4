"""The straight path: no Python-level call a command, and never another reply than one's own.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.fakes import NODES, FakeClient, FakeProxy, array, bulk, node_reply, unpack


def count_calls(work: Callable[[], object]) -> int:
    """Calls of Python functions and of C functions from Python, while `work` runs."""
    calls = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def round_trip(proxy: FakeProxy, client: FakeClient, number: int) -> int:
    """A pipeline of `number` commands goes to a node and back; the calls that it took."""
    requests = pack([b"GET", b"b"]) * (number // 2) + pack([b"SET", b"b", b"x"]) * (number // 2)
    replies = bulk(b"v" * 10) * (number // 2) + b"+OK\r\n" * (number // 2)
    link = proxy.cluster.link(0)

    def work() -> None:
        client.stream.feed(requests)
        link.stream.take()
        link.stream.feed(replies)

    calls = count_calls(work)
    assert client.hear() == replies
    return calls


def test_no_python_call_a_command() -> None:
    """The calls of one read are the same however many commands it brings."""
    proxy = FakeProxy()
    client = proxy.client()
    round_trip(proxy, client, 400)  # what is made once is made now
    assert round_trip(proxy, client, 200) == round_trip(proxy, client, 400)


def test_calls_are_counted() -> None:
    """Commands that are answered here take Python calls: the count above is no blind one."""
    proxy = FakeProxy()
    client = proxy.client()
    few = count_calls(lambda: client.stream.feed(pack([b"PING"]) * 10))
    many = count_calls(lambda: client.stream.feed(pack([b"PING"]) * 20))
    assert many >= few + 10


# -- whole conversations --

KEYS = (b"a", b"b", b"c", b"{a}2", b"{b}2")
MOVED, ASK, TRYAGAIN, CLUSTERDOWN, LOADING = "moved", "ask", "tryagain", "clusterdown", "loading"
TROUBLES = (MOVED, ASK, TRYAGAIN, CLUSTERDOWN, LOADING)
# All of them may meet one command: their back-offs together must be shorter than a conversation.
MOST_TROUBLES = 8

keys = st.sampled_from(KEYS)
commands = st.one_of(
    st.tuples(st.just(b"GET"), keys),
    st.tuples(st.just(b"APPEND"), keys, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just(b"MGET"), keys, keys, keys),
    st.tuples(st.just(b"DEL"), keys, keys),
    st.tuples(st.just(b"LPOP"), keys),
    st.tuples(st.just(b"ECHO"), st.binary(max_size=9)),
    st.tuples(st.just(b"PING")),
    st.tuples(st.just(b"GET")),
)
pipelines = st.lists(commands, max_size=25)


def expected_reply(command: tuple[bytes, ...]) -> bytes:
    """What one Redis would say."""
    if command == (b"PING",):
        return b"+PONG\r\n"
    if command == (b"GET",):
        return b"-ERR wrong number of arguments for 'get' command\r\n"
    if command[0] == b"ECHO":
        return bulk(command[1])
    return node_reply(list(command))


class Nodes:
    """Nodes that answer whatever was written to them, in any turns, and get into trouble."""

    def __init__(self, proxy: FakeProxy, data: st.DataObject, trouble: bool) -> None:
        self.cluster = proxy.cluster
        self.draw = data.draw
        self.trouble = trouble
        self.unread = [b""] * len(NODES)
        self.troubles = 0

    def turn(self, index: int) -> None:
        """Node `index` takes its requests, and sends some of the bytes that it has to send."""
        replies: list[bytes] = []
        asked = False
        for words in unpack(self.cluster.link(index).stream.take()):
            replies.append(self.reply(index, words, asked))
            asked = words == [b"ASKING"]
        self.unread[index] += b"".join(replies)
        size = self.draw(st.integers(0, len(self.unread[index])))
        self.send(index, size)

    def send(self, index: int, size: int) -> None:
        sent, self.unread[index] = self.unread[index][:size], self.unread[index][size:]
        self.cluster.answer(index, sent)

    def reply(self, index: int, words: list[bytes], asked: bool) -> bytes:
        if words == [b"ASKING"] or not self.trouble or self.troubles == MOST_TROUBLES:
            return node_reply(words)
        kind = self.draw(st.sampled_from((*TROUBLES, *[None] * 5)))
        slot = slot_of(words[1])
        node = NODES[self.draw(st.integers(0, 2))]
        self.troubles += kind is not None
        errors = {
            MOVED: b"-MOVED %d %b\r\n" % (slot, str(node).encode()),
            ASK: b"-ASK %d %b\r\n" % (slot, str(node).encode()),
            TRYAGAIN: b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            CLUSTERDOWN: b"-CLUSTERDOWN The cluster is down\r\n",
            LOADING: b"-LOADING Redis is loading the dataset in memory\r\n",
        }
        return node_reply(words) if kind is None else errors[kind]


def converse(data: st.DataObject, trouble: bool) -> None:
    """Three clients send random pipelines in random pieces; each gets exactly its replies."""
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(3)]
    sent = [data.draw(pipelines) for _ in clients]
    unsent = [b"".join(pack(list(command)) for command in pipeline) for pipeline in sent]
    heard = [b""] * len(clients)
    nodes = Nodes(proxy, data, trouble)
    for step in data.draw(st.lists(st.integers(0, 5), max_size=40)):
        if step < 3:
            size = data.draw(st.integers(0, len(unsent[step])))
            clients[step].send(unsent[step][:size])
            unsent[step] = unsent[step][size:]
        else:
            nodes.turn(step - 3)
        heard = [before + client.hear() for before, client in zip(heard, clients, strict=True)]
    for client, rest in zip(clients, unsent, strict=True):
        client.send(rest)
    for _ in range(80):
        for index in range(3):
            nodes.turn(index)
            nodes.send(index, len(nodes.unread[index]))
        proxy.cluster.loop.advance(0.05)
    for number, client in enumerate(clients):
        replies = b"".join(map(expected_reply, sent[number]))
        assert heard[number] + client.hear() == replies
        assert client.session.under_way == 0
    assert proxy.cluster.tick.under_way == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_conversations(data: st.DataObject) -> None:
    converse(data, trouble=False)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_random_conversations_while_slots_move(data: st.DataObject) -> None:
    converse(data, trouble=True)


@pytest.mark.parametrize("key", KEYS)
def test_keys_lie_where_the_tests_say(key: bytes) -> None:
    owners = {b"b": 0, b"c": 1, b"a": 2}
    address = FakeProxy().cluster.slotmap.owner(slot_of(key))
    assert address is not None
    assert address.address == NODES[owners[key.strip(b"{}2")]]


def test_array_of_replies() -> None:
    assert node_reply([b"MGET", b"a", b"b"]) == array([b"of a", b"of b"])
