"""Clients that leave in the middle of a reply: what is left of it is nobody's."""

from __future__ import annotations

import pytest

from rproxy.routing.slots import slot_of
from tests.fakes import FakeProxy

KEY = next(key for key in map(b"k%d".__mod__, range(99)) if slot_of(key) <= 5460)


@pytest.mark.parametrize("fill", [b"x", b"-", b">", b"|", b"\r"])
def test_rest_of_a_ghosts_reply_is_no_frame(fill: bytes) -> None:
    """Whatever it looks like: the link, which others share, stays in step."""
    proxy = FakeProxy()
    gone, other = proxy.client(), proxy.client()
    gone.say(b"GET", KEY)
    other.say(b"INCR", KEY)
    proxy.cluster.sent(0)
    proxy.cluster.answer(0, b"$300000\r\n" + fill * 100)
    gone.session.close("gone")
    proxy.cluster.answer(0, fill * 100_000)
    proxy.cluster.answer(0, fill * 199_900 + b"\r\n:7\r\n")
    assert other.hear() == b":7\r\n"
    assert not proxy.cluster.link(0).stream.is_closed
