"""Cluster: learns the slot map, believes redirections, and tells when no node owns a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import hiredis
import pytest

from rproxy.config import Address, Config, Seconds, Secret, Topology, Upstream
from rproxy.errors import ConnectFailed, HandshakeRefused, NetworkError, ProtocolBroken
from rproxy.probe import Probe
from rproxy.topology.refresh import View
from rproxy.topology.slotmap import Node, Shard, SlotMap
from rproxy.transport.stream import Tick
from rproxy.upstream.cluster import Cluster, epoch_of
from rproxy.upstream.recovery import Kind, Verdict
from rproxy.upstream.sink import call
from rproxy.wire.frames import pack
from tests.fakes import bulk
from tests.nodes import HANG_UP, SkippingLoop, TinyNode, all_ends

NO_SHARDS = b"-ERR Unknown subcommand or wrong number of arguments for 'SHARDS'\r\n"
UNCOVERED = b"-CLUSTERDOWN Hash slot not served; the command was not executed\r\n"

Test = Callable[[Cluster, TinyNode], Coroutine[Any, Any, None]]


def new_cluster(*seeds: Address, **upstream: Any) -> Cluster:
    config = Config(
        seeds=seeds,
        upstream=Upstream(**upstream),
        topology=Topology(min_interval=Seconds(0), fetch_timeout=Seconds(10)),
    )
    return Cluster(config, Tick(asyncio.get_running_loop()), Probe())


def with_node(
    test: Test, answers: dict[bytes, bytes | None] | None = None, **upstream: Any
) -> None:
    """Run the test with a cluster, not started, of one node that answers like this."""

    async def main() -> None:
        async with TinyNode() as node, asyncio.timeout(10.0):
            node.answers.update(answers or {})
            cluster = new_cluster(node.address, **upstream)
            await test(cluster, node)
            await cluster.close()
            await node.deserted.wait()
        await all_ends()

    asyncio.run(main())


async def reply_to(cluster: Cluster, slot: int, *words: bytes, protocol: int = 2) -> bytes:
    """The reply to a command for that slot; -1: to one without a key."""
    replies: asyncio.Queue[bytes] = asyncio.Queue()
    request = call(pack(list(words)), replies.put_nowait, slot)
    if slot < 0:
        cluster.send_anywhere(protocol, request)
    else:
        cluster.table(protocol).route(request)
    return await replies.get()


# -- from the start --


@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_before_the_first_map_wait_for_it(protocol: int) -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        sent = asyncio.gather(
            reply_to(cluster, 7, b"GET", b"a", protocol=protocol),
            reply_to(cluster, -1, b"PING", protocol=protocol),
        )
        await asyncio.sleep(0)
        assert node.opened == 0
        await cluster.start()
        assert list(await sent) == [bulk(b"of a"), b"+PONG\r\n"]
        assert repr(cluster) == "<Cluster 16384 slots covered, 2 pools>"
        assert ([b"HELLO", b"3"] in node.heard) == (protocol == 3)

    with_node(test)


def test_close_ends_what_is_under_way() -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        await cluster.start()
        assert await reply_to(cluster, 7, b"PING") == b"+PONG\r\n"
        node.answers[b"SET"] = None
        replies: asyncio.Queue[bytes] = asyncio.Queue()
        cluster.table(2).route(call(pack([b"SET", b"a", b"1"]), replies.put_nowait, 7))
        cluster.table(3).route(call(pack([b"SET", b"a", b"2"]), replies.put_nowait, 8))
        await cluster.close()
        told = [replies.get_nowait(), replies.get_nowait()]
        assert all(b"executed" in reply for reply in told)

    with_node(test)


# -- one node's view --


def test_fetch() -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        view = await cluster.fetch(node.address)
        assert view.epoch == 7
        assert view.slotmap.covered == 16384
        assert [master.address for master in view.slotmap.masters] == [node.address]

    with_node(test)


def test_fetch_from_a_node_that_does_not_know_shards() -> None:
    """Redis before 7."""

    async def test(cluster: Cluster, node: TinyNode) -> None:
        view = await cluster.fetch(node.address)
        assert view.slotmap.covered == 16384
        assert [master.address for master in view.slotmap.masters] == [node.address]

    with_node(test, {b"CLUSTER SHARDS": NO_SHARDS})


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        (
            {b"CLUSTER": b"-ERR This instance has cluster support disabled\r\n"},
            NetworkError,
            "cluster support disabled",
        ),
        ({b"CLUSTER SHARDS": b"*0\r\n"}, ProtocolBroken, "names no master"),
        ({b"CLUSTER SHARDS": b"*1\r\n:1\r\n"}, ProtocolBroken, "makes no sense"),
        ({b"CLUSTER SLOTS": HANG_UP}, ConnectFailed, "closed the connection"),
        ({b"AUTH": b"-WRONGPASS no\r\n"}, HandshakeRefused, "refused our user name"),
    ],
)
def test_fetch_in_trouble(
    answers: dict[bytes, bytes | None], error: type[NetworkError], text: str
) -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        if b"CLUSTER" in answers:
            for name in (b"CLUSTER SHARDS", b"CLUSTER SLOTS", b"CLUSTER INFO"):
                del node.answers[name]
        with pytest.raises(error, match=text):
            await cluster.fetch(node.address)

    with_node(test, answers, password=Secret("x"))


@pytest.mark.parametrize(
    ("about", "epoch"),
    [
        (b"cluster_state:ok\r\ncluster_current_epoch:12\r\ncluster_my_epoch:3\r\n", 12),
        (b"cluster_current_epoch:0\r\n", 0),
        (b"cluster_my_epoch:3\r\n", 0),
        (b"cluster_current_epoch:x\r\n", 0),
        (b"cluster_current_epoch\r\n", 0),
        (b"\xff", 0),
        (hiredis.ReplyError("NOPERM no"), 0),
        (None, 0),
    ],
)
def test_epoch(about: Any, epoch: int) -> None:
    assert epoch_of(about) == epoch


# -- questions of rproxy's own --


def test_ask_goes_on_to_the_next_master() -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        with pytest.raises(NetworkError, match="no node is known"):
            await cluster.ask(("PING",))
        async with TinyNode() as gone:
            cluster.moved(1, gone.address, "the test")
        with pytest.raises(ConnectFailed, match=f"^{gone.address}: "):
            await cluster.ask(("PING",))
        cluster.moved(2, node.address, "the test")
        assert await cluster.ask(("PING",), ("EXISTS", b"a", "b")) == [b"PONG", 2]

    with_node(test)


# -- redirections --


def test_moved_is_believed_at_once_for_both_versions() -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        cluster.moved(7, node.address, "the test")
        assert cluster.slotmap.covered == 1
        for protocol in (2, 3):
            assert await reply_to(cluster, 7, b"GET", b"a", protocol=protocol) == bulk(b"of a")
            assert cluster.table(protocol)[8] is cluster.lanes[protocol].orphans

    with_node(test)


def test_nodes_that_redirect() -> None:
    """End to end: the map is stale, the node says where the slot is now."""

    async def test(cluster: Cluster, node: TinyNode) -> None:
        async with TinyNode() as new:
            node.answers[b"GET"] = b"-MOVED 7 %b\r\n" % str(new.address).encode()
            await cluster.start()
            assert await reply_to(cluster, 7, b"GET", b"a") == bulk(b"of a")
            assert [b"GET", b"a"] in node.heard
            assert [b"GET", b"a"] in new.heard
            await cluster.close()
            await new.deserted.wait()

    with_node(test)


def test_redirection_without_a_host_means_the_node_that_was_asked() -> None:
    async def test(cluster: Cluster, node: TinyNode) -> None:
        asked = Address("10.0.0.1", 7000)
        for endpoint, expected in (
            (":7001", Address("10.0.0.1", 7001)),
            ("10.0.0.2:7001", Address("10.0.0.2", 7001)),
            ("?:7001", None),
        ):
            assert cluster.redirect_address(Verdict(Kind.MOVED, 7, endpoint), asked) == expected

    with_node(test)


# -- slots that no node owns, on a loop that skips waiting --


class DeafCluster(Cluster):
    """Its nodes do not answer."""

    async def fetch(self, address: Address) -> View:
        raise ConnectFailed("refused")


def test_uncovered_slots_are_waited_for_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_pace(throttler: object) -> None:
        return None

    async def no_way(*there: object) -> None:
        raise ConnectFailed("refused")

    monkeypatch.setattr("rproxy.upstream.opening.dial", no_way)
    monkeypatch.setattr("asyncio_throttle.throttler.Throttler.acquire", no_pace)

    async def main() -> None:
        seeds = (Address("node-a", 1),)
        config = Config(seeds=seeds, upstream=Upstream(hold_time=Seconds(5)))
        cluster = DeafCluster(config, Tick(asyncio.get_running_loop()), Probe())
        replies: list[bytes] = []

        def send(slot: int) -> None:
            cluster.table(2).route(call(pack([b"GET", b"a"]), replies.append, slot))

        await cluster.start()
        send(7)
        await asyncio.sleep(4.8)
        assert replies == []
        await asyncio.sleep(0.4)
        assert replies == [UNCOVERED]
        send(7)
        assert replies == [UNCOVERED] * 2  # at once
        cluster._adopt(SlotMap.of([Shard(Node(*seeds[0]), (), ((0, 16383),))]))
        send(7)
        await asyncio.sleep(0.2)
        assert len(replies) == 2  # that node's gate holds it
        assert cluster.lanes[2].orphans.refusing is None
        await cluster.close()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())


def test_while_a_node_is_out_the_cluster_is_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a minute, if it owns slots: one that owns none is not missed."""

    async def no_way(*there: object) -> None:
        raise ConnectFailed("refused")

    monkeypatch.setattr("rproxy.upstream.opening.dial", no_way)

    async def main() -> None:
        owner, idle = Node("node-a", 1), Node("node-b", 2)
        cluster = DeafCluster(Config(seeds=(owner.address,)), Tick(), Probe())
        reasons: list[str] = []
        monkeypatch.setattr(cluster.refresher, "request_refresh", reasons.append)
        cluster._adopt(SlotMap.of([Shard(owner, (), ((0, 16383),)), Shard(idle, (), ())]))

        async def asked_within(seconds: float) -> int:
            reasons.clear()
            await asyncio.sleep(seconds)
            return reasons.count("a node is out")

        cluster._sweep()
        lane = cluster.lanes[2]
        lane.pool(idle.address).wake()
        assert await asked_within(5) == 0
        lane.pool(owner.address).wake()
        assert await asked_within(10) > 90
        await asyncio.sleep(60)
        assert await asked_within(10) == 0
        await cluster.close()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())
