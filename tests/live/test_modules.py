"""Commands that no table has: of a module of the tests' own (module.c), loaded into the servers.

The same conversation is held with a plain server that has the module and, through rproxy, with a
cluster whose nodes have it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import find_server
from rproxy.routing.slots import slot_of
from rproxy.upstream.cluster import parse_reply
from tests.conftest import ClusterMaker
from tests.live.plain import Plain, is_modern, plain_server
from tests.live.proxies import Proxy, Wire, running

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
PINNED = '[[pin]]\nprefix = "pin:"\n'


@pytest.fixture(scope="module")
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module, compiled."""
    if request.config.getoption("backend") == "docker":
        pytest.skip("containers do not see the module's file")
    file = tmp_path_factory.mktemp("module") / "own.so"
    source = Path(__file__).with_name("module.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", file, source], check=True)
    return file


@pytest.fixture(scope="module")
def nodes(new_cluster: ClusterMaker, module: Path) -> Iterator[LocalCluster]:
    """A cluster that has the module."""
    with new_cluster(masters=3, replicas=0, options={"loadmodule": str(module)}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def front(nodes: LocalCluster) -> Iterator[Proxy]:
    """A proxy in front of it; keys that begin with `pin:` share a slot."""
    with running(nodes, config=PINNED) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def one(nodes: LocalCluster, module: Path) -> Iterator[Plain]:
    """A plain server that has it."""
    with plain_server(nodes.server or find_server(), "--loadmodule", str(module)) as plain:
        yield plain


@pytest.fixture
def permission(nodes: LocalCluster) -> dict[str, str]:
    """The option without which servers since 7.0 load no module later."""
    is_new = is_modern(nodes.server or find_server())
    return {"enable-module-command": "yes"} if is_new else {}


@pytest.fixture
def modern(nodes: LocalCluster) -> None:
    """For what servers can announce since 7.0."""
    if not is_modern(nodes.server or find_server()):
        pytest.skip("needs a server of version 7.0 or newer")


@pytest.fixture
def client(front: Proxy) -> Iterator[Wire]:
    with front.connect() as wire:
        wire.ask(b"FLUSHALL")
        yield wire


@pytest.fixture
def judge(one: Plain) -> Iterator[Wire]:
    with one.connect() as wire:
        wire.ask(b"FLUSHALL")
        yield wire


def explained(client: Wire, command: str) -> dict[str, Any]:
    """What PROXY EXPLAIN says of it."""
    found = parse_reply(client.ask(b"PROXY", b"EXPLAIN", *command.encode().split()))
    return {
        name.decode(): value.decode() if isinstance(value, bytes) else value
        for name, value in zip(found[::2], found[1::2], strict=True)
    }


def held(client: Wire, commands: str) -> list[bytes]:
    """The replies to commands, a line each, sent in one go."""
    lines = [line.split() for line in commands.encode().strip().splitlines()]
    for words in lines:
        client.send(*words)
    return client.replies(len(lines))


CONVERSATIONS = {
    "documents": """
        JSON.SET a $ 1
        JSON.MSET b $ 2 c $ 3 {a}2 $ 4
        JSON.GET c $
        JSON.MGET a b nothing c a {a}2 $
        JSON.MGET a $
        JSON.MGET a {a}2 $.x
        MGET a b c
    """,
    "documents' errors": """
        JSON.MGET a b c path
        JSON.MSET a path 1 b path 2
        JSON.GET a
    """,
    "a filter": """
        BF.ADD a 1
        BF.EXISTS a 1
        BF.EXISTS b 1
    """,
    "two places": """
        OWN.TWO {a}1 v no {a}2
        MGET {a}1 {a}2 no
    """,
    "counted keys": """
        SET {a}1 xx
        SET {a}2 yyy
        OWN.COUNT 2 {a}1 {a}2 b
        OWN.COUNT 3 {a}1 {a}2
        OWN.COUNT x {a}1
        OWN.HIDDEN 2 {a}1 {a}2 b
        OWN.HIDDEN 1 {a}2 c b
        OWN.HIDDEN
        OWN.HIDDEN 0
        OWN.HIDDEN 5 a
        OWN.STORE {a}3 2 {a}1 {a}2
        OWN.PARTLY {a}4 1 {a}1 b
        MGET {a}3 {a}4
    """,
    "no keys": """
        OWN.ONE
        OWN.ONE x
        OWN.NOTHING x
    """,
    "a transaction": """
        SET {a}1 xx
        MULTI
        JSON.SET {a}2 $ yyy
        OWN.HIDDEN 2 {a}1 {a}2
        JSON.MGET {a}1 {a}2 $
        OWN.STORE {a}3 1 {a}2 z
        JSON.MSET {a}1 $ 1 {a}2 $ 2
        OWN.ONE
        EXEC
        MGET {a}1 {a}2 {a}3
    """,
    "a transaction that begins with hidden keys": """
        JSON.SET b $ 12345
        MULTI
        OWN.HIDDEN 1 b
        OWN.HIDDEN 1 b
        JSON.GET b $
        EXEC
    """,
}


@pytest.mark.parametrize("topic", CONVERSATIONS)
def test_same_conversation(client: Wire, judge: Wire, topic: str) -> None:
    assert held(client, CONVERSATIONS[topic]) == held(judge, CONVERSATIONS[topic])


@pytest.mark.parametrize("topic", CONVERSATIONS)
def test_same_conversation_step_by_step(client: Wire, judge: Wire, topic: str) -> None:
    for line in CONVERSATIONS[topic].strip().splitlines():
        assert held(client, line) == held(judge, line), line


@pytest.mark.usefixtures("modern")
def test_half_of_the_arguments_are_keys(client: Wire, judge: Wire) -> None:
    """Servers of 7.0 announce it, but their own check in a cluster takes all of them for keys."""
    lines = "OWN.HALF {a}1 {a}2 {a}x {a}y\nMGET {a}1 {a}2 {a}x\nOWN.COUNT 1 {a}1"
    assert held(client, lines) == held(judge, lines)
    about = explained(client, "OWN.HALF {a}1 {a}2 x y")
    assert (about["treatment"], about["key_count"]) == ("slot", 2)
    assert client.ask(b"OWN.HALF", b"a", b"b", b"a", b"a") == CROSS_SLOT


@pytest.mark.usefixtures("modern")
def test_policies_that_servers_tell(client: Wire) -> None:
    assert client.ask(b"OWN.SUM") == b":3\r\n"
    assert explained(client, "OWN.SUM")["merged"] == "the sum"


@pytest.mark.parametrize(
    "command",
    [
        "OWN.TWO a v no b",
        "OWN.COUNT 2 a b",
        "OWN.HIDDEN 2 a b",
        "OWN.STORE a 1 b",
        "OWN.PARTLY a 1 b",
    ],
)
def test_keys_of_several_slots(client: Wire, command: str) -> None:
    assert held(client, command) == [CROSS_SLOT]
    about = explained(client, command)
    assert about["treatment"] == "crossslot"
    assert [key for key, _ in about["keys"]] == [b"a", b"b"]
    aborted = held(client, f"MULTI\nSET a 1\n{command}\nGET a\nEXEC")
    assert aborted[2] == CROSS_SLOT
    assert aborted[4].startswith(b"-EXECABORT")
    assert client.ask(b"EXISTS", b"a", b"b") == b":0\r\n"


def test_what_explain_tells(client: Wire) -> None:
    about = explained(client, "JSON.MGET a b {a}2 $")
    assert (about["treatment"], about["key_count"]) == ("split", 3)
    assert [count for _, _, count in about["pieces"]] == [2, 1]
    about = explained(client, "JSON.MSET a $ 1 b $ 2")
    assert (about["treatment"], about["key_count"]) == ("split", 2)
    about = explained(client, "OWN.HIDDEN 2 {a}1 {a}2 b")
    assert about["treatment"] == "slot"
    assert about["keys"] == [[b"{a}1", slot_of(b"a")], [b"{a}2", slot_of(b"a")]]
    assert explained(client, "OWN.HIDDEN 0")["treatment"] == "any"
    assert explained(client, "FT.SEARCH i *")["treatment"] == "unserved"


def test_search_is_not_answered_by_one_node(client: Wire) -> None:
    reply = client.ask(b"FT.SEARCH", b"index", b"*")
    assert reply.startswith(b"-ERR rproxy does not serve 'ft.search' yet: it concerns every node")
    assert b"not serve 'ft.search' inside a transaction" in held(client, "MULTI\nFT.SEARCH i *")[1]


def test_pinned_keys(client: Wire, nodes: LocalCluster) -> None:
    """Where the keys are, a server says; which of two like arguments is the key, too."""
    assert held(client, "JSON.MSET pin:1 $ ab pin:2 $ cde x $ pin:1") == [b"+OK\r\n"]
    assert held(client, "OWN.HIDDEN 2 pin:1 pin:2") == [b":5\r\n"]
    assert held(client, "OWN.HIDDEN 1 pin:1 pin:1") == [b":2\r\n"]
    assert held(client, "OWN.STORE pin:3 2 pin:1 pin:2 pin:3") == [b":5\r\n"]
    assert held(client, "JSON.MGET pin:1 x pin:3 $") == [
        b"*3\r\n$2\r\nab\r\n$5\r\npin:1\r\n$5\r\npin:3\r\n"
    ]
    inside = held(client, "MULTI\nSET pin:4 z\nOWN.STORE pin:5 1 pin:4 pin:4\nGET pin:5\nEXEC")
    assert inside[-1] == b"*3\r\n+OK\r\n:1\r\n$5\r\npin:4\r\n"
    about = explained(client, "OWN.HIDDEN 2 pin:1 pin:2 pin:1")
    assert about["pinned"] == 2
    owner = nodes.slot_owner(slot_of(b"{pin:}"))
    assert owner.call("EXISTS", *(f"{{pin:}}pin:{number}" for number in range(1, 6))) == 5


def test_many_in_one_pipeline(client: Wire) -> None:
    """Replies keep their order, whatever has to be asked on the way."""
    for number in range(200):
        client.send(b"SET", b"k%d" % number, b"v" * number)
        client.send(b"OWN.HIDDEN", b"1", b"k%d" % number)
        client.send(b"JSON.MGET", b"k%d" % number, b"nothing", b"$")
    for number in range(200):
        assert client.reply() == b"+OK\r\n"
        assert client.reply() == b":%d\r\n" % number
        value = b"$%d\r\n%b\r\n" % (number, b"v" * number)
        assert client.reply() == b"*2\r\n" + value + b"$-1\r\n"


def test_slots_move_under_splits(client: Wire, nodes: LocalCluster) -> None:
    keys = [b"k%d" % number for number in range(30)]
    client.ask(b"JSON.MSET", *(word for key in keys for word in (key, b"$", key)))
    expected = client.ask(b"MGET", *keys)
    for key in keys[:4]:
        slot = slot_of(key)
        home = nodes.slot_owner(slot)
        target = next(node for node in nodes.nodes if node is not home)
        nodes.begin_migration(slot, target.port)
        nodes.move_keys(slot)
        assert client.ask(b"JSON.MGET", *keys, b"$") == expected
        assert client.ask(b"OWN.HIDDEN", b"1", key) == b":2\r\n"
        nodes.finish_migration(slot)
        assert client.ask(b"JSON.MGET", *keys, b"$") == expected
        assert client.ask(b"OWN.HIDDEN", b"1", key) == b":2\r\n"


def test_module_is_loaded_while_the_proxy_runs(
    new_cluster: ClusterMaker, module: Path, permission: dict[str, str]
) -> None:
    """One unknown name, and everything that the module brings is known."""
    cluster = new_cluster(masters=3, replicas=0, options=permission)
    with cluster, running(cluster) as proxy, proxy.connect() as client:
        assert client.ask(b"BF.ADD", b"a", b"1").startswith(b"-ERR unknown command")
        for node in cluster.nodes:
            node.call("MODULE", "LOAD", str(module))
        client.send(b"JSON.MSET", b"a", b"$", b"1", b"b", b"$", b"2", b"c", b"$", b"3")
        client.send(b"JSON.MGET", b"a", b"b", b"c", b"$")
        assert client.reply() == b"+OK\r\n"
        assert client.reply() == b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"
        assert client.ask(b"BF.ADD", b"a", b"1") == b":1\r\n"
        assert client.ask(b"OWN.HIDDEN", b"1", b"a") == b":1\r\n"
