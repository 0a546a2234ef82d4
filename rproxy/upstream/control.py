"""Short conversations of rproxy's own with one node: the slot map, the command table.

Each opens a connection, authenticates, asks, and closes: a node that is busy with clients'
commands, or whose links stall, still answers here, and nothing of this kind can disturb a link
that clients share.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import hiredis

from rproxy.config import Address, Upstream
from rproxy.errors import ConnectFailed, HandshakeRefused, ProtocolBroken

MAX_REPLY = 64 << 20
"""Bytes that one conversation may bring; a slot map of 1,000 nodes has a few hundred thousand."""


async def converse(
    address: Address,
    commands: list[tuple[str | bytes, ...]],
    options: Upstream,
    tls: ssl.SSLContext | None,
    time_limit: float,
) -> list[Any]:
    """The replies to `commands`, as hiredis gives them (errors as `hiredis.ReplyError` values).

    Raises ConnectFailed, HandshakeRefused or ProtocolBroken; never takes longer than `time_limit`
    seconds.
    """
    try:
        async with asyncio.timeout(time_limit):
            return await _converse(address, commands, options, tls)
    except TimeoutError:
        raise ConnectFailed(f"{address}: no answer within {time_limit:g} s") from None
    except OSError as error:
        raise ConnectFailed(f"{address}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise ConnectFailed(f"{address}: no host has such a name") from error


async def _converse(
    address: Address,
    commands: list[tuple[str | bytes, ...]],
    options: Upstream,
    tls: ssl.SSLContext | None,
) -> list[Any]:
    name = (options.tls.server_name or address.host) if tls is not None else None
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=tls, server_hostname=name
    )
    try:
        password = options.password.reveal()
        login: list[tuple[str | bytes, ...]] = [
            ("AUTH", *([options.username] if options.username else []), password)
        ]
        asked = (login if password else []) + commands
        writer.write(b"".join(_pack(command) for command in asked))
        replies = await _read(reader, len(asked), address)
    finally:
        writer.close()
    if password and isinstance(replies.pop(0), hiredis.ReplyError):
        raise HandshakeRefused(f"{address} refused our user name and password")
    return replies


def _pack(command: tuple[str | bytes, ...]) -> bytes:
    # hiredis declares its argument as a tuple of one; it takes any number.
    words: Any = command
    packed: bytes = hiredis.pack_command(words)
    return packed


async def _read(reader: asyncio.StreamReader, count: int, address: Address) -> list[Any]:
    parser = hiredis.Reader()
    replies: list[Any] = []
    received = 0
    while len(replies) < count:
        chunk = await reader.read(65536)
        received += len(chunk)
        if not chunk or received > MAX_REPLY:
            raise ConnectFailed(f"{address} closed the connection or sent too much")
        parser.feed(chunk)
        try:
            while (reply := parser.gets()) is not False:
                replies.append(reply)
        except hiredis.ProtocolError as error:
            raise ProtocolBroken(f"{address}: {error}") from error
    return replies
