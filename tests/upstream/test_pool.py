"""Pool: a link is opened when it is needed, again when it is lost, and never in haste."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rproxy.config import Address, Secret
from rproxy.errors import ConnectFailed
from rproxy.upstream.cluster import Cluster
from rproxy.upstream.link import Link
from rproxy.wire.frames import pack
from tests.fakes import bulk
from tests.nodes import HANG_UP, SkippingLoop, TinyNode, all_ends
from tests.upstream.pools import QUICK, Scene, with_node

NAME = [b"CLIENT", b"SETNAME", b"rproxy"]


# -- opening --


def test_first_request_opens_the_link() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        assert scene.is_shut
        scene.send(b"GET", b"a")
        scene.send(b"GET", b"b")
        assert not scene.pool.is_idle
        assert [await scene.reply(), await scene.reply()] == [bulk(b"of a"), bulk(b"of b")]
        assert node.heard == [NAME, [b"GET", b"a"], [b"GET", b"b"]]
        assert node.opened == 1
        assert not scene.is_shut
        assert scene.pool.is_idle
        assert scene.notes.up == [2]

    with_node(test)


@pytest.mark.parametrize(
    ("protocol", "options", "login"),
    [
        (2, {"password": Secret("x")}, [[b"AUTH", b"x"]]),
        (2, {"username": "u", "password": Secret("x")}, [[b"AUTH", b"u", b"x"]]),
        (3, {}, [[b"HELLO", b"3"]]),
        (3, {"password": Secret("x")}, [[b"HELLO", b"3", b"AUTH", b"default", b"x"]]),
    ],
)
def test_handshake(protocol: int, options: dict[str, Any], login: list[list[bytes]]) -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        assert await scene.ask(b"GET", b"a") == bulk(b"of a")
        assert node.heard == [*login, NAME, [b"GET", b"a"]]
        assert scene.notes.up == [protocol]

    with_node(test, protocol, **options)


def test_link_is_opened_once_however_often_it_is_asked_for() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        for _ in range(3):
            scene.pool.wake()
        await scene.ask(b"GET", b"a")
        scene.pool.wake()
        await scene.ask(b"GET", b"a")
        assert node.opened == 1

    with_node(test)


@pytest.mark.parametrize(
    ("command", "answer", "reason"),
    [
        (b"AUTH", b"-WRONGPASS no\r\n", "refused upstream.username and upstream.password"),
        (b"AUTH", HANG_UP, "the peer closed the connection"),
        (b"CLIENT", HANG_UP, "the peer closed the connection"),
        (b"CLIENT", b"+OK\r\n+more\r\n", "a reply without a request"),
        (b"CLIENT", b">1\r\n+more\r\n", "an unexpected push"),
        (b"CLIENT", b"HTTP/1.1 400\r\n", "protocol error"),
    ],
)
def test_handshake_that_fails_is_tried_again_at_once(
    command: bytes, answer: bytes, reason: str
) -> None:
    """And not after `connect_timeout`, which is for nodes that say nothing."""

    async def test(scene: Scene, node: TinyNode) -> None:
        scene.send(b"GET", b"a")
        for _ in range(3):
            assert reason in await scene.trouble()
        node.answers[command] = b"+OK\r\n"
        assert await scene.reply() == bulk(b"of a")
        assert scene.pool.link is not None

    with_node(test, answers={command: answer}, password=Secret("x"), connect_timeout=60.0)


@pytest.mark.parametrize("silent", [b"AUTH", b"CLIENT"])
def test_silent_node_is_given_up(silent: bytes) -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        said = node.answers[silent]
        node.answers[silent] = None
        scene.send(b"GET", b"a")
        assert await scene.trouble() == "no answer within 0.05 s"
        node.answers[silent] = said
        assert await scene.reply() == bulk(b"of a")

    with_node(test, password=Secret("x"), connect_timeout=0.05)


def test_name_that_cannot_be_one_is_a_node_that_cannot_be_reached() -> None:
    """A node may tell any."""

    async def main() -> None:
        scene = Scene(Address("host..name", 6379), **QUICK)
        scene.send(b"GET", b"a")
        assert "label empty or too long" in await scene.trouble()
        assert "label empty or too long" in await scene.trouble()
        await scene.cluster.close()

    asyncio.run(main())


def test_name_is_a_courtesy() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        assert await scene.ask(b"GET", b"a") == bulk(b"of a")

    with_node(test, answers={b"CLIENT": b"-NOPERM no\r\n"})


# -- losing --


def test_lost_link_is_opened_again_for_what_comes_next() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        assert await scene.ask(b"GET", b"a") == bulk(b"of a")
        node.answers[b"SET"] = HANG_UP
        scene.send(b"SET", b"a", b"1")
        assert b"may have been executed" in await scene.reply()
        assert await scene.trouble() == "the peer closed the connection"
        assert scene.is_shut
        scene.send(b"GET", b"b")
        scene.send(b"GET", b"c")
        assert [await scene.reply(), await scene.reply()] == [bulk(b"of b"), bulk(b"of c")]
        assert node.opened == 2

    with_node(test)


def test_lost_link_is_opened_again_without_a_request() -> None:
    """The next command does not wait for a handshake."""

    async def test(scene: Scene, node: TinyNode) -> None:
        await scene.ask(b"GET", b"a")
        node.hang_up()
        await scene.trouble()
        await scene.notes.again.wait()
        assert not scene.is_shut
        assert node.opened == 2

    with_node(test)


def test_requests_that_were_not_written_go_first_on_the_new_link() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        await scene.ask(b"GET", b"a")
        assert scene.pool.link is not None
        scene.send(b"SET", b"a", b"1")
        scene.send(b"SET", b"a", b"2")
        scene.pool.link.close("cut")  # in the same turn: not a byte has left
        scene.send(b"SET", b"a", b"3")
        assert [await scene.reply() for _ in range(3)] == [b"+OK\r\n"] * 3
        sets = [words[2] for words in node.heard if words[0] == b"SET"]
        assert sets == [b"1", b"2", b"3"]

    with_node(test)


def test_node_that_left_gets_no_new_link() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        await scene.ask(b"GET", b"a")
        scene.pool.retire()
        assert await scene.ask(b"GET", b"a") == bulk(b"of a")
        node.hang_up()
        await scene.notes.shut.wait()
        assert scene.is_shut
        await all_ends()
        assert node.opened == 1

    with_node(test)


def test_close_ends_attempts() -> None:
    async def test(scene: Scene, node: TinyNode) -> None:
        scene.send(b"GET", b"a")
        await scene.trouble()
        scene.pool.close("no longer needed")
        await asyncio.wait_for(node.deserted.wait(), 10.0)
        await all_ends()
        assert scene.pool.link is None

    with_node(test, answers={b"CLIENT": HANG_UP})


# -- backing off, on a loop that skips waiting --


class FakeDial:
    """Connects or not, as the test says."""

    def __init__(self) -> None:
        self.is_up = False
        self.attempts: list[float] = []

    async def __call__(self, link: Link, address: Address, cluster: Cluster) -> None:
        loop = asyncio.get_running_loop()
        self.attempts.append(loop.time())
        if not self.is_up:
            raise ConnectFailed("refused")
        loop.call_soon(link.stream.feed, b"+OK\r\n")  # the reply to the link's name


@pytest.fixture
def dial(monkeypatch: pytest.MonkeyPatch) -> FakeDial:
    fake = FakeDial()
    monkeypatch.setattr("rproxy.upstream.opening.dial", fake)
    monkeypatch.setattr("rproxy.upstream.opening.random.random", lambda: 1.0)
    return fake


def skipping(test: Callable[[Scene], Coroutine[Any, Any, None]], **upstream: Any) -> None:
    async def main() -> None:
        await test(Scene(Address("node-a", 1), **upstream))

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())


def gaps(times: list[float]) -> list[float]:
    return [round(later - sooner, 3) for sooner, later in itertools.pairwise(times)]


def test_pauses_double_up_to_the_longest(dial: FakeDial) -> None:
    async def test(scene: Scene) -> None:
        scene.pool.wake()
        await asyncio.sleep(4.0)
        scene.pool.close("done")

    skipping(test, reconnect_delay=0.1, reconnect_delay_max=1.0)
    assert gaps(dial.attempts) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_requests_do_not_shorten_the_pauses(dial: FakeDial) -> None:
    async def test(scene: Scene) -> None:
        for _ in range(40):
            scene.send(b"GET", b"a")
            await asyncio.sleep(0.1)
        scene.pool.close("done")

    skipping(test, reconnect_delay=0.1, reconnect_delay_max=1.0)
    assert gaps(dial.attempts) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_breaker(dial: FakeDial) -> None:
    """Held for `hold_time`, then refused at once, until the first attempt that succeeds."""

    async def test(scene: Scene) -> None:
        scene.send(b"GET", b"held")
        await asyncio.sleep(4.9)
        assert scene.pool.gate.refusing is None
        await asyncio.sleep(1.2)
        gone = b"-CLUSTERDOWN node-a:1 cannot be reached; the command was not executed\r\n"
        assert scene.pool.gate.refusing == gone
        scene.send(b"GET", b"refused")
        assert scene.replies.get_nowait() == gone
        dial.is_up = True
        await asyncio.sleep(1.1)
        assert not scene.is_shut
        assert scene.pool.gate.refusing is None
        assert scene.pool.link is not None
        assert scene.pool.link.stream.take().endswith(pack([b"GET", b"held"]))
        scene.pool.close("done")

    skipping(test, reconnect_delay=0.1, reconnect_delay_max=1.0, hold_time=5.0)


def test_success_forgets_the_failures(dial: FakeDial) -> None:
    async def test(scene: Scene) -> None:
        scene.pool.wake()
        await asyncio.sleep(4.0)
        dial.is_up = True
        await asyncio.sleep(1.0)
        assert scene.pool.link is not None
        dial.is_up = False
        del dial.attempts[:]
        scene.pool.link.close("lost again")
        await asyncio.sleep(4.0)
        assert scene.pool.gate.refusing is None
        scene.pool.close("done")

    skipping(test, reconnect_delay=0.1, reconnect_delay_max=1.0, hold_time=5.0)
    assert gaps(dial.attempts)[:3] == [0.1, 0.2, 0.4]


def test_every_failure_has_the_slot_map_asked_for(
    dial: FakeDial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node may have taken over."""
    reasons: list[str] = []

    async def test(scene: Scene) -> None:
        monkeypatch.setattr(scene.cluster, "refresh", reasons.append)
        scene.pool.wake()
        await asyncio.sleep(0.25)
        scene.pool.close("done")

    skipping(test, reconnect_delay=0.1)
    assert reasons == ["node-a:1 cannot be reached"] * 2


def test_texts(dial: FakeDial) -> None:
    async def test(scene: Scene) -> None:
        assert str(scene.pool) == "node-a:1"
        gate = "<Gate node-a:1: no connection yet, 0 held, 0 outstanding>"
        assert repr(scene.pool) == f"<Pool node-a:1: {gate}>"
        dial.is_up = True
        scene.pool.wake()
        await asyncio.sleep(0.1)
        assert repr(scene.pool) == "<Pool node-a:1: <Link node-a:1 ready, 0 under way>>"
        scene.pool.close("done")

    skipping(test)
