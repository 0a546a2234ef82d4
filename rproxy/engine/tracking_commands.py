"""CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO: the words of client-side caching.

What they set is in the client's Tracker; what follows from it, in tracking.py. Mistakes get Redis's
own errors, in the order in which Redis finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.numbers import integer
from rproxy.engine.replies import OK, encode
from rproxy.engine.tracking_table import Tracker
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.client import Client
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Words = list[bytes]

MOST_PREFIXES = 256
"""Prefixes that one client can follow."""

FLAGS = (b"bcast", b"optin", b"optout", b"noloop")
"""Options of CLIENT TRACKING without a value, and a Tracker's fields of the same names."""


class Wishes:
    """The options of one CLIENT TRACKING."""

    def __init__(self) -> None:
        self.flags: set[bytes] = set()
        self.prefixes: list[bytes] = []
        self.redirect = 0
        self.target: Client | None = None

    def read(self, engine: Engine, words: Words) -> bytes | None:
        """Take the options; the error if there is a mistake in them."""
        left = iter(words)
        for word in left:
            option = word.lower()
            value = next(left, None) if option in (b"redirect", b"prefix") else None
            problem = None
            if option in FLAGS:
                self.flags.add(option)
            elif value is None:
                problem = errors.SYNTAX_ERROR
            elif option == b"prefix":
                self.prefixes.append(value)
            else:
                problem = self._redirect(engine, value)
            if problem is not None:
                return problem
        return None

    def _redirect(self, engine: Engine, value: bytes) -> bytes | None:
        if self.redirect:
            return errors.reply("ERR A client can only redirect to a single other client")
        number = integer(value)
        if number is None:
            return errors.NOT_AN_INTEGER
        self.target = next((client for client in engine.clients if client.id == number), None)
        self.redirect = number
        if self.target is not None:
            return None
        where = "" if engine.bus is None else " among the clients of this worker"
        return errors.reply(f"ERR The client ID you want redirect to does not exist{where}")

    def conflict(self, tracker: Tracker) -> bytes | None:
        """The error where the options fit neither each other nor what is set already."""
        bcast = b"bcast" in self.flags
        both = {b"optin", b"optout"}
        rules = (
            (self.prefixes and not bcast, "PREFIX option requires BCAST mode to be enabled"),
            (
                tracker.on and tracker.bcast != bcast,
                "You can't switch BCAST mode on/off before disabling tracking for this client, and "
                "then re-enabling it with a different mode.",
            ),
            (bcast and self.flags & both, "OPTIN and OPTOUT are not compatible with BCAST"),
            (self.flags >= both, "You can't specify both OPTIN mode and OPTOUT mode"),
            (
                (b"optin" in self.flags and tracker.optout)
                or (b"optout" in self.flags and tracker.optin),
                "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and "
                "then re-enabling it with a different mode.",
            ),
        )
        text = next((text for is_broken, text in rules if is_broken), None)
        return self._collision(tracker) if text is None else errors.reply(f"ERR {text}")

    def _collision(self, tracker: Tracker) -> bytes | None:
        """The error where two prefixes would tell of the same key."""
        if len(tracker.prefixes.keys() | set(self.prefixes)) > MOST_PREFIXES:
            return errors.reply(f"ERR a client can follow {MOST_PREFIXES} prefixes at most")
        for place, prefix in enumerate(self.prefixes):
            present = _overlapping(prefix, sorted(tracker.prefixes))
            if present is not None:
                return _overlap(prefix, b"an existing", present)
            provided = _overlapping(prefix, self.prefixes[place + 1 :])
            if provided is not None:
                return _overlap(prefix, b"another provided", provided)
        return None

    def apply(self, tracker: Tracker) -> None:
        """Set what is wished for."""
        for flag in FLAGS:
            setattr(tracker, flag.decode(), flag in self.flags)
        tracker.redirect, tracker.target, tracker.broken = self.redirect, self.target, False
        if tracker.bcast:
            tracker.prefixes.update(dict.fromkeys(self.prefixes or [b""]))


def _overlapping(prefix: bytes, others: Iterable[bytes]) -> bytes | None:
    """The first of the others that begins like the prefix, or the other way round."""
    return next((o for o in others if o.startswith(prefix) or prefix.startswith(o)), None)


def _overlap(prefix: bytes, kind: bytes, other: bytes) -> bytes:
    return errors.reply(
        b"ERR Prefix '%b' overlaps with %b prefix '%b'. " % (prefix, kind, other)
        + b"Prefixes for a single client must not overlap."
    )


def tracker_of(session: Session) -> Tracker:
    """How the session's client is told of changes."""
    client: Client = session.client
    if client.tracker is None:
        client.tracker = Tracker(session)
    return client.tracker


def begins_to_track(engine: Engine, session: Session, request: Request) -> bool:
    """Whether CLIENT TRACKING ON has to wait until the nodes tell of changes."""
    if request.argv()[2].lower() != b"on":
        return False
    if not engine.tracking.awaits(partial(engine.resume, session, request)):
        return False
    session.hold()
    return True


def _tracking(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) < 3:
        return errors.wrong_arity_reply("client|tracking")
    wishes, tracker = Wishes(), tracker_of(session)
    problem = wishes.read(engine, argv[3:])
    mode = argv[2].lower()
    if problem is None and mode == b"on":
        problem = wishes.conflict(tracker)
    elif problem is None and mode != b"off":
        problem = errors.SYNTAX_ERROR
    if problem is not None:
        return problem
    if mode == b"off":
        engine.tracking.turn_off(tracker)
    else:
        wishes.apply(tracker)
        engine.tracking.turn_on(tracker)
    return OK


def _caching(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 3:
        return errors.wrong_arity_reply("client|caching")
    tracker = tracker_of(session)
    if not tracker.on:
        return errors.reply(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN "
            "or OPTOUT mode enabled"
        )
    answer = argv[2].lower()
    if answer not in CACHING:
        return errors.SYNTAX_ERROR
    mode = CACHING[answer]
    if not getattr(tracker, mode):
        return errors.reply(
            f"ERR CLIENT CACHING {answer.decode().upper()} is only valid when tracking is enabled "
            f"in {mode.upper()} mode."
        )
    tracker.caching = True
    return OK


CACHING = {b"yes": "optin", b"no": "optout"}
"""Words of CLIENT CACHING -> the mode that they are for."""


def _getredir(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 2:
        return errors.wrong_arity_reply("client|getredir")
    return encode(session.client.redirect)


def _trackinginfo(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) != 2:
        return errors.wrong_arity_reply("client|trackinginfo")
    tracker, protocol = tracker_of(session), session.protocol
    flags = encode(tracker.flags)
    parts = [
        b"%3\r\n" if protocol == 3 else b"*6\r\n",
        encode("flags"),
        b"~" + flags[1:] if protocol == 3 else flags,
        encode("redirect"),
        encode(session.client.redirect),
        encode("prefixes"),
        encode(sorted(tracker.prefixes)),
    ]
    return b"".join(parts)


TRACKING: dict[bytes, Callable[[Engine, Session, Words], bytes]] = {
    b"tracking": _tracking,
    b"caching": _caching,
    b"getredir": _getredir,
    b"trackinginfo": _trackinginfo,
}
"""Subcommands of CLIENT."""
