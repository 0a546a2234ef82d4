"""Conversations of rproxy's own with a node: replies in order, bounded in time and size."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import hiredis
import pytest

from rproxy.config import Address, Secret, Upstream
from rproxy.errors import ConnectFailed, HandshakeRefused, NetworkError, ProtocolBroken
from rproxy.upstream import control
from rproxy.upstream.control import converse
from tests.nodes import HANG_UP, TinyNode

PASSWORD = "s3cret"
OPEN = Upstream()
ONLY_PASSWORD = Upstream(password=Secret(PASSWORD))
USER = Upstream(username="alice", password=Secret(PASSWORD))

Commands = list[tuple[str | bytes, ...]]
PINGS: Commands = [("PING",)]


def ask(
    answers: dict[bytes, bytes | None],
    commands: Commands = PINGS,
    options: Upstream = OPEN,
    time_limit: float = 10.0,
    tls: ssl.SSLContext | None = None,
) -> tuple[list[Any], list[list[bytes]]]:
    """The replies of a node that answers like this, and what it heard.

    The connection must be gone afterwards.
    """

    async def main() -> tuple[list[Any], list[list[bytes]]]:
        async with TinyNode() as node:
            node.answers.update(answers)
            try:
                replies = await converse(node.address, commands, options, tls, time_limit)
            finally:
                await asyncio.wait_for(node.deserted.wait(), 10.0)
            return replies, node.heard

    return asyncio.run(main())


def test_replies_come_in_the_order_of_the_commands() -> None:
    replies, heard = ask(
        {b"ECHO": b"*2\r\n:1\r\n$-1\r\n"}, [("PING",), ("ECHO", b"\0\xff"), ("PING",)]
    )
    assert replies == [b"PONG", [1, None], b"PONG"]
    assert heard == [[b"PING"], [b"ECHO", b"\0\xff"], [b"PING"]]


def test_error_reply_is_a_value() -> None:
    replies, _ = ask({b"ECHO": b"-ERR no\r\n"}, [("ECHO", "x"), ("PING",)])
    assert isinstance(replies[0], hiredis.ReplyError)
    assert str(replies[0]) == "ERR no"
    assert replies[1] == b"PONG"


@pytest.mark.parametrize(
    ("options", "login"),
    [(ONLY_PASSWORD, [b"AUTH", b"s3cret"]), (USER, [b"AUTH", b"alice", b"s3cret"])],
)
def test_login_goes_first_and_is_not_among_the_replies(
    options: Upstream, login: list[bytes]
) -> None:
    replies, heard = ask({}, options=options)
    assert replies == [b"PONG"]
    assert heard == [login, [b"PING"]]


def test_refused_login_does_not_show_the_password() -> None:
    with pytest.raises(HandshakeRefused, match="refused our user name and password") as caught:
        ask({b"AUTH": b"-WRONGPASS s3cret is wrong\r\n"}, options=USER)
    assert PASSWORD not in str(caught.value)


def test_large_reply() -> None:
    replies, _ = ask({b"ECHO": b"$3000000\r\n" + b"v" * 3_000_000 + b"\r\n"}, [("ECHO", "x")])
    assert replies == [b"v" * 3_000_000]


def test_replies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a conversation's together."""
    monkeypatch.setattr(control, "MAX_REPLY", 100_000)
    big = b"$40000\r\n" + b"v" * 40_000 + b"\r\n"
    assert len(ask({b"ECHO": big}, [("ECHO", "x")] * 2)[0]) == 2
    with pytest.raises(ConnectFailed, match="sent too much"):
        ask({b"ECHO": big}, [("ECHO", "x")] * 3)


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (HANG_UP, ConnectFailed, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolBroken, "127.0.0.1:"),
        (None, ConnectFailed, "no answer within 0.05 s"),
        (b"$5\r\nhel", ConnectFailed, "no answer within 0.05 s"),
    ],
)
def test_trouble(reply: bytes | None, error: type[NetworkError], text: str) -> None:
    with pytest.raises(error, match=text):
        ask({b"PING": reply}, time_limit=0.05 if "0.05" in text else 10.0)


def test_node_that_does_not_speak_tls() -> None:
    with pytest.raises(NetworkError):
        ask({}, tls=ssl.create_default_context())


def test_nobody_listens() -> None:
    async def main() -> None:
        async with TinyNode() as node:
            address = node.address
        with pytest.raises(ConnectFailed, match=f"^{address}: "):
            await converse(address, PINGS, OPEN, None, 10.0)

    asyncio.run(main())


def test_address_that_is_none() -> None:
    """The system says so, not a node."""
    with pytest.raises(ConnectFailed, match=r"^127\.0\.0\.1:0: "):
        asyncio.run(converse(Address("127.0.0.1", 0), PINGS, OPEN, None, 10.0))


def test_name_that_cannot_be_one() -> None:
    """A node may tell any."""
    with pytest.raises(ConnectFailed, match="no host has such a name"):
        asyncio.run(converse(Address("host..name", 6379), PINGS, OPEN, None, 10.0))
