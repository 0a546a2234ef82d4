"""Scripts by their SHA1, so that EVALSHA works at nodes that have never seen the script.

A node that joined later, or a replica that took over, does not have the scripts that clients loaded
through other nodes: SCRIPT LOAD and EVAL are not replicated. What clients teach is remembered here,
and a node that answers NOSCRIPT is taught before the command is sent again. Bounded in bytes: the
script that was not used for longest is forgotten, and then the client sees NOSCRIPT, as ever.
"""

from __future__ import annotations

from hashlib import sha1


class ScriptCache:
    """Bodies of scripts, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._bodies: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __repr__(self) -> str:
        return f"<ScriptCache {len(self)} scripts, {self.size} bytes>"

    def remember(self, body: bytes) -> None:
        """A client has taught the servers this script."""
        name = sha1(body, usedforsecurity=False).hexdigest().encode()
        if self._bodies.pop(name, None) is None:
            self.size += len(body)
        self._bodies[name] = body
        while self.size > self.max_bytes:
            oldest = next(iter(self._bodies))
            self.size -= len(self._bodies.pop(oldest))

    def find(self, name: bytes) -> bytes | None:
        """The body of the script with this SHA1, in hexadecimal digits of either case."""
        body = self._bodies.pop(name.lower(), None)
        if body is not None:
            self._bodies[name.lower()] = body
        return body

    def clear(self) -> None:
        """SCRIPT FLUSH: nobody knows any script."""
        self._bodies.clear()
        self.size = 0
