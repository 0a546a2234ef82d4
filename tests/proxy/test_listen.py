"""Listening sockets: what is opened where, and what is said where that cannot be had."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rproxy.config import Address, Clients, Config, UnixPath
from rproxy.errors import UsageError
from rproxy.proxy.listen import addresses, close_all, open_listeners, remove_files

ANY_PORT = Address("127.0.0.1", 0)
Shares = list[list[socket.socket]]


@contextmanager
def listening(*where: Address | UnixPath, workers: int = 1, **clients: object) -> Iterator[Shares]:
    """The sockets that rproxy would listen on."""
    config = Config(
        listen=where,
        workers=workers,
        clients=Clients(**clients),  # type: ignore[arg-type]
    )
    shares = open_listeners(config)
    try:
        yield shares
    finally:
        close_all(shares)


def place(sock: socket.socket) -> Address:
    return Address(*sock.getsockname()[:2])


def connects(where: Address | str) -> bool:
    """Whether somebody listens there."""
    if isinstance(where, Address):
        with socket.socket() as visitor:
            return visitor.connect_ex(tuple(where)) == 0
    with socket.socket(socket.AF_UNIX) as visitor:
        return visitor.connect_ex(where) == 0


# -- TCP --


def test_one_worker() -> None:
    with listening(ANY_PORT) as ((sock,),):
        assert place(sock).host == "127.0.0.1"
        assert connects(place(sock))
        assert addresses([sock]) == [str(place(sock))]


def test_every_worker_listens_on_the_same_port_with_a_socket_of_its_own() -> None:
    with listening(ANY_PORT, workers=3) as shares:
        assert [len(share) for share in shares] == [1, 1, 1]
        assert len({place(share[0]) for share in shares}) == 1
        assert len({share[0].fileno() for share in shares}) == 3
        where = place(shares[0][0])
        close_all(shares[:2])
        assert connects(where)
        close_all(shares)
        assert not connects(where)


def test_several_addresses(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    with listening(ANY_PORT, UnixPath(path), ANY_PORT, workers=2) as shares:
        assert addresses(shares[0]) == addresses(shares[1])
        first, unix, third = addresses(shares[0])
        assert first != third
        assert unix == f"unix:{path}"


def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening(Address("::1", 0)) as ((sock,),):
        assert addresses([sock]) == [f"[::1]:{sock.getsockname()[1]}"]


@pytest.mark.parametrize("workers", [1, 2])
def test_taken_port(workers: int) -> None:
    """Also by another rproxy, whose sockets would let ours in beside them."""
    with listening(ANY_PORT, workers=2) as shares:
        where = place(shares[0][0])
        with (
            pytest.raises(UsageError, match=f"^cannot listen on {where}: another process has it$"),
            listening(where, workers=workers),
        ):
            pass


def test_port_of_a_connection_that_lingers_is_no_taken_port() -> None:
    """A restart does not wait for the system to forget the old clients."""
    with listening(ANY_PORT) as ((sock,),):
        where = place(sock)
        with socket.create_connection(where):
            sock.accept()[0].close()  # the side that closes first lingers
    with listening(where):
        assert connects(where)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Address("192.0.2.1", 6379), "Cannot assign requested address"),
        (
            Address("host..name", 6379),
            "^cannot listen on host..name:6379: no host has such a name$",
        ),
        (Address("x" * 64, 6379), ":6379: no host has such a name$"),
    ],
)
def test_address_that_is_not_ours(where: Address, text: str) -> None:
    with pytest.raises(UsageError, match=text), listening(where):
        pass


def test_failure_leaves_no_socket_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with listening(ANY_PORT) as ((sock,),), pytest.raises(UsageError):
        open_listeners(Config(listen=(UnixPath(str(tmp_path / "a")), place(sock)), workers=2))
    assert len(os.listdir("/proc/self/fd")) == before


# -- Unix sockets --


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


@pytest.mark.parametrize("permissions", ["700", "770", "0666"])
def test_permissions(tmp_path: Path, permissions: str) -> None:
    path = tmp_path / "r.sock"
    with listening(UnixPath(str(path)), unix_permissions=permissions):
        assert mode(path) == permissions.lstrip("0")
        assert connects(str(path))


def test_workers_share_one_unix_socket(tmp_path: Path) -> None:
    """Linux has no SO_REUSEPORT for them: a client that waits is any worker's."""
    path = str(tmp_path / "r.sock")
    with listening(UnixPath(path), workers=2) as ((first,), (second,)):
        assert first.fileno() != second.fileno()
        first.close()
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(path)
            second.accept()[0].close()


def test_file_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with listening(UnixPath(str(path))):
        pass
    assert path.exists()
    assert not connects(str(path))
    with listening(UnixPath(str(path))):
        assert connects(str(path))


def test_socket_in_use_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with listening(UnixPath(str(path))):
        with (
            pytest.raises(UsageError, match="another process has it"),
            listening(UnixPath(str(path))),
        ):
            pass
        assert connects(str(path))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_other_files_are_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    with pytest.raises(UsageError, match="another process has it"), listening(UnixPath(str(path))):
        pass
    assert path.exists()
    if kind == "file":
        assert path.read_text() == "precious"


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "no" / "r.sock"
    text = f"^cannot listen on unix:{path}: No such file or directory$"
    with pytest.raises(UsageError, match=text), listening(UnixPath(str(path))):
        pass


def test_files_are_removed_in_the_end(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    config = Config(listen=(UnixPath(str(one)), ANY_PORT, UnixPath(str(two))))
    close_all(open_listeners(config))
    two.unlink()
    remove_files(config)
    assert list(tmp_path.iterdir()) == []
