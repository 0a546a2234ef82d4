"""Scripts are remembered by SHA1, within bounds; a node that lacks one is taught it."""

from __future__ import annotations

from hashlib import sha1

from rproxy.upstream.scripts import ScriptCache
from tests.fakes import FakeCluster, Replies

BODY = b"return 1"
NAME = sha1(BODY).hexdigest().encode()
NOSCRIPT = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"


def test_found_by_either_case() -> None:
    cache = ScriptCache(100)
    cache.remember(BODY)
    assert cache.find(NAME) == cache.find(NAME.upper()) == BODY
    assert cache.find(b"0" * 40) is None
    cache.clear()
    assert cache.find(NAME) is None
    assert cache.size == len(cache) == 0


def test_least_used_goes_first() -> None:
    cache = ScriptCache(3 * len(BODY))
    bodies = [b"return %d" % number for number in range(4)]
    names = [sha1(body).hexdigest().encode() for body in bodies]
    for body in bodies[:3]:
        cache.remember(body)
    cache.find(names[0])
    cache.remember(bodies[3])
    cache.remember(bodies[3])
    assert [cache.find(name) is not None for name in names] == [True, False, True, True]
    assert cache.size == 3 * len(BODY)


def test_script_larger_than_all_room_is_not_kept() -> None:
    cache = ScriptCache(5)
    cache.remember(BODY)
    assert (len(cache), cache.size) == (0, 0)


def test_node_is_taught_and_order_is_kept() -> None:
    cluster = FakeCluster()
    cluster.scripts.remember(BODY)
    replies = Replies()
    for value in (b"1", b"2"):
        cluster.lane.table.route(replies.request(0, b"EVALSHA", NAME, b"1", b"k", value))
    cluster.sent(0)
    cluster.answer(0, NOSCRIPT + NOSCRIPT)
    first, load, again, second = cluster.sent(0)
    assert first == load == [b"SCRIPT", b"LOAD", BODY]
    assert [again[-1], second[-1]] == [b"1", b"2"]
    cluster.answer(0, b"$40\r\n%b\r\n" % NAME * 2 + b":1\r\n:2\r\n")
    assert replies.got == [b":1\r\n", b":2\r\n"]


def test_request_without_keys_goes_back_to_the_node_that_was_taught() -> None:
    cluster = FakeCluster()
    cluster.scripts.remember(BODY)
    replies = Replies()
    cluster.link(1).take(replies.request(-1, b"EVALSHA", NAME, b"0"))
    cluster.sent(1)
    cluster.answer(1, NOSCRIPT)
    assert cluster.sent(1) == [[b"SCRIPT", b"LOAD", BODY], [b"EVALSHA", NAME, b"0"]]


def test_unknown_script_is_the_client_s_business() -> None:
    cluster = FakeCluster()
    replies = Replies()
    cluster.lane.table.route(replies.request(0, b"EVALSHA", NAME, b"1", b"k"))
    cluster.answer(0, NOSCRIPT)
    assert replies.got == [NOSCRIPT]


def test_node_that_forgets_at_once_ends_it() -> None:
    cluster = FakeCluster()
    cluster.scripts.remember(BODY)
    replies = Replies()
    cluster.link(0).take(replies.request(-1, b"EVALSHA", NAME, b"0"))
    for _ in range(cluster.config.upstream.max_redirects + 1):
        cluster.answer(0, NOSCRIPT)
        cluster.answer(0, b"+OK\r\n")
    assert replies.got == [NOSCRIPT]
