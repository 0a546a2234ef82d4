from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Self, final

from rproxy.routing.rows import KeySpec

class CommandFlag(IntEnum):
    WRITE = 1
    READONLY = 2
    BLOCKING = 4
    KEYED = 8
    MULTI_SHARD = 16
    STRAIGHT = 32
    CONTAINER = 64
    CHANNEL = 128
    MULTI = 256
    EXEC = 512

class KeyRule(IntEnum):
    RANGE = 0
    PAIRS = 1
    SPECS = 2
    SORT = 3
    GEORADIUS = 4
    XREAD = 5
    MIGRATE = 6
    HIDDEN = 7

@final
class CommandSpec:
    @property
    def name(self) -> str: ...
    @property
    def arity(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def rule(self) -> int: ...
    @property
    def key_specs(self) -> tuple[KeySpec, ...]: ...
    @property
    def server_flags(self) -> frozenset[str]: ...
    @property
    def acl_categories(self) -> frozenset[str]: ...
    @property
    def request_policy(self) -> str: ...
    @property
    def response_policy(self) -> str: ...
    @property
    def subcommands(self) -> dict[bytes, CommandSpec]: ...
    @property
    def is_keyed(self) -> bool: ...
    def __new__(
        cls,
        name: str,
        arity: int,
        *,
        server_flags: Iterable[str] = (),
        acl_categories: Iterable[str] = (),
        first: int = 0,
        last: int = 0,
        step: int = 1,
        key_specs: tuple[KeySpec, ...] = (),
        rule: int = 0,
        request_policy: str = "",
        response_policy: str = "",
        subcommands: Iterable[CommandSpec] = (),
    ) -> Self: ...
    def takes(self, argc: int) -> bool: ...
    def located(self, key_specs: tuple[KeySpec, ...]) -> CommandSpec: ...
    def renewed(self, arity: int, subcommands: Iterable[CommandSpec]) -> CommandSpec: ...

@final
class CommandTable:
    def __new__(cls, specs: Iterable[CommandSpec]) -> Self: ...
    def lookup(self, name: bytes, sub: bytes | None = None) -> CommandSpec | None: ...
    def __iter__(self) -> Iterator[CommandSpec]: ...
    def __len__(self) -> int: ...
