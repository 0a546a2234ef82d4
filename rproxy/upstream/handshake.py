"""A link's first requests, and what each answer means. Pure.

Strategy. All steps are written at once and their replies come in order; `check` judges each. A
RESP2 link sends AUTH where there is a password; a RESP3 link sends HELLO 3, which logs in as well.
Then every link gives its name, so that an operator finds it in the node's CLIENT LIST, and a link
to a replica asks to be served reads, and a feed of invalidations to be told of every changed key.

Rules. What a node answers to a login is never repeated, except its first word: old servers quote
the arguments of commands that they do not know, and so the password. The name is a courtesy: a node
that refuses it is used all the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import hiredis

from rproxy.config import Upstream

LINK_NAME = "rproxy"
"""What links are called in a node's CLIENT LIST."""


class Step(NamedTuple):
    """One request and what is expected of its reply."""

    name: str
    """The command, for messages: `AUTH`."""

    frame: bytes
    """The request's bytes."""

    expected: tuple[bytes, ...]
    """How a good reply may begin."""

    required: bool = True
    """Whether the link is of no use without it."""

    def __repr__(self) -> str:
        return f"<Step {self.name}>"


def steps(
    upstream: Upstream, protocol: int, replica: bool = False, tracking: bool = False
) -> list[Step]:
    """The first requests of a link that speaks RESP2 or RESP3 (`protocol` 2 or 3), at least one."""
    login = _LOGINS[protocol](upstream.username, upstream.password.reveal())
    name = _step("CLIENT", "SETNAME", LINK_NAME)._replace(required=False)
    track = _step("CLIENT", "TRACKING", "ON", "BCAST")
    return [*login, name, *([_step("READONLY")] if replica else []), *([track] if tracking else [])]


def _resp2_login(username: str, password: str) -> list[Step]:
    if not password:
        return []
    return [_step("AUTH", *([username] if username else []), password)]


def _resp3_login(username: str, password: str) -> list[Step]:
    login = ("AUTH", username or "default", password) if password else ()
    # A map of RESP3; its length differs from version to version.
    return [_step("HELLO", "3", *login)._replace(expected=(b"%",))]


_LOGINS = {2: _resp2_login, 3: _resp3_login}


def _step(*words: str) -> Step:
    # hiredis declares its argument as a tuple of one; it takes any number.
    command: Any = words
    return Step(words[0], hiredis.pack_command(command), (b"+OK",))


def check(step: Step, reply: bytes) -> str | None:
    """None where the reply to a step (its whole frame) is good, else what is wrong, in words."""
    if reply.startswith(step.expected) or not step.required:
        return None
    if not reply.startswith(b"-"):
        return f"{step.name} got a reply that is not one: is this a Redis server?"
    code = reply[1:].split(None, 1)[0].decode("ascii", "replace") if len(reply) > 3 else ""
    reason = _REASONS.get((step.name, code)) or _REASONS.get(("", code))
    return reason or f"the node refused {step.name}"


_REASONS = {
    ("HELLO", "ERR"): "the node does not know HELLO: RESP3 needs Redis 6 or newer",
    ("HELLO", "NOPROTO"): "the node does not speak RESP3",
    ("AUTH", "ERR"): (
        "the node refused AUTH: it asks for no password (upstream.password is set), "
        "or does not know users (upstream.username is set)"
    ),
    ("READONLY", "ERR"): "the node refused READONLY: is it part of a cluster?",
    ("", "NOAUTH"): "the node asks for a password: set upstream.password",
    ("", "WRONGPASS"): "the node refused upstream.username and upstream.password",
    ("", "NOPERM"): "upstream.username is not allowed to use this node",
    ("", "LOADING"): "the node is loading its data",
    ("", "MASTERDOWN"): "the replica has lost its master",
    ("", "DENIED"): "the node is in protected mode: it refuses connections from other machines",
}
"""(Step or any, first word of the error) -> what to tell the operator."""
