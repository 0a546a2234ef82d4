"""One client's commands for one key run in their order, and once, however its slot moves.

The nodes here know who owns a slot and where each of its keys lies while it moves, and answer as
servers do: MOVED, ASK, TRYAGAIN. They write down what they have executed.
"""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.fakes import NODES, FakeProxy, bulk, unpack

KEYS = (b"a", b"{a}2", b"b")
SLOTS = (slot_of(b"a"), slot_of(b"b"))
CLIENTS = 2
TARGETS = st.integers(0, len(NODES) - 1)


class Slot:
    """A slot's owner, the node that it is being moved to, and which of its keys are there."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.target = owner
        self.gone: set[bytes] = set()


class Nodes:
    """Three nodes that move slots, and their inboxes and outboxes."""

    def __init__(self, proxy: FakeProxy) -> None:
        self.cluster = proxy.cluster
        self.slots = {SLOTS[0]: Slot(2), SLOTS[1]: Slot(0)}
        self.executed: dict[bytes, list[bytes]] = defaultdict(list)
        self.inbox: list[list[list[bytes]]] = [[] for _ in NODES]
        self.asking = [False] * len(NODES)

    def move(self, slot: Slot, target: int, key: bytes) -> None:
        """The slot's move begins, takes one more key, or ends.

        The new owner has answered what it was sent before: requests that lie in its inbox while
        the slot leaves it and comes back would be refused first and executed then.
        """
        if slot.target == slot.owner:
            slot.target = target
        elif key in slot.gone:
            self.catch_up(slot.target)
            slot.owner, slot.gone = slot.target, set()
        else:
            slot.gone.add(key)

    def read(self, index: int) -> None:
        """The node takes from its socket what was written to it."""
        self.inbox[index] += unpack(self.cluster.link(index).stream.take())

    def run(self, index: int, count: int) -> None:
        """The node executes some of its requests and sends the replies."""
        requests, self.inbox[index] = self.inbox[index][:count], self.inbox[index][count:]
        self.cluster.answer(index, b"".join(self.reply(index, words) for words in requests))

    def catch_up(self, index: int) -> None:
        """The node executes everything that was sent to it."""
        self.read(index)
        self.run(index, len(self.inbox[index]))

    def reply(self, index: int, words: list[bytes]) -> bytes:
        if words == [b"ASKING"]:
            self.asking[index] = True
            return b"+OK\r\n"
        asked, self.asking[index] = self.asking[index], False
        keys = words[1:] if words[0] == b"MGET" else words[1:2]
        refusal = self.refusal(index, keys, asked)
        if refusal is not None:
            return refusal
        if words[0] == b"MGET":
            return b"*%d\r\n" % len(keys) + b"".join(bulk(b"of " + key) for key in keys)
        self.executed[keys[0]].append(words[2])
        return bulk(words[2])

    def refusal(self, index: int, keys: list[bytes], asked: bool) -> bytes | None:
        number = slot_of(keys[0])
        slot = self.slots[number]
        importing = asked and index == slot.target != slot.owner
        if index != slot.owner and not importing:
            return b"-MOVED %d %b\r\n" % (number, str(NODES[slot.owner]).encode())
        missing = [key for key in keys if (key in slot.gone) != importing]
        if not missing or slot.target == slot.owner:
            return None
        if len(missing) < len(keys) or (importing and len(keys) > 1):
            return b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"
        if importing:  # the key has not come yet, so there is none: it is made here
            slot.gone.add(keys[0])
            return None
        return b"-ASK %d %b\r\n" % (number, str(NODES[slot.target]).encode())


def settle(proxy: FakeProxy, nodes: Nodes) -> None:
    """Moves that began end, and time passes until all is answered."""
    for slot in nodes.slots.values():
        nodes.catch_up(slot.target)
        slot.owner, slot.gone = slot.target, set()
    for _ in range(100):
        for index in range(len(NODES)):
            nodes.catch_up(index)
        proxy.cluster.loop.advance(0.05)


Step = tuple[str, int, bytes]

writes = st.tuples(st.just("write"), st.integers(0, CLIENTS - 1), st.sampled_from(KEYS))
reads = st.tuples(st.just("read"), st.integers(0, CLIENTS - 1), st.just(b""))
moves = st.tuples(st.just("move"), TARGETS, st.sampled_from(KEYS))
takes = st.tuples(st.just("take"), TARGETS, st.just(b""))
runs = st.tuples(st.just("run"), TARGETS, st.just(b""))
maps = st.tuples(st.just("map"), TARGETS, st.sampled_from(KEYS))
pauses = st.tuples(st.just("pause"), TARGETS, st.just(b""))


def play(steps: list[Step]) -> None:
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(CLIENTS)]
    nodes = Nodes(proxy)
    sent: dict[tuple[bytes, int], list[bytes]] = defaultdict(list)
    expected = [b""] * CLIENTS
    for number, (what, who, key) in enumerate(steps):
        if what == "write":
            word = b"%d.%d" % (who, number)
            sent[key, who].append(word)
            expected[who] += bulk(word)
            clients[who].send(pack([b"GETSET", key, word]))
        elif what == "read":
            expected[who] += b"*3\r\n" + b"".join(bulk(b"of " + key) for key in KEYS)
            clients[who].send(pack([b"MGET", *KEYS]))
        elif what == "move":
            nodes.move(nodes.slots[slot_of(key)], who, key)
        elif what == "map":
            number = slot_of(key)
            proxy.cluster.moved(number, NODES[nodes.slots[number].owner], "a refresh")
        elif what == "take":
            nodes.read(who)
        elif what == "run":
            nodes.run(who, 1 + number % 3)
        else:
            proxy.cluster.loop.advance(0.02)
    settle(proxy, nodes)
    assert [client.hear() for client in clients] == expected
    for key in KEYS:
        for who in range(CLIENTS):
            mine = [word for word in nodes.executed[key] if word.startswith(b"%d." % who)]
            assert mine == sent[key, who]


@settings(max_examples=200)
@given(st.lists(st.one_of(writes, writes, reads, moves, maps, takes, runs, pauses), max_size=60))
def test_order_of_writes(steps: list[Step]) -> None:
    play(steps)
