from collections.abc import Callable, Sequence
from typing import Final, final

from rproxy.upstream.pool import Pool
from rproxy.wire.frames import Owner, Request

TAIL_TOO_LONG: Final[bytes]

@final
class Fanout(Owner): ...

def spread(
    whole: Request, pools: Sequence[Pool], merge: Callable[[list[bytes]], bytes]
) -> None: ...
