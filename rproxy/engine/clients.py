"""CLIENT and its subcommands: the state of rproxy's clients, never of its links to the nodes.

Each function returns the reply, or None where there is none (REPLY OFF and SKIP). Subcommands that
concern the clients of all workers are in SHARED; they are called without a session where another
worker's client asks (see everywhere.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.client import Client
from rproxy.engine.numbers import integer
from rproxy.engine.replies import OK, encode, verbatim
from rproxy.engine.tracking_commands import TRACKING

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Words = list[bytes]
Match = Callable[[Client], bool]


def _id(engine: Engine, session: Session, argv: Words) -> bytes:
    return encode(session.client.id) if len(argv) == 2 else errors.wrong_arity_reply("client|id")


def _getname(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 2:
        return errors.wrong_arity_reply("client|getname")
    return encode(session.client.name.encode("utf-8", "surrogateescape") or None, session.protocol)


def _setname(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 3:
        return errors.wrong_arity_reply("client|setname")
    if not _printable(argv[2]):
        return errors.BAD_CLIENT_NAME
    session.client.name = argv[2].decode("ascii")
    return OK


INFO_FIELDS = {b"lib-name": "lib_name", b"lib-ver": "lib_ver"}
"""Options of CLIENT SETINFO, and the Client's field for each."""


def _setinfo(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 4:
        return errors.wrong_arity_reply("client|setinfo")
    field = INFO_FIELDS.get(argv[2].lower())
    if field is None:
        return errors.reply(b"ERR Unrecognized option '" + argv[2] + b"'")
    if not _printable(argv[3]):
        return errors.reply(
            f"ERR {argv[2].decode()} cannot contain spaces, newlines or special characters."
        )
    setattr(session.client, field, argv[3].decode("ascii"))
    return OK


def _printable(word: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in word)


def _info(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 2:
        return errors.wrong_arity_reply("client|info")
    return verbatim(session.client.line(time.monotonic()) + "\n", session.protocol)


def _list(engine: Engine, session: Session | None, argv: Words) -> bytes:
    match = _list_filter(argv[2:])
    if isinstance(match, bytes):
        return match
    now = time.monotonic()
    chosen = sorted(filter(match, engine.clients), key=lambda client: client.id)
    text = "".join(f"{client.line(now)}\n" for client in chosen)
    return verbatim(text, 2 if session is None else session.protocol)


def _everyone(client: Client) -> bool:
    return True


def _list_filter(words: Words) -> Match | bytes:
    """What CLIENT LIST's options ask for, or an error."""
    if not words:
        return _everyone
    option = words[0].lower()
    if option == b"type" and len(words) == 2:
        return _type_filter(words[1])
    if option == b"id" and len(words) > 1:
        wanted = {integer(word) for word in words[1:]}
        if None in wanted:
            return errors.reply("ERR Invalid client ID")
        return lambda client: client.id in wanted
    return errors.SYNTAX_ERROR


def _type_filter(kind: bytes) -> Match | bytes:
    match = TYPES.get(kind.lower())
    return errors.reply(b"ERR Unknown client type '" + kind + b"'") if match is None else match


def _is_subscribed(client: Client) -> bool:
    return client.session is not None and client.session.is_subscribed


TYPES: dict[bytes, Match] = {
    b"normal": lambda client: not _is_subscribed(client),
    b"pubsub": _is_subscribed,
    b"master": lambda client: False,
    b"replica": lambda client: False,
    b"slave": lambda client: False,
}
"""Redis's types of clients, and which of rproxy's are of that type."""


def _kill(engine: Engine, session: Session | None, argv: Words) -> bytes:
    if len(argv) == 3:
        address = argv[2].decode("ascii", "replace")
        killed = _close(session, [c for c in engine.clients if c.address == address])
        return OK if killed else errors.reply("ERR No such client")
    if len(argv) < 4 or len(argv) % 2:
        return errors.SYNTAX_ERROR
    filters: list[Match] = []
    skip_me = True
    for option, value in zip(argv[2::2], argv[3::2], strict=True):
        if option.lower() == b"skipme":
            if value.lower() not in (b"yes", b"no"):
                return errors.SYNTAX_ERROR
            skip_me = value.lower() == b"yes"
            continue
        match = _kill_filter(option.lower(), value)
        if isinstance(match, bytes):
            return match
        filters.append(match)
    chosen = [c for c in engine.clients if all(match(c) for match in filters)]
    if skip_me:
        chosen = [c for c in chosen if session is None or c is not session.client]
    return encode(_close(session, chosen))


def _kill_filter(option: bytes, value: bytes) -> Match | bytes:
    text = value.decode("ascii", "replace")
    if option == b"type":
        return _type_filter(value)
    if option == b"user":
        return _everyone if text == "default" else errors.reply(f"ERR No such user '{text}'")
    if option == b"addr":
        return lambda client: client.address == text
    if option == b"laddr":
        return lambda client: client.local_address == text
    if option not in (b"id", b"maxage"):
        return errors.SYNTAX_ERROR
    return _number_filter(option, integer(value))


def _number_filter(option: bytes, number: int | None) -> Match | bytes:
    if number is None and option == b"maxage":
        return errors.reply("ERR maxage is not an integer or out of range")
    if number is None or number <= 0:
        name = "client-id" if option == b"id" else "maxage"
        return errors.reply(f"ERR {name} should be greater than 0")
    if option == b"id":
        return lambda client: client.id == number
    latest = time.monotonic() - number
    return lambda client: client.since <= latest


def _close(session: Session | None, chosen: Iterable[Client]) -> int:
    """Close the sessions of `chosen`, the own one only after its reply; how many they were."""
    count = 0
    for client in chosen:
        count += 1
        if session is not None and client is session.client:
            session.hold(_leave)  # what the client has sent behind it is not read
        elif client.session is not None:
            client.session.close("CLIENT KILL")
    return count


def _leave(session: Session) -> None:
    session.release()
    session.end()


def _reply(engine: Engine, session: Session, argv: Words) -> bytes | None:
    if len(argv) != 3:
        return errors.wrong_arity_reply("client|reply")
    mode = argv[2].lower()
    if mode == b"on":
        session.mute(False)
        session.answer(OK)  # not in the place of a request that was still muted
        return None
    if mode not in (b"off", b"skip"):
        return errors.SYNTAX_ERROR
    session.mute(mode == b"off" or session.is_muted, 1 if mode == b"skip" else 0)
    return None


def _switch(name: str, field: str) -> Callable[[Engine, Session, Words], bytes]:
    """NO-EVICT and NO-TOUCH: on or off."""

    def switch(engine: Engine, session: Session, argv: Words) -> bytes:
        modes = {b"on": True, b"off": False}
        if len(argv) != 3:
            return errors.wrong_arity_reply(f"client|{name}")
        if argv[2].lower() not in modes:
            return errors.SYNTAX_ERROR
        setattr(session.client, field, modes[argv[2].lower()])
        return OK

    return switch


def _pause(engine: Engine, session: Session | None, argv: Words) -> bytes:
    if len(argv) not in (3, 4):
        return errors.subcommand_arity_reply(b"CLIENT", argv[1])
    mode = argv[3].lower() if len(argv) == 4 else b"all"
    if mode not in (b"write", b"all"):
        return errors.reply("ERR CLIENT PAUSE mode must be WRITE or ALL")
    millis = integer(argv[2])
    if millis is None:
        return errors.reply("ERR timeout is not an integer or out of range")
    if millis < 0:
        return errors.reply("ERR timeout is negative")
    engine.pause.begin(millis / 1000, mode == b"all")
    return OK


def _unpause(engine: Engine, session: Session | None, argv: Words) -> bytes:
    if len(argv) != 2:
        return errors.wrong_arity_reply("client|unpause")
    engine.pause.end()
    return OK


def _unblock(engine: Engine, session: Session | None, argv: Words) -> bytes:
    if len(argv) not in (3, 4):
        return errors.subcommand_arity_reply(b"CLIENT", argv[1])
    reason = argv[3].lower() if len(argv) == 4 else b"timeout"
    if reason not in (b"timeout", b"error"):
        return errors.reply("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    number = integer(argv[2])
    if number is None:
        return errors.NOT_AN_INTEGER
    blocked = (waiting for waiting in engine.blocked if waiting.session.client.id == number)
    return encode(sum(waiting.unblock(reason == b"error") for waiting in blocked))


SHARED: dict[bytes, Callable[[Engine, Session | None, Words], bytes]] = {
    b"list": _list,
    b"kill": _kill,
    b"pause": _pause,
    b"unpause": _unpause,
    b"unblock": _unblock,
}
"""Subcommands that concern all clients -> what each worker does for its own."""

SUBCOMMANDS: dict[bytes, Callable[[Engine, Session, Words], bytes | None]] = {
    **SHARED,
    b"id": _id,
    b"getname": _getname,
    b"setname": _setname,
    b"setinfo": _setinfo,
    b"info": _info,
    b"reply": _reply,
    b"no-evict": _switch("no-evict", "no_evict"),
    b"no-touch": _switch("no-touch", "no_touch"),
    **TRACKING,
}
