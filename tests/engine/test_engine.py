"""The engine: names that the table lacks are looked up once, and cost nobody else anything.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest

from rproxy.config import Clients, Upstream
from rproxy.engine import engine
from rproxy.errors import ConnectFailed
from rproxy.wire.frames import pack
from tests.fakes import FakeProxy, bulk, on_a_loop, serve

PONG = b"+PONG\r\n"
KNOWN = [b"json.get", -2, [b"readonly"], 1, 1, 1, [], [], [], []]


async def settle(proxy: FakeProxy) -> None:
    """Let lookups come to their end."""
    for _ in range(5):
        await asyncio.sleep(0)
        proxy.run()


def wire(*commands: bytes) -> bytes:
    """Commands, each as its words with spaces between them, as one pipeline."""
    return b"".join(pack(command.split()) for command in commands)


# -- names that the table lacks --


@on_a_loop
async def test_what_follows_an_unknown_name_waits_for_the_answer() -> None:
    proxy = FakeProxy()
    proxy.cluster.known[b"json.get"] = [KNOWN]
    client, other = proxy.client(), proxy.client()
    client.send(wire(b"GET b", b"Json.Get b $", b"GET a"))
    assert client.session.is_held
    assert other.ask(b"PING") == PONG
    assert proxy.cluster.sent(0) == [[b"GET", b"b"]]
    await settle(proxy)
    assert proxy.cluster.asked == [("COMMAND", "INFO", b"json.get"), ("COMMAND",)]
    assert proxy.cluster.sent(0) == [[b"Json.Get", b"b", b"$"]]
    assert proxy.cluster.sent(2) == [[b"GET", b"a"]]
    proxy.cluster.answer(2, b"+3\r\n")
    proxy.cluster.answer(0, b"+1\r\n+2\r\n")
    assert client.hear() == b"+1\r\n+2\r\n+3\r\n"


@on_a_loop
async def test_learnt_commands_are_known_to_all() -> None:
    proxy = FakeProxy()
    proxy.cluster.known[b"json.get"] = [KNOWN]
    client, other = proxy.client(), proxy.client()
    client.say(b"JSON.GET", b"b")
    await settle(proxy)
    other.say(b"JSON.GET", b"b")
    assert not other.session.is_held
    assert proxy.cluster.sent(0) == [[b"JSON.GET", b"b"]] * 2
    assert len(proxy.cluster.asked) == 2
    arity = b"-ERR wrong number of arguments for 'json.get' command\r\n"
    assert proxy.client().ask(b"JSON.GET") == arity


@on_a_loop
async def test_name_of_a_subcommand_is_no_command() -> None:
    """Servers tell of it, though; GET must not become CONFIG GET by that, for anybody."""
    proxy = FakeProxy()
    proxy.cluster.known[b"config|get"] = [[b"config|get", -3, [b"admin"], 0, 0, 0]]
    client = proxy.client()
    client.send(wire(b"CONFIG|GET x"))
    await settle(proxy)
    assert proxy.cluster.asked[0] == ("COMMAND", "INFO", b"config|get")
    proxy.client().say(b"GET", b"b")
    assert [b"GET", b"b"] in proxy.cluster.sent(0)
    assert proxy.engine.is_unknown(b"config|get")


@on_a_loop
async def test_learnt_command_goes_down_the_ladder() -> None:
    proxy = FakeProxy()
    proxy.cluster.known[b"m.stop"] = [[b"m.stop", -1, [b"admin"], 0, 0, 0]]
    client = proxy.client()
    client.send(wire(b"M.STOP", b"PING"))
    await settle(proxy)
    assert client.hear().startswith(b"-ERR rproxy refuses 'm.stop': it administers servers")


@on_a_loop
async def test_servers_say_themselves_that_they_do_not_know_a_name() -> None:
    """And for a while they are asked no more."""
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"NONSENSE", b"b")
    await settle(proxy)
    client.send(wire(b"nonsense b", b"PING"))
    assert not client.session.is_held
    assert proxy.cluster.asked == [("COMMAND", "INFO", b"nonsense")]
    sent = [proxy.cluster.sent(index) for index in range(3)]
    assert sorted(request for requests in sent for request in requests) == [
        [b"NONSENSE", b"b"],
        [b"nonsense", b"b"],
    ]
    for index, requests in enumerate(sent):
        proxy.cluster.answer(index, b"-ERR unknown command\r\n" * len(requests))
    assert client.hear() == b"-ERR unknown command\r\n" * 2 + PONG


def test_servers_are_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now))

    async def main() -> None:
        nonlocal now
        proxy = FakeProxy()
        client = proxy.client()
        client.say(b"JSON.GET", b"b")
        await settle(proxy)
        proxy.cluster.known[b"json.get"] = [KNOWN]  # the module has been loaded
        for seconds, lookups in ((4.9, 1), (0.2, 2), (0.0, 2)):
            now += seconds
            client.say(b"JSON.GET", b"b")
            await settle(proxy)
            assert proxy.cluster.asked.count(("COMMAND", "INFO", b"json.get")) == lookups
        assert proxy.engine.shared.commands.lookup(b"json.get") is not None

    asyncio.run(main())


def test_unknown_names_take_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "UNKNOWN_KEPT", 3)

    async def main() -> None:
        proxy = FakeProxy()
        client = proxy.client()
        for name in (b"n1", b"n2", b"n3", b"n4", b"n1", b"n4"):
            client.say(name)
            await settle(proxy)
        asked = [words[-1] for words in proxy.cluster.asked]
        assert asked == [b"n1", b"n2", b"n3", b"n4", b"n1"]

    asyncio.run(main())


@pytest.mark.parametrize("size", [128, 129])
def test_servers_are_not_asked_for_absurd_names(size: int) -> None:
    async def main() -> None:
        proxy = FakeProxy()
        client = proxy.client()
        client.say(b"x" * size)
        await settle(proxy)
        assert len(proxy.cluster.asked) == (1 if size == 128 else 0)
        assert proxy.cluster.tick.under_way == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "trouble", [ConnectFailed("no node is known"), hiredis.ReplyError("NOPERM no right to this")]
)
def test_trouble_with_the_lookup_is_left_to_the_request(trouble: Exception) -> None:
    async def main() -> None:
        proxy = FakeProxy()
        proxy.cluster.known[b"nonsense"] = trouble
        client = proxy.client()
        client.send(wire(b"NONSENSE", b"PING"))
        await settle(proxy)
        assert proxy.cluster.tick.under_way == 1
        for index in range(3):
            proxy.cluster.answer(index, b"-ERR it\r\n" if proxy.cluster.sent(index) else b"")
        assert client.hear() == b"-ERR it\r\n" + PONG

    asyncio.run(main())


@on_a_loop
async def test_nothing_is_sent_for_a_client_that_has_left() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"NONSENSE")
    client.session.close("it left")
    await settle(proxy)
    assert proxy.cluster.asked != []
    assert proxy.cluster.tick.under_way == 0


def test_request_that_cannot_be_dispatched_costs_its_own_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ValueError("a bug")

    async def main() -> None:
        proxy = FakeProxy()
        client, other = proxy.client(), proxy.client()
        client.say(b"NONSENSE")
        monkeypatch.setattr(engine, "dispatch", fail)
        await settle(proxy)
        monkeypatch.undo()
        assert client.reasons == ["internal error"]
        assert other.ask(b"PING") == PONG

    asyncio.run(main())
    assert "a bug" in caplog.text


@on_a_loop
async def test_close_ends_lookups() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    client.say(b"NONSENSE")
    await proxy.engine.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert proxy.cluster.asked == []


# -- the cluster's own table --


async def started(commands: Any, about: Any) -> FakeProxy:
    """A proxy that has asked its cluster for these two."""
    proxy = FakeProxy()
    proxy.cluster.known.update({b"COMMAND": commands, b"server": about})
    proxy.engine.start()
    await settle(proxy)
    return proxy


ABOUT = b"# Server\r\nredis_version:8.2.1\r\nredis_mode:cluster\r\n"


@on_a_loop
async def test_start_learns_the_table_and_the_version() -> None:
    proxy = await started([KNOWN], ABOUT)
    assert proxy.cluster.asked == [("COMMAND",), ("INFO", "server")]
    assert proxy.engine.shared.commands.lookup(b"json.get") is not None
    assert proxy.engine.shared.commands.lookup(b"get") is not None
    client = proxy.client()
    assert bulk(b"8.2.1") in client.ask(b"HELLO")
    client.say(b"JSON.GET", b"b")
    assert proxy.cluster.sent(0) == [[b"JSON.GET", b"b"]]


@on_a_loop
async def test_servers_that_do_not_tell_their_table() -> None:
    refused = hiredis.ReplyError("NOPERM no right to this")
    proxy = await started(refused, refused)
    assert proxy.engine.server_version == "7.0.0"
    client = proxy.client()
    client.say(b"GET", b"b")
    serve(proxy.cluster)
    assert client.hear() == bulk(b"of b")


def test_start_goes_on_until_a_node_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LEARN_DELAY", 0.0)

    async def main() -> None:
        proxy = await started(ConnectFailed("no node is known"), ABOUT)
        assert proxy.engine.shared.commands.lookup(b"json.get") is None
        proxy.cluster.known[b"COMMAND"] = [KNOWN]
        await settle(proxy)
        assert proxy.engine.shared.commands.lookup(b"json.get") is not None
        before = len(proxy.cluster.asked)
        assert before >= 4
        await settle(proxy)
        assert len(proxy.cluster.asked) == before

    asyncio.run(main())


# -- what sessions share --


def test_limits_of_the_configuration_reach_the_sessions() -> None:
    limits = {
        "max_in_flight": 11,
        "pause_output": 12,
        "output_limit": 13,
        "request_limit": 14,
        "max_args": 15,
        "max_bulk": 16,
    }
    proxy = FakeProxy(
        Clients(**limits),  # type: ignore[arg-type]
        upstream=Upstream(command_timeout=17.0),  # type: ignore[arg-type]
    )
    shared = proxy.engine.shared
    assert shared.max_in_flight == 11
    assert shared.pause_output == 12
    assert shared.output_limit == 13
    assert shared.max_request == 14
    assert shared.max_args == 15
    assert shared.max_bulk == 16
    assert shared.command_timeout == 17.0
    assert shared.table2 is proxy.cluster.table(2)
    assert shared.table3 is proxy.cluster.table(3)
