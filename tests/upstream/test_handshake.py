"""A link's first requests, and what nodes may answer."""

from __future__ import annotations

import pytest

from rproxy.config import Secret, Upstream
from rproxy.upstream.handshake import Step, check, steps

PASSWORD = "s3cret"


def frames(upstream: Upstream, protocol: int, replica: bool = False) -> list[bytes]:
    """The requests in words."""
    return [
        b" ".join(step.frame.split(b"\r\n")[2::2]) for step in steps(upstream, protocol, replica)
    ]


OPEN = Upstream()
ONLY_PASSWORD = Upstream(password=Secret(PASSWORD))
USER = Upstream(username="alice", password=Secret(PASSWORD))


@pytest.mark.parametrize(
    ("upstream", "protocol", "replica", "expected"),
    [
        (OPEN, 2, False, [b"CLIENT SETNAME rproxy"]),
        (OPEN, 3, False, [b"HELLO 3", b"CLIENT SETNAME rproxy"]),
        (OPEN, 2, True, [b"CLIENT SETNAME rproxy", b"READONLY"]),
        (ONLY_PASSWORD, 2, False, [b"AUTH s3cret", b"CLIENT SETNAME rproxy"]),
        (ONLY_PASSWORD, 3, False, [b"HELLO 3 AUTH default s3cret", b"CLIENT SETNAME rproxy"]),
        (USER, 2, False, [b"AUTH alice s3cret", b"CLIENT SETNAME rproxy"]),
        (USER, 3, True, [b"HELLO 3 AUTH alice s3cret", b"CLIENT SETNAME rproxy", b"READONLY"]),
    ],
)
def test_steps(upstream: Upstream, protocol: int, replica: bool, expected: list[bytes]) -> None:
    assert frames(upstream, protocol, replica) == expected


def test_a_frame_is_a_whole_request() -> None:
    assert steps(USER, 2)[0].frame == b"*3\r\n$4\r\nAUTH\r\n$5\r\nalice\r\n$6\r\ns3cret\r\n"


def step(name: str) -> Step:
    """The step of that name in the longest handshake."""
    every = [*steps(USER, 2), *steps(USER, 3, True)]
    return next(step for step in every if step.name == name)


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("AUTH", b"+OK\r\n"),
        ("HELLO", b"%7\r\n$6\r\nserver\r\n"),
        ("READONLY", b"+OK\r\n"),
        ("CLIENT", b"+OK\r\n"),
        (
            "CLIENT",
            b"-NOPERM User alice has no permissions to run the 'client|setname' command\r\n",
        ),
    ],
)
def test_good_replies(name: str, reply: bytes) -> None:
    assert check(step(name), reply) is None


@pytest.mark.parametrize(
    ("name", "reply", "expected"),
    [
        ("HELLO", b"-ERR unknown command `HELLO`, with args: `3`, `s3cret`\r\n", "Redis 6"),
        ("HELLO", b"-NOPROTO unsupported protocol version\r\n", "does not speak RESP3"),
        ("HELLO", b"-WRONGPASS invalid username-password pair\r\n", "refused upstream.username"),
        ("HELLO", b"-NOAUTH HELLO must be called with the client\r\n", "set upstream.password"),
        ("HELLO", b"*14\r\n$6\r\nserver\r\n", "is this a Redis server?"),
        ("AUTH", b"-ERR AUTH <password> called without any password\r\n", "asks for no password"),
        ("AUTH", b"-WRONGPASS s3cret\r\n", "refused upstream.username"),
        ("AUTH", b"-NOPERM s3cret\r\n", "not allowed"),
        ("AUTH", b"-s3cret\r\n", "the node refused AUTH"),
        ("AUTH", b"HTTP/1.1 400 Bad Request\r\n", "is this a Redis server?"),
        ("AUTH", b"-\r\n", "the node refused AUTH"),
        ("AUTH", b"", "is this a Redis server?"),
        ("READONLY", b"-ERR This instance has cluster support disabled\r\n", "part of a cluster"),
        ("READONLY", b"-LOADING Redis is loading\r\n", "loading its data"),
    ],
)
def test_bad_replies_say_why_and_never_the_password(name: str, reply: bytes, expected: str) -> None:
    problem = check(step(name), reply)
    assert problem is not None
    assert expected in problem
    assert PASSWORD not in problem


def test_a_step_does_not_show_the_password() -> None:
    assert PASSWORD not in repr(steps(USER, 3))
