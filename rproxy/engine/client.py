"""Who a client is: what CLIENT INFO shows and CLIENT KILL matches. One object per connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rproxy.engine.hub import Subscriber
    from rproxy.engine.session import Session
    from rproxy.engine.tracking_table import Tracker
    from rproxy.probe import Probe

FLAG_NONE = "N"


class Client:
    """One client's identity; its conversation is `session`."""

    __slots__ = (
        "address",
        "authenticated",
        "fd",
        "id",
        "lib_name",
        "lib_ver",
        "local_address",
        "name",
        "no_evict",
        "no_touch",
        "probe",
        "session",
        "since",
        "subscriber",
        "tracker",
    )

    def __init__(
        self, id: int, address: str, local_address: str, fd: int, authenticated: bool, probe: Probe
    ) -> None:
        self.id = id
        self.address = address
        self.local_address = local_address
        self.fd = fd
        self.authenticated = authenticated
        self.probe = probe
        self.session: Session | None = None
        self.since = time.monotonic()
        self.name = ""
        self.lib_name = ""
        self.lib_ver = ""
        self.no_evict = False
        self.no_touch = False
        self.subscriber: Subscriber | None = None
        self.tracker: Tracker | None = None

    def broke_protocol(self, trouble: str) -> None:
        """Count a protocol error of this client."""
        self.probe.client_broke_protocol(self.address, trouble)

    def reset(self, authenticated: bool) -> None:
        """RESET: forget what the client told about itself, as Redis does."""
        self.name = ""
        self.no_evict = self.no_touch = False
        self.authenticated = authenticated

    @property
    def flags(self) -> str:
        """CLIENT LIST's flags: O monitor, P subscriber, x inside MULTI, b blocked, t tracking, R
        its target is gone, B in BCAST mode, e no-evict, T no-touch, N none.
        """
        assert self.session is not None
        pin, tracker = self.session.pin, self.tracker
        flags = {
            "O": self.session.is_monitor,
            "P": self.session.is_subscribed,
            "x": pin is not None and pin.depth >= 0,
            "b": pin is not None and pin.blocking,
            "t": tracker is not None and tracker.on,
            "R": tracker is not None and tracker.broken,
            "B": tracker is not None and tracker.bcast,
            "e": self.no_evict,
            "T": self.no_touch,
        }
        return "".join(flag for flag, is_set in flags.items() if is_set) or FLAG_NONE

    @property
    def redirect(self) -> int:
        """Id of the client that is told of changes instead; 0 for none, -1 without tracking."""
        return self.tracker.redirect if self.tracker is not None and self.tracker.on else -1

    def line(self, now: float) -> str:
        """The client in the format of CLIENT LIST, without a line end."""
        session = self.session
        assert session is not None
        unsent = session.stream.unsent
        channels, patterns, shards = self.subscriber.counts if self.subscriber else (0, 0, 0)
        fields = {
            "id": self.id,
            "addr": self.address,
            "laddr": self.local_address,
            "fd": self.fd,
            "name": self.name,
            "age": int(now - self.since),
            "idle": max(0, int(now - session.active_at)),
            "flags": self.flags,
            "db": 0,
            "sub": channels,
            "psub": patterns,
            "ssub": shards,
            "multi": -1 if session.pin is None else session.pin.depth,
            "qbuf": session.unread,
            "qbuf-free": 0,
            "argv-mem": 0,
            "multi-mem": 0,
            "rbs": 0,
            "rbp": 0,
            "obl": 0,
            "oll": session.under_way,
            "omem": unsent,
            "tot-mem": unsent,
            "events": "r",
            "cmd": session.last_command,
            "user": "default",
            "redir": self.redirect,
            "resp": session.protocol,
            "lib-name": self.lib_name,
            "lib-ver": self.lib_ver,
        }
        return " ".join(f"{name}={value}" for name, value in fields.items())

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.address} {self.session!r}>"
