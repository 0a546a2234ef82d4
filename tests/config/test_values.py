"""Durations, sizes, secrets and addresses, as operators write them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.config import Address, Bytes, Seconds, Secret, UnixPath
from rproxy.config.values import parse_listen
from rproxy.errors import AddressError


@pytest.mark.parametrize(
    ("raw", "seconds", "shown"),
    [
        ("5s", 5.0, "5s"),
        ("250ms", 0.25, "250ms"),
        ("0.5s", 0.5, "500ms"),
        ("2m", 120.0, "2m"),
        ("90s", 90.0, "90s"),
        ("1H", 3600.0, "1h"),
        (" 3 s ", 3.0, "3s"),
        ("7", 7.0, "7s"),
        (10, 10.0, "10s"),
        (0.05, 0.05, "50ms"),
        (0, 0.0, "0s"),
    ],
)
def test_durations(raw: object, seconds: float, shown: str) -> None:
    assert Seconds.parse(raw) == pytest.approx(seconds)
    assert str(Seconds.parse(raw)) == shown


@pytest.mark.parametrize(
    ("raw", "size", "shown"),
    [
        ("256mb", 256 << 20, "256mb"),
        ("1GB", 1 << 30, "1gb"),
        ("1k", 1000, "1000"),
        ("64kb", 65536, "64kb"),
        ("1.5mb", 3 << 19, "1536kb"),
        ("17b", 17, "17"),
        (4096, 4096, "4kb"),
        (0, 0, "0"),
    ],
)
def test_sizes(raw: object, size: int, shown: str) -> None:
    assert Bytes.parse(raw) == size
    assert str(Bytes.parse(raw)) == shown


@pytest.mark.parametrize(
    "raw", ["", "s", "-1s", "5x", "5 s s", "1e3", True, None, [], -1, float("inf"), float("nan")]
)
@pytest.mark.parametrize("kind", [Seconds, Bytes])
def test_no_amounts(kind: type[Seconds] | type[Bytes], raw: object) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        kind.parse(raw)


def test_a_size_is_whole() -> None:
    with pytest.raises(ValueError, match="whole number"):
        Bytes.parse(1.5)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_size_reads_back(size: int) -> None:
    assert Bytes.parse(str(Bytes(size))) == size


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_reads_back(milliseconds: int) -> None:
    seconds = Seconds(milliseconds / 1000)
    assert Seconds.parse(str(seconds)) == pytest.approx(seconds)


def test_a_secret_hides() -> None:
    secret = Secret("hunter2")
    assert f"{secret} {secret!r} {[secret]}" == "*** *** [***]"
    assert secret.reveal() == "hunter2"
    assert (bool(secret), bool(Secret())) == (True, False)
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    assert hash(secret) == hash(Secret("hunter2"))


def test_a_secret_knows_itself_in_bytes() -> None:
    assert Secret("pä").matches("pä".encode())
    assert not Secret("hunter2").matches(b"hunter")
    assert not Secret("hunter2").matches(b"\xff")


def test_a_secret_reaches_another_process() -> None:
    assert pickle.loads(pickle.dumps(Secret("hunter2"))).reveal() == "hunter2"


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:6379", "127.0.0.1", 6379, "127.0.0.1:6379"),
        ("redis-0.example.com:1", "redis-0.example.com", 1, "redis-0.example.com:1"),
        ("[::1]:6379", "::1", 6379, "[::1]:6379"),
        ("::1:6379", "::1", 6379, "[::1]:6379"),
        ("fe80::1%eth0:65535", "fe80::1%eth0", 65535, "[fe80::1%eth0]:65535"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    [
        *("", "h", ":1", "h:", "h:0", "h:65536", "h:-1", "h:1x", "h:١", "h h:1", "[]:1"),  # noqa: RUF001
        *("redis://h:1", "user@h:1", "[::1:1", "h\n:1", 5, None),
    ],
)
def test_no_addresses(text: object) -> None:
    with pytest.raises(AddressError):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "expected", "local"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), True),
        ("127.9.9.9:1", Address("127.9.9.9", 1), True),
        ("[::1]:6380", Address("::1", 6380), True),
        ("localhost:6380", Address("localhost", 6380), True),
        ("0.0.0.0:6380", Address("0.0.0.0", 6380), False),
        ("[::]:6380", Address("::", 6380), False),
        ("example.com:6380", Address("example.com", 6380), False),
        ("unix:/run/r.sock", UnixPath("/run/r.sock"), True),
    ],
)
def test_listeners(text: str, expected: Address | UnixPath, local: bool) -> None:
    where = parse_listen(text)
    assert where == expected
    assert where.is_loopback is local
    assert parse_listen(str(where)) == where


@pytest.mark.parametrize("text", ["unix:", "unix:/" + "x" * 100, "unix:/a\0b", "6380", 6380])
def test_no_listeners(text: object) -> None:
    with pytest.raises(AddressError):
        parse_listen(text)
