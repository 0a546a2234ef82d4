"""Client-side caching: no client may take for known what has changed, whatever happens.

The keys b, c and a belong to the nodes 0, 1 and 2.
"""

from __future__ import annotations

import pytest

from rproxy.config import Address, Bytes, Clients
from rproxy.engine.tracking import NEWS_LIMIT
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.engine.trackers import OK, changed, feed, news, read, tracker
from tests.fakes import NODES, FakeProxy, bulk, serve

SLOT_B = slot_of(b"b")


# -- order --


def test_change_is_told_once() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    assert read(client, b"GET", b"b") == bulk(b"of b")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")
    changed(proxy, 0, b"b")
    assert client.hear() == b""


def test_only_who_has_read_is_told() -> None:
    proxy = FakeProxy()
    first, second, third = tracker(proxy), tracker(proxy), tracker(proxy)
    read(first, b"GET", b"b")
    read(second, b"MGET", b"b", b"a")
    read(third, b"SET", b"b", b"1")
    changed(proxy, 0, b"x", b"b")
    changed(proxy, 2, b"a")
    heard = [client.hear() for client in (first, second, third)]
    assert heard == [news(b"b"), news(b"b") + news(b"a"), b""]


def test_news_never_overtake_the_value_that_they_are_about() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    client.send(pack([b"GET", b"b"]) + pack([b"GET", b"a"]))
    changed(proxy, 0, b"b")
    changed(proxy, 2, b"a")
    assert client.hear() == b""
    serve(proxy.cluster, (2,), 3)
    assert client.hear() == b""
    serve(proxy.cluster, (0,), 3)
    assert client.hear() == bulk(b"of b") + bulk(b"of a") + news(b"b") + news(b"a")


def test_news_stand_between_the_reads_before_and_after_them() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    client.say(b"GET", b"b")
    changed(proxy, 0, b"b")
    client.say(b"GET", b"b")
    serve(proxy.cluster, protocol=3)
    assert client.hear() == bulk(b"of b") + news(b"b") + bulk(b"of b")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")


def test_own_write_is_told_after_its_reply() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    read(client, b"GET", b"b")
    client.say(b"SET", b"b", b"1")
    changed(proxy, 0, b"b")
    assert client.hear() == b""
    serve(proxy.cluster, protocol=3)
    assert client.hear() == OK + news(b"b")


def test_muted_client_hears_of_changes() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    read(client, b"GET", b"b")
    client.say(b"CLIENT", b"REPLY", b"OFF")
    read(client, b"GET", b"a")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")


def test_too_much_news_become_one_word() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    size = NEWS_LIMIT // 4
    keys = [b"{b}" + b"%d" % number * size for number in range(5)]
    read(client, b"MGET", *keys)
    client.say(b"GET", b"a")
    for key in keys:
        changed(proxy, 0, key)
    serve(proxy.cluster, protocol=3)
    assert client.hear() == bulk(b"of a") + news()


def test_slow_client_is_dropped_alone() -> None:
    limit = Bytes(100)
    proxy = FakeProxy(Clients(subscriber_limit=limit, subscriber_soft_limit=limit))
    slow, quick = tracker(proxy), tracker(proxy)
    key = b"{b}" * 50
    for client in (slow, quick):
        read(client, b"GET", b"b")
    read(slow, b"GET", key)
    changed(proxy, 0, key, b"b")
    assert slow.reasons == ["does not read its invalidations fast enough"]
    assert quick.hear() == news(b"b")


# -- what counts as a read --


def test_reads_of_a_transaction_count_when_it_runs() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    client.send(pack([b"MULTI"]) + pack([b"GET", b"b"]))
    link = proxy.cluster.lease(0, 3)
    link.stream.feed(OK + b"+QUEUED\r\n")
    changed(proxy, 0, b"b")
    assert client.hear() == OK + b"+QUEUED\r\n"
    client.say(b"EXEC")
    changed(proxy, 0, b"b")
    assert client.hear() == b""
    link.stream.feed(b"*1\r\n" + bulk(b"1"))
    assert client.hear() == b"*1\r\n" + bulk(b"1") + news(b"b")


def test_keys_of_scripts_count() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    client.say(b"EVAL", b"return redis.call('get', KEYS[1])", b"1", b"b")
    proxy.cluster.answer(0, bulk(b"1"), 3)
    client.hear()
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")


def test_blocked_client_hears_of_other_keys_at_once() -> None:
    """What the command itself is about comes after its reply; a blocking read is never cached."""
    proxy = FakeProxy()
    client = tracker(proxy)
    read(client, b"MGET", b"b", b"{b}other")
    client.say(b"XREAD", b"BLOCK", b"0", b"STREAMS", b"b", b"1-1")
    link = proxy.cluster.lease(0, 3)
    changed(proxy, 0, b"{b}other")
    assert client.hear() == news(b"{b}other")
    changed(proxy, 0, b"b")
    assert client.hear() == b""
    link.stream.feed(b"_\r\n")
    proxy.run()
    assert client.hear() == b"_\r\n" + news(b"b") + news(b"b")


def test_paused_read_counts_when_it_is_sent() -> None:
    proxy = FakeProxy()
    client, other = tracker(proxy, b"OPTIN"), proxy.client()
    client.ask(b"CLIENT", b"CACHING", b"YES")
    other.ask(b"CLIENT", b"PAUSE", b"1000")
    client.say(b"GET", b"b")
    assert proxy.engine.tracking.table.keys == 0
    proxy.cluster.loop.advance(2.0)
    serve(proxy.cluster, protocol=3)
    assert client.hear() == bulk(b"of b")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")


def test_optin_and_optout() -> None:
    proxy = FakeProxy()
    chooses, refuses = tracker(proxy, b"OPTIN"), tracker(proxy, b"OPTOUT")
    assert chooses.ask(b"CLIENT", b"CACHING", b"YES") == OK
    assert refuses.ask(b"CLIENT", b"CACHING", b"NO") == OK
    for client in (chooses, refuses):
        read(client, b"GET", b"b")
        read(client, b"GET", b"a")
    changed(proxy, 0, b"b")
    changed(proxy, 2, b"a")
    assert (chooses.hear(), refuses.hear()) == (news(b"b"), news(b"a"))


def test_reads_of_who_does_not_track_leave_no_trace() -> None:
    proxy = FakeProxy()
    client, other = tracker(proxy), proxy.client()
    read(other, b"GET", b"b")
    read(client, b"GET", b"b")
    client.ask(b"CLIENT", b"TRACKING", b"OFF")
    read(client, b"GET", b"a")
    assert proxy.engine.tracking.table.keys == 1
    changed(proxy, 0, b"b")
    assert client.hear() == b""


# -- the table --


def test_full_table_lets_a_key_go() -> None:
    proxy = FakeProxy(Clients(tracking_keys=2))
    client = tracker(proxy)
    heard = [read(client, b"GET", b"{b}%d" % number) for number in range(3)]
    assert heard == [bulk(b"of {b}0"), bulk(b"of {b}1"), bulk(b"of {b}2") + news(b"{b}0")]
    changed(proxy, 0, b"{b}0", b"{b}2")
    assert client.hear() == news(b"{b}2")


def test_bytes_of_the_table_are_bounded() -> None:
    proxy = FakeProxy(Clients(tracking_bytes=Bytes(1000)))
    client = tracker(proxy)
    heard = read(client, b"MGET", *(b"{b}%d" % number for number in range(10)))
    assert heard.count(b"invalidate") == 6
    assert proxy.engine.tracking.table.size <= 1000


def test_everything_is_forgotten_once() -> None:
    """Three masters say that everything is gone: one FLUSHALL is told once."""
    proxy = FakeProxy()
    client, other = tracker(proxy), tracker(proxy, b"BCAST")
    read(client, b"GET", b"b")
    for index in range(3):
        changed(proxy, index)
    assert (client.hear(), other.hear()) == (news(), news())
    assert proxy.engine.tracking.table.keys == 0
    read(client, b"GET", b"b")
    changed(proxy, 1)
    assert (client.hear(), other.hear()) == (news(), b"")


def test_everything_is_forgotten_again_by_a_read_that_was_held() -> None:
    proxy = FakeProxy()
    client, other = tracker(proxy), proxy.client()
    other.ask(b"CLIENT", b"PAUSE", b"1000")
    client.say(b"GET", b"b")
    changed(proxy, 0)
    proxy.cluster.loop.advance(2.0)
    serve(proxy.cluster, protocol=3)
    assert client.hear() == news() + bulk(b"of b")
    changed(proxy, 0)
    assert client.hear() == news()


# -- where changes go unheard --


def test_lost_feed_means_that_nothing_is_known() -> None:
    proxy = FakeProxy()
    client, quiet = tracker(proxy), tracker(proxy, b"OPTIN")
    client.say(b"GET", b"b")
    feed(proxy, 1).close("test")
    serve(proxy.cluster, protocol=3)
    assert (client.hear(), quiet.hear()) == (bulk(b"of b") + news(), news())


@pytest.mark.parametrize("options", [(), (b"BCAST",)])
def test_read_without_a_feed_is_known_for_no_time(options: tuple[bytes, ...]) -> None:
    proxy = FakeProxy()
    client = tracker(proxy, *options, feeds=(1, 2))
    client.send(pack([b"MGET", b"b", b"c"]) + pack([b"GET", b"a"]))
    serve(proxy.cluster, protocol=3)
    values = b"*2\r\n" + bulk(b"of b") + bulk(b"of c")
    assert client.hear() == values + news(b"b") + bulk(b"of a")
    feed(proxy, 0)
    assert read(client, b"GET", b"b") == bulk(b"of b")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")


def test_keys_of_a_slot_that_moves_are_forgotten() -> None:
    proxy = FakeProxy()
    client, follower = tracker(proxy), tracker(proxy, b"BCAST")
    read(client, b"MGET", b"b", b"a")
    proxy.cluster.adopt(proxy.cluster.slotmap.with_owner(SLOT_B, NODES[1]))
    assert (client.hear(), follower.hear()) == (news(b"b"), news())
    client.say(b"GET", b"b")
    proxy.cluster.answer(1, bulk(b"1"), 3)
    client.hear()
    changed(proxy, 1, b"b")
    assert client.hear() == news(b"b")


def test_read_that_meets_a_move_is_forgotten() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    client.say(b"GET", b"b")
    proxy.cluster.answer(0, b"-MOVED %d node-b:2\r\n" % SLOT_B, 3)
    serve(proxy.cluster, protocol=3)
    assert client.hear() == bulk(b"of b") + news(b"b")


@pytest.mark.parametrize("new", [False, True])
def test_read_that_another_node_answers_is_forgotten_unless_it_is_heard(new: bool) -> None:
    """ASK: a master tells of its changes; a node that was none before does not yet."""
    proxy = FakeProxy()
    client = tracker(proxy)
    target = Address("node-d", 4) if new else NODES[1]
    if new:
        proxy.cluster.connect(target, 3)
    client.say(b"GET", b"b")
    proxy.cluster.answer(0, b"-ASK %d %s:%d\r\n" % (SLOT_B, target.host.encode(), target.port), 3)
    link = proxy.cluster.lanes[3].pool(target).link
    assert link is not None
    link.stream.feed(OK + bulk(b"1"))
    assert client.hear() == bulk(b"1") + (news(b"b") if new else b"")
    assert (target in proxy.engine.tracking.invalidations.feeds) is True


def test_new_master_is_heard_before_its_keys_are_known() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    new = Address("node-d", 4)
    link = proxy.cluster.connect(new, 3)
    proxy.cluster.adopt(proxy.cluster.slotmap.with_owner(SLOT_B, new))
    client.say(b"GET", b"b")
    link.stream.feed(bulk(b"1"))
    assert client.hear() == bulk(b"1") + news(b"b")


def test_read_under_way_on_a_lost_link_is_known_when_it_is_sent_again() -> None:
    proxy = FakeProxy()
    client = tracker(proxy)
    client.say(b"GET", b"b")
    proxy.cluster.link(0, 3).close("test")
    proxy.cluster.connect(NODES[0], 3)
    serve(proxy.cluster, protocol=3)
    assert client.hear() == bulk(b"of b")
    changed(proxy, 0, b"b")
    assert client.hear() == news(b"b")
