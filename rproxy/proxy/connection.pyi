from typing import Any, final

from rproxy.engine.session import Session, Shared
from rproxy.transport.stream import Stream, Tick

@final
class ClientStream(Stream):
    def __init__(
        self, tick: Tick, shared: Shared, client: Any = None, locked: bool = False
    ) -> None: ...
    @property
    def session(self) -> Session: ...
