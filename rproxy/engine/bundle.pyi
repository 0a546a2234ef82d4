from collections.abc import Callable
from typing import final

from rproxy.wire.frames import Owner, Request

@final
class Bundle(Owner): ...

@final
class Portion(Owner): ...

def several(
    frames: list[bytes], slot: int, whole: Request, callback: Callable[[bytes], object]
) -> Request: ...
def gather(whole: Request, size: int) -> None: ...
