"""Clients that are subscribed, and what they hear, for tests of Pub/Sub."""

from __future__ import annotations

from tests.fakes import FakeClient, FakeProxy, array, bulk

HOLD = 10.0
"""Default of upstream.hold_time."""


def line(word: bytes, name: bytes, count: int, kind: bytes = b"*") -> bytes:
    return kind + b"3\r\n" + bulk(word) + bulk(name) + b":%d\r\n" % count


def message(channel: bytes, text: bytes) -> bytes:
    return array([b"message", channel, text])


def subscribed(proxy: FakeProxy, *names: bytes) -> FakeClient:
    """A client that is subscribed to the channels."""
    client = proxy.client()
    client.say(b"SUBSCRIBE", *names)
    proxy.confirm(0)
    assert client.hear().endswith(b":%d\r\n" % len(names))
    return client
