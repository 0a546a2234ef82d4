"""PROXY: what it says is what happens.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rproxy.config import Clients, PinRule, Secret
from rproxy.engine import ways
from rproxy.engine.broadcast import POLICIES
from rproxy.engine.explain import HOW, INSTEAD, KEY_SHOWN, MERGED, MOST_SHOWN, MOST_WORDS
from rproxy.routing.slots import slot_of
from rproxy.routing.split import cut_request
from rproxy.topology.slotmap import SlotMap
from rproxy.upstream.cluster import parse_reply
from tests.engine.trackers import tracker
from tests.fakes import NODES, FakeClient, FakeProxy, even_map, on_a_loop

CROSS_SLOT = b"CROSSSLOT Keys in request don't hash to the same slot"


def told(client: FakeClient, *words: bytes) -> dict[str, Any]:
    """What PROXY says, as a map."""
    found = parse_reply(client.ask(b"PROXY", *words))
    pairs = found.items() if isinstance(found, dict) else zip(*[iter(found)] * 2, strict=True)
    return {
        name.decode(): value.decode() if isinstance(value, bytes) else value
        for name, value in pairs
    }


def explained(client: FakeClient, command: str) -> dict[str, Any]:
    return told(client, b"EXPLAIN", *command.encode().split())


# -- one request --


def test_split_plan_is_the_one_that_is_followed() -> None:
    proxy = FakeProxy()
    about = explained(proxy.client(), "MGET a b {a}2 c b")
    plan = cut_request(proxy.engine.meant, [b"mget", b"a", b"b", b"{a}2", b"c", b"b"])
    assert about["treatment"] == "split"
    assert [slot for slot, _, _ in about["pieces"]] == plan.slots
    assert about["pieces"] == [
        [slot_of(b"a"), b"node-c:3", 2],
        [slot_of(b"b"), b"node-a:1", 2],
        [slot_of(b"c"), b"node-b:2", 1],
    ]
    assert about["merged"] == "elements in the order of the keys"


def test_cross_slot_says_what_to_do() -> None:
    about = explained(FakeProxy().client(), "SUNION a b")
    assert about["treatment"] == "crossslot"
    assert about["error"] == CROSS_SLOT.decode()
    assert "hash tag" in about["instead"]
    assert about["keys"] == [[b"a", slot_of(b"a")], [b"b", slot_of(b"b")]]
    assert [slot[1] for slot in about["slots"]] == [b"node-c:3", b"node-a:1"]


def test_pinned_keys_are_shown_as_clients_call_them() -> None:
    rule = PinRule((b"arq:",), b"arq:")
    client = FakeProxy(pin=(rule,)).client()
    about = explained(client, "RENAME arq:1 arq:2")
    slot = slot_of(b"{arq:}")
    assert (about["treatment"], about["pinned"]) == ("slot", 2)
    assert about["keys"] == [[b"arq:1", slot], [b"arq:2", slot]]
    assert [row[0] for row in about["slots"]] == [slot]


def test_gate_that_holds_the_slot_is_shown() -> None:
    proxy = FakeProxy()
    proxy.client().say(b"GET", b"b")
    proxy.cluster.adopt(even_map((NODES[1], NODES[1], NODES[2])))
    (row,) = explained(proxy.client(), "GET b")["slots"]
    assert row == [slot_of(b"b"), b"node-b:2", b"held: the slot changes hands"]


def test_slot_without_a_node() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    proxy.cluster.adopt(SlotMap.empty())
    assert explained(client, "GET b")["slots"] == [
        [slot_of(b"b"), b"none", b"held: no node owns the slot"]
    ]
    assert "slot map" in explained(client, "DBSIZE")["nodes"]


def test_write_in_a_pause() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.ask(b"CLIENT", b"PAUSE", b"1000", b"WRITE")
    about = explained(client, "SET b 1")
    assert (about["treatment"], about["then"]) == ("paused", "slot")
    assert explained(client, "GET b")["treatment"] == "slot"
    client.ask(b"CLIENT", b"UNPAUSE")
    assert explained(client, "SET b 1")["treatment"] == "slot"


def test_client_under_monitor() -> None:
    client = FakeProxy().client()
    client.session.monitor(True)
    assert explained(client, "GET b")["treatment"] == "confined"
    assert explained(client, "PING")["treatment"] == "rproxy"


@pytest.mark.parametrize("words", ["TRACKING ON", "TRACKING ON BCAST PREFIX a", "CACHING YES"])
def test_tracking_is_told_of_and_not_begun(words: str) -> None:
    proxy = FakeProxy()
    client = proxy.client()
    assert explained(client, f"CLIENT {words}")["treatment"] == "rproxy"
    assert not proxy.engine.tracking.invalidations.wanted
    assert client.identity.tracker is None
    in_general = told(client, b"COMMANDS")
    for name in ("tracking", "caching", "getredir", "trackinginfo"):
        assert in_general[f"client|{name}"] == "rproxy"


def test_client_that_tracks() -> None:
    """What it has explained does not count as read."""
    proxy = FakeProxy()
    client = tracker(proxy)
    assert explained(client, "GET b")["treatment"] == "slot"
    assert proxy.engine.tracking.table.keys == 0


def test_watch_of_another_slot() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"WATCH", b"a")
    proxy.run()
    proxy.cluster.lease(2).stream.feed(b"+OK\r\n")
    assert client.hear() == b"+OK\r\n"
    for command in ("RESET", "QUIT", "HELLO 3", "EXEC"):
        assert explained(client, command)["treatment"] in ("rproxy", "transaction")
    assert explained(client, "WATCH b")["treatment"] == "crossslot"
    assert explained(client, "WATCH {a}2")["treatment"] == "transaction"
    assert client.ask(b"WATCH", b"b") == b"-" + CROSS_SLOT + b"\r\n"
    assert client.session.pin is not None  # what is watched stays watched


@pytest.mark.parametrize(
    "command",
    ["AUTH SESAME", "HELLO 3 AUTH me SESAME", "SET b SESAME", "CONFIG SET requirepass SESAME",
     "ACL SETUSER me >SESAME", "MIGRATE h 1 b 0 9 AUTH SESAME", "EVAL SESAME 1 b SESAME",
     "CLIENT SESAME", "GET b SESAME", "NO-SUCH SESAME", "gone SESAME", "DEBUG SESAME"],
)  # fmt: skip
def test_arguments_that_are_no_keys_are_not_repeated(command: str) -> None:
    client = FakeProxy(rename={"gone": ""}, admin_commands="allow").client()
    client.proxy.engine._unknown[b"no-such"] = float("inf")
    heard = client.ask(b"PROXY", b"EXPLAIN", *command.encode().split())
    assert b"treatment" in heard
    assert b"SESAME" not in heard


def test_long_requests_and_keys_are_cut() -> None:
    client = FakeProxy().client()
    keys = [b"%d" % number for number in range(MOST_WORDS - 1)]
    about = told(client, b"EXPLAIN", b"DEL", *keys)
    assert about["key_count"] == len(keys)
    assert [len(about[part]) for part in ("keys", "slots", "pieces")] == [MOST_SHOWN] * 3
    assert client.ask(b"PROXY", b"EXPLAIN", b"DEL", *keys, b"x").startswith(b"-ERR PROXY EXPLAIN")
    ((key, _),) = told(client, b"EXPLAIN", b"GET", b"k" * 1000)["keys"]
    assert len(key) == KEY_SHOWN


# -- names that the table lacks --


@on_a_loop
async def test_servers_are_asked_of_an_unknown_name() -> None:
    proxy = FakeProxy()
    proxy.cluster.known[b"json.get"] = [[b"json.get", -2, [b"readonly"], 1, 1, 1]]
    client = proxy.client()
    client.say(b"PROXY", b"EXPLAIN", b"JSON.GET", b"b")
    await asyncio.sleep(0)
    proxy.run()
    heard = client.hear()
    assert b"json.get" in heard
    assert b"node-a:1" in heard
    assert client.ask(b"PING") == b"+PONG\r\n"


@on_a_loop
async def test_name_that_servers_do_not_know() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"PROXY", b"EXPLAIN", b"FOO", b"x")
    client.say(b"PROXY", b"COMMANDS", b"foo")
    await asyncio.sleep(0)
    proxy.run()
    heard = client.hear()
    error = b"ERR unknown command 'FOO', with args beginning with: "
    assert b"$7\r\nunknown\r\n" in heard
    assert error in heard
    assert heard.endswith(b"-" + error.replace(b"FOO", b"foo") + b"\r\n")
    assert len(proxy.cluster.asked) == 1


# -- COMMANDS --


@pytest.mark.parametrize("form", [[b"config|get"], [b"CONFIG", b"GET"], [b"CONFIG|get"]])
def test_forms_of_a_name(form: list[bytes]) -> None:
    about = told(FakeProxy().client(), b"COMMANDS", *form)
    assert (about["name"], about["arity"], about["treatment"]) == ("config|get", -3, "any")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("get", {"keys": "keys: argument 1", "request_policy": "none", "treatment": "slot"}),
        ("mset", {"keys": "keys: arguments 1 to the last, every 2.", "treatment": "split"}),
        ("zunion", {"keys": "keys where the servers' key specifications say"}),
        ("spublish", {"keys": "channels: argument 1", "treatment": "pubsub"}),
        ("ping", {"keys": "none", "treatment": "rproxy"}),
        ("bgsave", {"response_policy": "all_succeeded", "treatment": "refused"}),
        ("dbsize", {"merged": "the sum", "treatment": "masters"}),
        ("shutdown", {"instead": "send it to the node that it concerns"}),
        ("exists", {"merged": "the sum", "flags": [b"fast", b"readonly"]}),
    ],
)
def test_one_command_in_detail(name: str, expected: dict[str, Any]) -> None:
    about = told(FakeProxy().client(), b"COMMANDS", name.encode())
    assert {field: about[field] for field in expected} == expected


def test_unknown_subcommand() -> None:
    heard = FakeProxy().client().ask(b"PROXY", b"COMMANDS", b"config", b"foo")
    assert heard == b"-ERR unknown subcommand. Try CONFIG HELP.\r\n"
    heard = FakeProxy().client().ask(b"PROXY", b"COMMANDS", b"config", b"b", b"c")
    assert heard == b"-ERR wrong number of arguments for 'proxy|commands' command\r\n"


def test_new_name_is_told_only_to_who_knows_it() -> None:
    client = FakeProxy(rename={"flushall": "sesame", "keys": ""}).client()
    assert b"sesame" not in client.ask(b"PROXY", b"COMMANDS")
    assert b"sesame" not in client.ask(b"PROXY", b"COMMANDS", b"flushall")
    assert b"sesame" not in client.ask(b"PROXY", b"EXPLAIN", b"flushall")
    assert told(client, b"COMMANDS")["flushall"] == "renamed"
    assert told(client, b"COMMANDS", b"Sesame")["name"] == "flushall"
    assert explained(client, "sesame async")["command"] == "flushall"


def test_resp3_has_maps() -> None:
    client = FakeProxy().client()
    client.ask(b"HELLO", b"3")
    for words in ([b"COMMANDS"], [b"COMMANDS", b"get"], [b"EXPLAIN", b"get", b"b"]):
        assert client.ask(b"PROXY", *words).startswith(b"%")


def test_every_word_is_explained() -> None:
    names = {value for name, value in vars(ways).items() if name.isupper() and type(value) is str}
    assert set(HOW) == names
    assert set(INSTEAD) < names
    assert set(MERGED) == {*POLICIES, "", "special"}


# -- a command like others --


def test_arity_and_unknown_subcommand() -> None:
    client = FakeProxy().client()
    assert client.ask(b"PROXY") == b"-ERR wrong number of arguments for 'proxy' command\r\n"
    wrong = b"-ERR wrong number of arguments for 'proxy|explain' command\r\n"
    assert client.ask(b"PROXY", b"EXPLAIN") == wrong
    assert client.ask(b"PROXY", b"x") == b"-ERR unknown subcommand 'x'. Try PROXY HELP.\r\n"
    assert client.ask(b"proxy", b"help").startswith(b"*7\r\n+PROXY <subcommand>")


def test_client_that_is_locked_out() -> None:
    client = FakeProxy(Clients(password=Secret("secret"))).client()
    for sub in (b"HELP", b"COMMANDS"):
        assert client.ask(b"PROXY", sub) == b"-NOAUTH Authentication required.\r\n"


def test_operator_denies_and_renames_it() -> None:
    client = FakeProxy(deny=("proxy|explain",)).client()
    assert client.ask(b"PROXY", b"EXPLAIN", b"GET", b"b").startswith(b"-NOPERM")
    assert client.ask(b"PROXY", b"HELP").startswith(b"*")
    client = FakeProxy(rename={"proxy": "ours"}).client()
    assert client.ask(b"OURS", b"HELP").startswith(b"*")
    assert client.ask(b"PROXY", b"HELP").startswith(b"-ERR unknown command 'PROXY'")


def test_inside_multi() -> None:
    client = FakeProxy().client()
    client.ask(b"MULTI")
    refused = b"-ERR rproxy does not serve 'proxy help' inside a transaction: "
    assert client.ask(b"PROXY", b"HELP").startswith(refused)
    assert client.ask(b"EXEC").startswith(b"-EXECABORT")


def test_servers_command_of_that_name_is_not_ours() -> None:
    proxy = FakeProxy()
    proxy.engine._learnt([[b"proxy", 9, [b"write"], 1, 1, 1]])
    client = proxy.client()
    assert client.ask(b"PROXY", b"HELP").startswith(b"*")
    assert told(client, b"COMMANDS", b"proxy")["arity"] == -2
