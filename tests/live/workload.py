"""Clients that know what every reply has to be, for tests that disturb the cluster meanwhile.

Strategy. Each client is a thread with a connection and keys of its own, so it can foretell each
reply from what it has sent before. It sends pipelines that mix SET and GET of the same few keys,
INCR, and MGET, MSET, EXISTS and DEL over many slots. The threads run until the block ends; then
everything that went wrong is an assertion error.

Rules. `forgiven` matches the errors that a test allows. A key whose write was answered by one of
them is given up, because nobody can know its value from then on: the client goes on with a new
key; what is still read of the old one must be a value that was written to that very key.
"""

from __future__ import annotations

import random
import re
import threading
from types import TracebackType
from typing import Any, Self

import redis

from rproxy.routing.slots import slot_of
from tests.live.proxies import Proxy

KEYS, STEPS = 24, 24
"""Keys of one client, commands in one of its pipelines."""

Reply = Any
"""What redis-py makes of a reply: bytes, int, bool, None, list, or an exception as a value."""


class Workload:
    """`with Workload(proxy) as load:`; the block's end stops the clients and raises what failed."""

    def __init__(self, proxy: Proxy, clients: int = 4, forgiven: str | None = None) -> None:
        """Every other client speaks RESP3. `forgiven` is searched for in errors."""
        self._over = threading.Event()
        self.clients = [
            CheckingClient(f"load:{number}", proxy.client(2 + number % 2), forgiven, self._over)
            for number in range(clients)
        ]

    @property
    def done(self) -> int:
        """Replies checked so far."""
        return sum(client.done for client in self.clients)

    @property
    def failed(self) -> bool:
        """Whether something went wrong; the block's end tells what."""
        return any(client.trouble for client in self.clients)

    @property
    def slots(self) -> list[int]:
        """The slots of all keys of the start, in an order that is the same every time."""
        keys = [key for client in self.clients for key in client.values]
        return list(dict.fromkeys(slot_of(key.encode()) for key in keys))

    def __enter__(self) -> Self:
        for client in self.clients:
            client.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for client in self.clients:
            client.thread.join()
        if error is None:
            assert [client.trouble for client in self.clients if client.trouble] == []
            assert all(client.done for client in self.clients)


class CheckingClient:
    """One thread, one connection; `trouble` says what went wrong first."""

    def __init__(
        self, name: str, client: redis.Redis, forgiven: str | None, over: threading.Event
    ) -> None:
        self.name = name
        self.thread = threading.Thread(target=self._run, name=name)
        self.trouble = ""
        self.done = 0
        # What each key holds after all that was sent.
        self.values: dict[str, bytes | None] = {f"{name}:{n}": None for n in range(KEYS)}
        # The key that is counted up, and how far.
        self._counter, self._count = f"{name}:count", 0
        # Keys that were given up.
        self._lost: set[str] = set()
        self._client = client
        self._forgiven = re.compile(forgiven) if forgiven else None
        self._over = over
        self._dice = random.Random(name)
        self._written = 0
        self._kinds = (self._set_get, self._set_get, self._incr, self._mget, self._mset, self._del)

    def _run(self) -> None:
        try:
            with self._client:
                # Begin from nothing, whatever an earlier workload has left.
                self._client.delete(*self.values, self._counter)
                while not (self._over.is_set() or self.trouble):
                    self._round()
        except Exception as error:
            self.trouble = f"{self.name}: {error!r}"

    def _round(self) -> None:
        """One pipeline and its replies."""
        pipe = self._client.pipeline(transaction=False)
        expected: list[tuple[list[str], Reply]] = []
        while len(expected) < STEPS:
            self._dice.choice(self._kinds)(pipe, expected)
        replies = pipe.execute(raise_on_error=False)
        for (keys, right), reply in zip(expected, replies, strict=True):
            if not self._check(keys, right, reply):
                return
            self.done += 1

    def _check(self, keys: list[str], right: Reply, reply: Reply) -> bool:
        if isinstance(reply, Exception) and self._forgiven and self._forgiven.search(str(reply)):
            for key in keys:
                self._give_up(key)
        elif reply != right and not self._is_doubtful(keys, reply):
            self.trouble = f"{self.name}: {keys} should be {right!r}, is {reply!r}"
        return not self.trouble

    def _give_up(self, key: str) -> None:
        if key in self._lost:
            return
        self._lost.add(key)
        if key == self._counter:
            self._counter, self._count = f"{key}'", 0
        else:
            del self.values[key]
            self.values[f"{key}'"] = None

    def _is_doubtful(self, keys: list[str], reply: Reply) -> bool:
        """Whether the reply concerns a key that was given up, and holds no other key's value."""
        if self._lost.isdisjoint(keys) or isinstance(reply, Exception):
            return False
        values = reply if isinstance(reply, list) else [reply]
        return all(
            value is None or isinstance(value, int) or value.rpartition(b"=")[0].decode() == key
            for key, value in zip(keys, values, strict=False)
        )

    # -- commands: each appends to the pipeline, and (its keys, the right reply) to `expected` --

    def _new_value(self, key: str) -> bytes:
        self._written += 1
        return f"{key}={self._written}".encode()

    def _some(self, count: int) -> list[str]:
        return self._dice.sample(list(self.values), count)

    def _set_get(self, pipe: Any, expected: list[tuple[list[str], Reply]]) -> None:
        (key,) = self._some(1)
        for _ in range(2):
            self.values[key] = self._new_value(key)
            pipe.set(key, self.values[key])
            expected.append(([key], True))
        pipe.get(key)
        expected.append(([key], self.values[key]))

    def _incr(self, pipe: Any, expected: list[tuple[list[str], Reply]]) -> None:
        self._count += 1
        pipe.incr(self._counter)
        expected.append(([self._counter], self._count))

    def _mget(self, pipe: Any, expected: list[tuple[list[str], Reply]]) -> None:
        keys = self._some(5)
        pipe.mget(keys)
        expected.append((keys, [self.values[key] for key in keys]))

    def _mset(self, pipe: Any, expected: list[tuple[list[str], Reply]]) -> None:
        fresh = {key: self._new_value(key) for key in self._some(4)}
        self.values |= fresh
        pipe.mset(fresh)
        expected.append((list(fresh), True))

    def _del(self, pipe: Any, expected: list[tuple[list[str], Reply]]) -> None:
        keys = self._some(3)
        there = sum(self.values[key] is not None for key in keys)
        pipe.exists(*keys)
        pipe.delete(*keys)
        expected += [(keys, there), (keys, there)]
        self.values |= dict.fromkeys(keys)
