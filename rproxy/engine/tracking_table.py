"""The tracking table: which clients may have a key in a cache of their own.

Strategy. Keys lie by slot, because slots move as a whole. Most keys are read by one client: its
Tracker stands in the table by itself, only several become a set.

Rules. The table is bounded by the number of its keys and by the bytes that it takes, as far as they
can be counted; `overflow` takes the key out that has to go. An entry is gone once its clients are
told. Clients that have left stay in their entries, as in Redis, and are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rproxy.engine.client import Client
    from rproxy.engine.noloop import Write
    from rproxy.engine.session import Session
    from rproxy.wire.frames import Request

ENTRY_SIZE = 200
"""Bytes that a key takes besides its name: its place in the tables, the object's head."""

ITEM_SIZE = 80
"""Bytes that each further client of a key takes."""


class Tracker:
    """How one client wants to be told of changes."""

    __slots__ = (
        "bcast",
        "broken",
        "caching",
        "forgot_at",
        "mark",
        "news",
        "noloop",
        "on",
        "optin",
        "optout",
        "prefixes",
        "redirect",
        "session",
        "target",
        "writes",
    )

    def __init__(self, session: Session) -> None:
        self.session: Session | None = session
        """None: the client has gone."""
        self.on = False
        self.bcast = self.optin = self.optout = self.noloop = False
        self.caching = False
        """Whether CLIENT CACHING was given for the next command."""
        self.redirect = 0
        """Id of the client that is told instead; 0 for none."""
        self.target: Client | None = None
        """That client."""
        self.broken = False
        """Whether it was found gone."""
        self.prefixes: dict[bytes, None] = {}
        self.news = News()
        """What waits to be told until earlier replies are out."""
        self.mark: Request | None = None
        """Where it waits."""
        self.forgot_at = -1
        """How many commands the client had sent when it was told to forget everything."""
        self.writes: dict[bytes, Write] = {}
        """What it is writing under NOLOOP, by key."""

    def __repr__(self) -> str:
        return f"<Tracker {' '.join(self.flags)} of {self.session!r}>"

    @property
    def flags(self) -> list[str]:
        """What CLIENT TRACKINGINFO calls its flags."""
        flags = {
            "on": self.on,
            "off": not self.on,
            "bcast": self.bcast,
            "optin": self.optin,
            "caching-yes": self.optin and self.caching,
            "optout": self.optout,
            "caching-no": self.optout and self.caching,
            "noloop": self.noloop,
            "broken_redirect": self.broken,
        }
        return [name for name, is_set in flags.items() if is_set]

    @property
    def remembers(self) -> bool:
        """Whether the keys of its next read are to be remembered."""
        return not self.bcast and (not self.optin or self.caching) and not self._opted_out

    @property
    def _opted_out(self) -> bool:
        return self.optout and self.caching


class News:
    """What one client is to be told, in its order; too much of it becomes one word: everything."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: list[list[bytes] | None] = []
        self.size = 0

    def add(self, keys: list[bytes] | None, limit: int) -> None:
        """These keys have changed; None: all."""
        if keys is not None and self.messages[-1:] == [None]:
            return
        self.size += sum(ENTRY_SIZE + len(key) for key in keys or ())
        if keys is None or self.size > limit:
            self.messages, self.size = [None], 0
        else:
            self.messages.append(keys)


Readers = Tracker | set[Tracker]


class TrackingTable:
    """Key -> the clients that are to be told when it changes."""

    def __init__(self, max_keys: int, max_bytes: int) -> None:
        self.max_keys = max_keys
        self.max_bytes = max_bytes
        self.keys = 0
        self.items = 0
        self.size = 0
        self._slots: dict[int, dict[bytes, Readers]] = {}

    def __repr__(self) -> str:
        return f"<TrackingTable {self.keys} keys, {self.items} items, {self.size} bytes>"

    def add(self, key: bytes, slot: int, reader: Tracker) -> None:
        """The client has the key from now on."""
        keys = self._slots.get(slot)
        if keys is None:
            keys = self._slots[slot] = {}
        present = keys.get(key)
        if present is None:
            keys[key] = reader
            self.keys += 1
            self.items += 1
            self.size += ENTRY_SIZE + len(key)
        elif isinstance(present, set):
            before = len(present)
            present.add(reader)
            self._more_items(len(present) - before)
        elif present is not reader:
            keys[key] = {present, reader}
            self._more_items(1)

    def _more_items(self, count: int) -> None:
        self.items += count
        self.size += ITEM_SIZE * count

    def take(self, key: bytes, slot: int) -> Iterable[Tracker]:
        """The key's clients; it is in the table no more."""
        keys = self._slots.get(slot)
        present = None if keys is None else keys.pop(key, None)
        if present is None:
            return ()
        if not keys:
            del self._slots[slot]
        return self._taken(key, present)

    def _taken(self, key: bytes, present: Readers) -> Iterable[Tracker]:
        readers = present if isinstance(present, set) else (present,)
        self.keys -= 1
        self.items -= len(readers)
        self.size -= ENTRY_SIZE + len(key) + ITEM_SIZE * (len(readers) - 1)
        return readers

    def take_slot(self, slot: int) -> list[tuple[bytes, Iterable[Tracker]]]:
        """All keys of the slot and their clients; none of them is in the table any more."""
        return [(key, self._taken(key, r)) for key, r in self._slots.pop(slot, {}).items()]

    def overflow(self) -> tuple[bytes, Iterable[Tracker]] | None:
        """A key that has to go, and its clients, while the table is too large; else None."""
        if self.keys <= self.max_keys and self.size <= self.max_bytes:
            return None
        slot, keys = next(iter(self._slots.items()))
        key = next(iter(keys))
        return key, self.take(key, slot)

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self.keys = self.items = self.size = 0
