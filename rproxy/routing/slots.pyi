from typing import Final, Self, final

from rproxy.routing.specs import CommandSpec, CommandTable

NO_KEYS: Final = -1
CROSS_SLOT: Final = -2
BAD_KEYS: Final = -3
RANGES_LIMIT: Final = 8

@final
class Arguments:
    def __new__(cls, argv: list[bytes]) -> Self: ...

def slot_of(key: bytes) -> int: ...
def request_slot(table: CommandTable, argv: list[bytes]) -> int: ...
def request_keys(table: CommandTable, argv: list[bytes]) -> list[int]: ...
def keys_of(spec: CommandSpec, argv: list[bytes]) -> list[int]: ...
