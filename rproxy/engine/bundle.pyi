from collections.abc import Callable
from typing import final

from rproxy.wire.frames import Owner, Request

@final
class Bundle(Owner): ...

def several(frames: list[bytes], slot: int, callback: Callable[[bytes], object]) -> Request: ...
