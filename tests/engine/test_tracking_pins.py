"""Client-side caching of keys that are pinned: clients hear and name what they call them.

The keys of the prefix `arq:` are those of the tag {arq:}, at node 2; the key b belongs to node 0.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.config import Clients, PinRule
from rproxy.engine.replies import encode
from rproxy.routing.slots import slot_of
from rproxy.wire.frames import pack
from tests.engine.trackers import OK, changed, feed, message, news, read, tracker
from tests.fakes import NODES, FakeProxy, bulk, serve, unpack

RULE = PinRule((b"arq:",), b"arq:")
KEY, NAME = b"arq:1", b"{arq:}arq:1"
"""A key as clients call it, and as the servers do."""


def pinning(clients: Clients | None = None) -> FakeProxy:
    """A proxy that pins `arq:`."""
    return FakeProxy(clients, pin=(RULE,))


def test_change_of_the_name_is_told_as_one_of_the_key() -> None:
    proxy = pinning()
    client = tracker(proxy)
    assert read(client, b"MGET", KEY, b"b") == b"*2\r\n" + bulk(b"of " + NAME) + bulk(b"of b")
    changed(proxy, 2, KEY, b"{other}arq:1")
    assert client.hear() == b""
    changed(proxy, 2, NAME)
    changed(proxy, 0, b"b")
    assert client.hear() == news(KEY) + news(b"b")


@pytest.mark.parametrize(
    ("options", "expected"),
    [((b"OPTIN",), news(KEY)), ((b"OPTOUT",), news(b"arq:2"))],
)
def test_optin_and_optout(options: tuple[bytes, ...], expected: bytes) -> None:
    proxy = pinning()
    client = tracker(proxy, *options)
    client.ask(b"CLIENT", b"CACHING", b"YES" if options == (b"OPTIN",) else b"NO")
    read(client, b"GET", KEY)
    read(client, b"GET", b"arq:2")
    changed(proxy, 2, NAME, b"{arq:}arq:2")
    assert client.hear() == expected


@pytest.mark.parametrize(
    ("prefix", "heard"),
    [
        (b"", [KEY, b"arq:20", b"a", b"b"]),
        (b"a", [KEY, b"arq:20", b"a"]),
        (b"arq:", [KEY, b"arq:20"]),
        (b"arq:2", [b"arq:20"]),
        (b"arq:3", []),
        (b"{", []),
        (b"{arq:}", []),
        (b"b", [b"b"]),
    ],
)
def test_prefixes_are_those_of_clients(prefix: bytes, heard: list[bytes]) -> None:
    proxy = pinning()
    client = tracker(proxy, b"BCAST", b"PREFIX", prefix)
    changed(proxy, 2, NAME, b"{arq:}arq:20", b"a", b"b")
    assert client.hear() == (news(*heard) if heard else b"")
    about = client.ask(b"CLIENT", b"TRACKINGINFO")
    assert about.endswith(encode(b"prefixes") + encode([prefix]))
    client.ask(b"CLIENT", b"TRACKING", b"OFF")
    assert not proxy.engine.tracking.prefixes


def test_prefixes_that_overlap_are_named_as_the_client_does() -> None:
    client = tracker(pinning(), b"BCAST", b"PREFIX", b"arq:")
    assert client.ask(b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"a") == (
        b"-ERR Prefix 'a' overlaps with an existing prefix 'arq:'. "
        b"Prefixes for a single client must not overlap.\r\n"
    )


@pytest.mark.parametrize("options", [(), (b"BCAST", b"PREFIX", b"ar")])
@pytest.mark.parametrize(("now", "told"), [(b"1", False), (b"2", True)])
def test_own_write(options: tuple[bytes, ...], now: bytes, told: bool) -> None:
    proxy = pinning()
    client = tracker(proxy, b"NOLOOP", *options)
    read(client, b"GET", KEY)
    client.say(b"SET", KEY, b"1")
    changed(proxy, 2, NAME)
    serve(proxy.cluster, protocol=3)
    assert client.hear() == OK
    assert unpack(feed(proxy, 2).stream.take()) == [[b"GET", NAME]]
    feed(proxy, 2).stream.feed(bulk(now))
    assert client.hear() == (news(KEY) if told else b"")
    changed(proxy, 2, NAME)
    assert client.hear() == news(KEY)


@pytest.mark.parametrize("options", [(), (b"BCAST",)])
@pytest.mark.parametrize("protocol", [2, 3])
def test_redirected(protocol: int, options: tuple[bytes, ...]) -> None:
    proxy = pinning()
    target = proxy.client()
    if protocol == 3:
        target.ask(b"HELLO", b"3")
    target.say(b"SUBSCRIBE", b"__redis__:invalidate")
    proxy.confirm(0)
    target.hear()
    there = b"%d" % target.identity.id
    client = tracker(proxy, *options, b"REDIRECT", there, protocol=2)
    read(client, b"GET", KEY)
    changed(proxy, 2, NAME)
    assert (client.hear(), target.hear()) == (b"", (news if protocol == 3 else message)(KEY))


def test_keys_of_a_transaction() -> None:
    proxy = pinning()
    client = tracker(proxy)
    client.send(pack([b"MULTI"]) + pack([b"GET", KEY]))
    link = proxy.cluster.lease(2, 3)
    link.stream.feed(OK + b"+QUEUED\r\n")
    proxy.run()
    client.say(b"GET", b"arq:2")
    link.stream.feed(b"+QUEUED\r\n")
    client.say(b"EXEC")
    link.stream.feed(b"*2\r\n" + bulk(b"1") * 2)
    client.hear()
    changed(proxy, 2, NAME)
    changed(proxy, 2, b"{arq:}arq:2")
    assert client.hear() == news(KEY) + news(b"arq:2")


def test_blocking_read_of_pinned_keys() -> None:
    """News of other keys do not wait for it; its own keys are known for no time."""
    proxy = pinning()
    client = tracker(proxy)
    read(client, b"GET", KEY)
    client.say(b"XREAD", b"BLOCK", b"0", b"STREAMS", b"arq:s", b"1-1")
    link = proxy.cluster.lease(2, 3)
    changed(proxy, 2, NAME)
    assert client.hear() == news(KEY)
    changed(proxy, 2, b"{arq:}arq:s")
    assert client.hear() == b""
    link.stream.feed(b"_\r\n")
    proxy.run()
    assert client.hear() == b"_\r\n" + news(b"arq:s")


def test_read_without_a_feed() -> None:
    proxy = pinning()
    client = tracker(proxy, feeds=(0, 1))
    assert read(client, b"GET", KEY) == bulk(b"of " + NAME) + news(KEY)


def test_keys_of_a_slot_that_moves() -> None:
    proxy = pinning()
    client = tracker(proxy)
    read(client, b"MGET", KEY, b"arq:2")
    proxy.cluster.adopt(proxy.cluster.slotmap.with_owner(slot_of(NAME), NODES[1]))
    assert client.hear() == news(KEY) + news(b"arq:2")


def test_key_that_a_full_table_lets_go() -> None:
    proxy = pinning(Clients(tracking_keys=1))
    client = tracker(proxy)
    read(client, b"GET", KEY)
    assert read(client, b"GET", b"b") == bulk(b"of b") + news(KEY)


def test_everything_is_still_one_word() -> None:
    proxy = pinning()
    client = tracker(proxy, b"BCAST", b"PREFIX", b"arq:")
    changed(proxy, 2)
    assert client.hear() == news()


def test_renamed_command() -> None:
    proxy = FakeProxy(pin=(RULE,), rename={"get": "fetch"})
    client = tracker(proxy)
    assert read(client, b"FETCH", KEY) == bulk(b"of " + NAME)
    changed(proxy, 2, NAME)
    assert client.hear() == news(KEY)


LETTERS = st.text("ab{}", max_size=5).map(str.encode)


@given(
    pairs=st.lists(st.tuples(LETTERS, st.sampled_from([b"a", b"t", b"b"])), max_size=3),
    prefix=LETTERS,
    keys=st.lists(LETTERS, min_size=1, max_size=5, unique=True),
)
def test_prefix_is_heard_as_if_nothing_were_pinned(
    pairs: list[tuple[bytes, bytes]], prefix: bytes, keys: list[bytes]
) -> None:
    """Of the keys that only one name stands for: a tag that a client writes itself is no other."""
    rules = tuple(PinRule((pinned,), tag) for pinned, tag in dict(pairs).items())
    proxy = FakeProxy(pin=rules)
    pins = proxy.engine.pins
    keys = [key for key in keys if pins.to_client(pins.to_server(key)) == key]
    client = tracker(proxy, b"BCAST", b"PREFIX", prefix)
    for key in keys:
        changed(proxy, 0, pins.to_server(key))
    heard = [news(key) for key in keys if key.startswith(prefix)]
    assert client.hear() == b"".join(heard)
