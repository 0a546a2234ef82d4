"""The ladder: which rung takes which command, and what it says.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rproxy.config import Clients, Secret
from rproxy.probe import Probe
from rproxy.routing.commands import built_in, merge
from rproxy.routing.specs import CommandSpec
from rproxy.wire.frames import pack
from tests.fakes import FakeProxy, bulk, on_a_loop, serve

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
NEEDS_AUTH = b"-NOAUTH Authentication required.\r\n"
PONG = b"+PONG\r\n"

HERE, ONE_NODE, MORE_NODES, OWN_LINK, LATER = (
    "answered here",
    "sent to a node",
    "sent to several nodes",
    "waits for a link of its own",
    "waits for what it needs",
)
REFUSED = "rproxy refuses"
NOT_SERVED = "rproxy does not serve"


def every_command() -> Iterator[CommandSpec]:
    """The commands of Redis 7.0, and instead of containers their subcommands."""
    for spec in built_in():
        yield from spec.subcommands.values() or [spec]


def shortest(spec: CommandSpec) -> list[bytes]:
    """A request of that command with as few arguments as it takes."""
    words = spec.name.encode().split(b"|")
    return words + [b"1"] * (abs(spec.arity) - len(words))


def outcome(words: list[bytes]) -> str:
    """What becomes of the request as a client's first one."""
    proxy = FakeProxy()
    client = proxy.client()
    client.say(*words)
    nodes = sum(bool(proxy.cluster.sent(index)) for index in range(3))
    if nodes:
        return ONE_NODE if nodes == 1 else MORE_NODES
    if proxy.cluster.lanes[2].leases.making:
        return OWN_LINK
    heard = client.hear().decode()
    for refusal in (REFUSED, NOT_SERVED):
        if heard.startswith(f"-ERR {refusal} '"):
            return refusal
    return HERE if heard else LATER


OUTCOMES = {
    REFUSED: """
        acl|deluser acl|getuser acl|list acl|load acl|log acl|save acl|setuser bgrewriteaof
        bgsave config|resetstat config|rewrite config|set debug|sdslen debug|listpack
        debug|ziplist debug|htstats-key debug|digest-value failover module|load module|loadex
        module|unload pfdebug pfselftest replicaof save slaveof
    """,
    NOT_SERVED: """
        psync replconf script|debug shutdown sync
    """,
    OWN_LINK: """
        function|kill script|kill
        blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin wait watch
    """,
    LATER: """
        script|exists monitor psubscribe randomkey scan ssubscribe subscribe
    """,
    MORE_NODES: """
        dbsize flushall flushdb function|delete function|flush function|load
        function|restore function|stats info keys lastsave latency|doctor latency|graph
        latency|histogram latency|history latency|latest latency|reset memory|doctor
        memory|malloc-stats memory|purge memory|stats pubsub|channels pubsub|numpat
        pubsub|numsub pubsub|shardchannels pubsub|shardnumsub role script|flush
        script|load slowlog|get slowlog|len slowlog|reset
    """,
    HERE: """
        acl|whoami asking auth client|caching client|getname client|getredir client|id
        client|info client|kill client|list client|no-evict client|pause client|reply
        client|setname client|tracking client|trackinginfo client|unblock client|unpause
        cluster|addslots cluster|addslotsrange cluster|bumpepoch cluster|count-failure-reports
        cluster|countkeysinslot cluster|delslots cluster|delslotsrange cluster|failover
        cluster|flushslots cluster|forget cluster|getkeysinslot cluster|help cluster|info
        cluster|keyslot cluster|links cluster|meet cluster|myid cluster|nodes cluster|replicas
        cluster|replicate cluster|reset cluster|saveconfig cluster|set-config-epoch
        cluster|setslot cluster|shards cluster|slaves cluster|slots discard echo exec hello
        multi ping punsubscribe quit readonly readwrite reset select sunsubscribe time
        unsubscribe unwatch
    """,
}


@on_a_loop
async def test_every_command_of_redis_has_its_rung() -> None:
    """All that the table does not name is sent to a node."""
    expected = {name: where for where, names in OUTCOMES.items() for name in names.split()}
    found = {spec.name: outcome(shortest(spec)) for spec in every_command()}
    assert {name: where for name, where in found.items() if where != ONE_NODE} == expected
    assert len(found) - len(expected) == 213


def test_locked_out_are_all_but_those_that_log_in_or_leave() -> None:
    proxy = FakeProxy(Clients(password=Secret("secret")))
    let_in = set()
    for spec in every_command():
        heard = proxy.client().ask(*shortest(spec))
        if heard != NEEDS_AUTH:
            let_in.add(spec.name)
    assert let_in == {"auth", "hello", "quit", "reset"}
    assert proxy.cluster.tick.under_way == 0


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (
            "CONFIG SET maxmemory 1",
            "rproxy refuses 'config set': it administers servers; "
            'admin_commands = "allow" permits it',
        ),
        (
            "shutdown NOSAVE",
            "rproxy does not serve 'shutdown' yet: it ends one node: send it to that node",
        ),
    ],
)
def test_what_is_not_served_says_why(command: str, text: str) -> None:
    client = FakeProxy().client()
    assert client.ask(*command.encode().split()) == f"-ERR {text}\r\n".encode()
    assert client.ask(b"PING") == PONG


# -- attacks --


class Notes(Probe):
    """Remembers who broke the protocol."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, str]] = []

    def client_broke_protocol(self, client: str, trouble: str) -> None:
        self.broken.append((client, trouble))


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1\r\n", b"Host: x\r\n", b"post\r\n"])
@pytest.mark.parametrize("password", ["", "secret"])
def test_http_is_answered_with_silence(line: bytes, password: str) -> None:
    proxy = FakeProxy(Clients(password=Secret(password)))
    notes = proxy.engine.probe = Notes()
    client = proxy.client()
    client.send(line + pack([b"SET", b"b", b"1"]))
    assert client.hear() == b""
    assert client.reasons == ["closed"]
    assert proxy.cluster.sent(0) == []
    assert notes.broken == [("127.0.0.1:1", "an HTTP request")]


def test_http_is_an_attack_even_where_servers_know_its_words() -> None:
    proxy = FakeProxy()
    shared = proxy.engine.shared
    shared.commands = merge(shared.commands, [[b"post", -1, [b"fast"], 0, 0, 0]])
    client = proxy.client()
    client.say(b"POST", b"/")
    assert client.reasons == ["closed"]


# -- blocking commands --


@pytest.mark.parametrize(
    ("command", "blocks"),
    [
        ("XREAD STREAMS b $", False),
        ("XREAD COUNT 1 STREAMS b $", False),
        ("XREAD BLOCK 0 STREAMS b $", True),
        ("XREAD count 1 block 0 streams b $", True),
        ("XREAD BLOCK 0 COUNT 1 STREAMS b $", True),
        ("XREAD STREAMS block $", False),
        ("XREAD COUNT 1 STREAMS {b}block {b} 0 block", False),
        ("XREADGROUP GROUP g me STREAMS b >", False),
        ("XREADGROUP GROUP g me NOACK COUNT 1 STREAMS b >", False),
        ("XREADGROUP GROUP g me BLOCK 0 STREAMS b >", True),
        ("XREADGROUP GROUP streams me BLOCK 0 STREAMS b >", True),
        ("XREADGROUP GROUP g streams NOACK BLOCK 0 STREAMS b >", True),
        ("XREADGROUP GROUP block block STREAMS b >", False),
        ("XREADGROUP GROUP g me COUNT 1 NOACK STREAMS block >", False),
    ],
)
def test_streams_block_only_when_told_to(command: str, blocks: bool) -> None:
    assert outcome(command.encode().split()) == (OWN_LINK if blocks else ONE_NODE)


# -- one slot, or several --


def test_split_command_with_keys_of_one_slot_goes_whole() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"MGET", b"b", b"{b}2", b"b")
    assert proxy.cluster.sent(0) == [[b"MGET", b"b", b"{b}2", b"b"]]


@pytest.mark.parametrize(
    "command", ["RENAME a b", "MSETNX a 1 b 2", "SUNION a b", "EVAL x 2 a b", "SINTERCARD 2 a b"]
)
def test_keys_in_several_slots(command: str) -> None:
    proxy = FakeProxy()
    client = proxy.client()
    assert client.ask(*command.encode().split()) == CROSS_SLOT
    assert proxy.cluster.tick.under_way == 0
    assert client.ask(b"PING") == PONG


# Commands of a module as a server tells them: the policies decide, no name does.
SUMMED = [b"m.count", -2, [b"readonly"], 1, -1, 1, [], [b"request_policy:multi_shard"], [], []]


def learnt(*tips: bytes) -> FakeProxy:
    """A proxy whose servers know M.COUNT, with those tips."""
    proxy = FakeProxy()
    shared = proxy.engine.shared
    shared.commands = merge(shared.commands, [[*SUMMED[:7], list(tips), [], []]])
    return proxy


def test_command_of_a_module_is_split_where_its_policies_allow() -> None:
    proxy = learnt(b"request_policy:multi_shard", b"response_policy:agg_sum")
    client = proxy.client()
    client.say(b"M.COUNT", b"a", b"b")
    assert [proxy.cluster.sent(index) for index in (0, 2)] == [
        [[b"m.count".upper(), b"b"]],
        [[b"m.count".upper(), b"a"]],
    ]
    proxy.cluster.answer(0, b":1\r\n")
    proxy.cluster.answer(2, b":2\r\n")
    assert client.hear() == b":3\r\n"


@pytest.mark.parametrize(
    "tips",
    [
        [b"request_policy:multi_shard", b"response_policy:agg_max"],
        [b"request_policy:multi_shard", b"response_policy:special"],
        [],
    ],
)
def test_command_whose_replies_cannot_be_merged_stays_whole(tips: list[bytes]) -> None:
    proxy = learnt(*tips)
    client = proxy.client()
    assert client.ask(b"M.COUNT", b"a", b"b") == CROSS_SLOT
    client.say(b"M.COUNT", b"b", b"{b}2")
    assert proxy.cluster.sent(0) == [[b"M.COUNT", b"b", b"{b}2"]]


def test_command_of_a_module_for_every_node() -> None:
    proxy = learnt(b"request_policy:all_shards", b"response_policy:agg_sum")
    client = proxy.client()
    client.say(b"M.COUNT", b"b")
    for index in range(3):
        assert proxy.cluster.sent(index) == [[b"M.COUNT", b"b"]]
        proxy.cluster.answer(index, b":2\r\n")
    assert client.hear() == b":6\r\n"


def test_command_for_every_node_whose_replies_cannot_be_merged() -> None:
    client = learnt(b"request_policy:all_shards", b"response_policy:special").client()
    why = b"it concerns every node"
    assert client.ask(b"M.COUNT", b"b") == (
        b"-ERR rproxy does not serve 'm.count' yet: " + why + b"\r\n"
    )


# -- any node --


@pytest.mark.parametrize(
    "command",
    [
        "EVAL x 0",
        "EVAL x abc",  # the node says what is wrong with it
        "EVAL x 2 a",
        "LOLWUT",
        "COMMAND COUNT",
        "COMMAND",
        "CLIENT HELP",
        "OBJECT HELP",
        "CONFIG HELP",
        "OBJECT FOO",
        "CONFIG FOO a",
        "ACL FOO",
    ],
)
def test_any_node_answers(command: str) -> None:
    """Each time another one; the reply keeps its place."""
    proxy = FakeProxy()
    client = proxy.client()
    words = command.encode().split()
    for _ in range(3):
        client.say(*words)
    client.say(b"PING")
    assert [proxy.cluster.sent(index) for index in range(3)] == [[words]] * 3
    for index in range(3):
        proxy.cluster.answer(index, b"+from a node\r\n")
    assert client.hear() == b"+from a node\r\n" * 3 + PONG


def test_channel_of_a_shard_has_a_slot() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"SPUBLISH", b"c", b"m")
    client.say(b"GET", b"b")
    assert proxy.cluster.sent(1) == [[b"SPUBLISH", b"c", b"m"]]
    proxy.cluster.answer(1, b":0\r\n")
    serve(proxy.cluster)
    assert client.hear() == b":0\r\n" + bulk(b"of b")


def test_a_modules_command_for_all_keys_is_not_answered_by_one_node() -> None:
    proxy = FakeProxy()
    announced = [[b"ts.queryindex", -2, [b"readonly"], 0, 0, 0]]
    proxy.engine.genuine = merge(built_in(), announced)
    proxy.engine.use_table()
    client = proxy.client()
    client.say(b"TS.QUERYINDEX", b"a=b")
    assert client.hear().startswith(b"-ERR rproxy does not serve 'ts.queryindex'")
    assert not any(proxy.cluster.sent(index) for index in range(3))
