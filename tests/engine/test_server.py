"""Server commands: where they go, and one reply of many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rproxy.engine.broadcast import rule_for
from rproxy.engine.dispatch import OWN_WAYS
from rproxy.engine.local import LOCAL
from rproxy.engine.placement import ANYWHERE, HARMLESS, NOWHERE, UNTOLD_POLICIES
from rproxy.engine.replies import encode
from rproxy.routing.commands import built_in
from rproxy.routing.specs import CommandSpec
from rproxy.upstream.cluster import parse_reply
from tests.fakes import FakeClient, FakeProxy, bulk


def specs() -> Iterator[CommandSpec]:
    """Every command and subcommand of the built-in table."""
    for spec in built_in():
        yield spec
        yield from spec.subcommands.values()


def places(spec: CommandSpec) -> list[str]:
    """Where a command without a key goes: one place, or the table is wrong."""
    root = spec.name.partition("|")[0]
    here = (root in LOCAL or spec.name in LOCAL or root == "cluster") and spec.name not in NOWHERE
    found = {
        "here": here and not spec.name.endswith("|help"),
        "any node": spec.name in ANYWHERE,
        "its own way": spec.name in OWN_WAYS,
        "every master": rule_for(spec) is not None and not here and spec.name not in OWN_WAYS,
        "nowhere": spec.name in NOWHERE,
        "a link of its own": not spec.server_flags.isdisjoint({"pubsub", "blocking"})
        or "@transaction" in spec.acl_categories
        or spec.name.startswith("pubsub|"),
    }
    return [place for place, holds in found.items() if holds]


@pytest.mark.parametrize("spec", [s for s in specs() if not s.is_keyed], ids=lambda s: s.name)
def test_every_command_without_a_key_has_one_place(spec: CommandSpec) -> None:
    found = places(spec)
    if spec.name in ("publish", "pubsub|help", "wait"):  # a category of theirs says more
        found = found[:1]
    assert len(found) == 1


def test_tables_name_commands_that_there_are() -> None:
    names = {spec.name for spec in specs()} | {"wait"}
    for table in (ANYWHERE, HARMLESS, NOWHERE, UNTOLD_POLICIES):
        assert set(table) <= names


class Asked(FakeProxy):
    """A proxy whose nodes answer a command each with a reply of their own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asker = FakeClient(self)

    def ask(self, words: list[bytes], *replies: bytes, protocol: int = 2) -> bytes:
        """The client's reply when the nodes answer `replies`; they must have been asked."""
        if protocol != self.asker.session.protocol:
            self.asker.ask(b"HELLO", b"%d" % protocol)
        self.asker.say(*words)
        for index, reply in enumerate(replies):
            assert self.cluster.sent(index, protocol) == [words]
            self.cluster.answer(index, reply, protocol)
        return self.asker.hear()


def test_info_of_all_nodes_and_of_rproxy() -> None:
    proxy = Asked()
    texts = [bulk(b"# Keyspace\r\ndb0:keys=%d,expires=0,avg_ttl=0\r\n" % n) for n in (1, 2, 4)]
    text = proxy.ask([b"INFO"], *texts)
    assert b"db0:keys=7," in text
    assert b"slots_covered:16384\r\n" in text
    assert b"# Proxy" not in proxy.ask([b"INFO", b"keyspace"], *texts)


def test_info_is_a_verbatim_string_for_resp3() -> None:
    texts = [b"=21\r\ntxt:# Server\r\nos:Li\r\n\r\n"] * 3
    size, _, body = Asked().ask([b"INFO"], *texts, protocol=3).partition(b"\r\n")
    assert size == b"=%d" % (len(body) - 2)
    assert body.startswith(b"txt:# Server\r\nos:Li\r\n")


def test_info_about_rproxy_asks_nobody() -> None:
    text = Asked().ask([b"INFO", b"proxy"])
    assert text.partition(b"\r\n")[2].startswith(b"# Proxy\r\nrproxy_version:")


def test_info_leaves_out_a_node_that_fails() -> None:
    text = Asked().ask([b"INFO"], bulk(b"# Server\r\nos:Li\r\n"), b"-NOPERM\r\n", b"-ERR\r\n")
    assert b"os:Li\r\n" in text
    assert b"masters_in_this_reply:1\r\n" in text


def test_info_says_what_clients_look_for_when_no_node_answers() -> None:
    text = Asked().ask([b"INFO"], b"-NOPERM\r\n", b"-NOPERM\r\n", b"-ERR\r\n")
    for line in (b"redis_version:7.0.0", b"redis_mode:standalone", b"role:master", b"# Proxy"):
        assert line + b"\r\n" in text


def test_config_get_is_one_node_s_but_for_what_concerns_the_connection() -> None:
    told = encode(
        {"databases": "16", "cluster-enabled": "yes", "save": "", "masterauth": "x", "port": "1"}
    )
    expected = [b"databases", b"1", b"cluster-enabled", b"no", b"save", b""]
    words = [b"CONFIG", b"GET", b"*"]
    assert parse_reply(Asked().ask(words, told)) == [
        *expected,
        b"masterauth",
        b"",
        b"port",
        b"6379",
    ]
    allowed = parse_reply(Asked(admin_commands="allow").ask(words, told))
    assert allowed[6:8] == [b"masterauth", b"x"]


def slow(number: int, when: int, command: str = "get k") -> list[object]:
    """An entry of SLOWLOG GET."""
    return [number, when, 20000, command.split(), "127.0.0.1:1", ""]


def test_slowlog_shows_the_newest_of_all_nodes() -> None:
    nodes = [encode([slow(1, 30), slow(0, 10)]), encode([slow(0, 20)]), encode([])]
    entries = parse_reply(Asked().ask([b"SLOWLOG", b"GET", b"2"], *nodes))
    assert [entry[1] for entry in entries] == [30, 20]
    assert [entry[0] for entry in entries] == [3, 1]
    entries = parse_reply(Asked().ask([b"SLOWLOG", b"GET", b"-1"], *nodes))
    assert [entry[1] for entry in entries] == [30, 20, 10]


def test_slowlog_of_one_second_is_in_the_order_that_common_commands_tell() -> None:
    logs = (
        ["get 2", "flushall", "get 1", "slowlog reset"],
        ["flushall", "set 1", "slowlog reset"],
        ["set 2", "flushall", "slowlog reset"],
    )
    nodes = [
        encode([slow(start - at, 30, command) for at, command in enumerate(log)])
        for start, log in zip((90, 50, 3), logs, strict=True)
    ]
    entries = parse_reply(Asked().ask([b"SLOWLOG", b"GET", b"-1"], *nodes))
    names = [b" ".join(entry[3]).decode() for entry in entries]
    assert sorted(names[:2]) == ["get 2", "set 2"]
    assert names[2:5] == ["flushall"] * 3
    assert sorted(names[5:7]) == ["get 1", "set 1"]
    assert names[7:] == ["slowlog reset"] * 3


@pytest.mark.parametrize("count", [b"-2", b"x", b"1.5"])
def test_slowlog_with_a_wrong_count(count: bytes) -> None:
    expected = b"-ERR count should be greater than or equal to -1\r\n"
    assert Asked().ask([b"SLOWLOG", b"GET", count]) == expected


@pytest.mark.parametrize(
    ("words", "replies", "expected"),
    [
        ("SLOWLOG LEN", [1, 2, 3], 6),
        ("LASTSAVE", [10, 5, 20], 5),
        ("LATENCY RESET", [0, 2, 1], 2),
        (
            "LATENCY LATEST",
            [[["fork", 10, 1, 9]], [["fork", 20, 2, 3], ["command", 1, 5, 5]], []],
            [[b"fork", 20, 2, 9], [b"command", 1, 5, 5]],
        ),
        ("LATENCY HISTORY fork", [[[10, 1]], [[9, 5], [10, 7]], []], [[9, 5], [10, 7]]),
        (
            "LATENCY HISTOGRAM",
            [
                {"get": {"calls": 3, "histogram_usec": {1: 1, 4: 3}}},
                {"get": {"calls": 2, "histogram_usec": {2: 2}}},
                {},
            ],
            [b"get", [b"calls", 5, b"histogram_usec", [1, 1, 2, 3, 4, 5]]],
        ),
        (
            "MEMORY STATS",
            [{"keys.count": 1, "peak.percentage": "9.5", "db.0": {"x": 1}}, {"keys.count": 2}, {}],
            [b"keys.count", 3, b"peak.percentage", b"9.5", b"db.0", [b"x", 1]],
        ),
        ("MEMORY DOCTOR", ["fine\n", "bad\n", "fine\n"], b"fine\n\nbad\n"),
        (
            "ROLE",
            [["master", 5, []], ["master", 9, [["a", "1", "9"]]], ["master", 1, []]],
            [b"master", 9, []],
        ),
    ],
)
def test_replies_of_all_nodes_become_one(words: str, replies: list[Any], expected: object) -> None:
    raw = Asked().ask(words.encode().split(), *map(encode, replies))
    assert parse_reply(raw) == expected


def test_a_graph_needs_one_node_that_has_samples() -> None:
    error = b"-ERR No samples available for event 'fork'\r\n"
    words = [b"LATENCY", b"GRAPH", b"fork"]
    assert Asked().ask(words, error, bulk(b"##"), error) == bulk(b"##")
    assert Asked().ask(words, error, error, error) == error


def test_administration_is_refused_unless_allowed() -> None:
    words = [b"CONFIG", b"SET", b"maxmemory", b"1"]
    assert Asked().ask(words).startswith(b"-ERR rproxy refuses 'config set': ")
    ok = b"+OK\r\n"
    assert Asked(admin_commands="allow").ask(words, ok, ok, ok) == ok


def test_config_set_of_what_is_rproxy_s() -> None:
    proxy, ok = Asked(admin_commands="allow"), b"+OK\r\n"
    assert proxy.ask([b"CONFIG", b"SET", b"port", b"6379", b"Databases", b"1"]) == ok
    raw = proxy.ask([b"CONFIG", b"SET", b"maxmemory", b"1", b"PORT", b"1"])
    assert raw.startswith(
        b"-ERR CONFIG SET failed (possibly related to argument 'PORT') - it is set"
    )
    proxy.asker.say(b"CONFIG", b"SET", b"port", b"6379", b"maxmemory", b"1")
    for index in range(3):
        assert proxy.cluster.sent(index) == [[b"CONFIG", b"SET", b"maxmemory", b"1"]]
        proxy.cluster.answer(index, ok)
    assert proxy.asker.hear() == ok
    odd = [b"CONFIG", b"SET", b"maxmemory", b"1", b"save"]
    assert proxy.ask(odd, *[b"-ERR syntax error\r\n"] * 3) == b"-ERR syntax error\r\n"


def test_debug_goes_to_every_node_or_to_the_key_s() -> None:
    proxy, ok = Asked(admin_commands="allow"), b"+OK\r\n"
    assert proxy.ask([b"DEBUG", b"JMAP"], ok, ok, ok) == ok
    proxy.asker.say(b"DEBUG", b"OBJECT", b"foo")
    assert [proxy.cluster.sent(index) for index in range(3)] == [
        [],
        [],
        [[b"DEBUG", b"OBJECT", b"foo"]],
    ]


@pytest.mark.parametrize("words", ["SHUTDOWN", "SYNC", "REPLCONF a b", "DEBUG SEGFAULT"])
def test_some_commands_are_never_served(words: str) -> None:
    raw = Asked(admin_commands="allow").ask(words.encode().split())
    assert raw.startswith(b"-ERR rproxy does not serve '")
