from typing import final

from rproxy.wire.frames import Owner

@final
class Bundle(Owner): ...
