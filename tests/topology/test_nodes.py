"""CLUSTER NODES as a node's view of itself, in the forms of several versions."""

from __future__ import annotations

import pytest

from rproxy.config import Address
from rproxy.errors import ProtocolBroken
from rproxy.topology.nodes import parse_own_view

TEXT = b"""\
aaa 127.0.0.1:7000@17000 myself,master - 0 0 5 connected 10-19 3 [93->-bbb] [77-<-ccc] 20-29
bbb 127.0.0.1:7001@17001,node-b master - 0 1 6 connected 100-200
ccc ::1:7002@17002,,shard-id=ab slave aaa 0 1 5 connected
ddd :0@0 master,noaddr - 0 1 7 disconnected
vars currentEpoch 7 lastVoteEpoch 0
"""


def test_own_view() -> None:
    view = parse_own_view(TEXT)
    assert (view.id, view.epoch) == ("aaa", 5)
    assert view.ranges == ((3, 3), (10, 19), (20, 29))
    assert view.leaving == {93: "bbb"}
    assert view.addresses == {
        "aaa": Address("127.0.0.1", 7000),
        "bbb": Address("node-b", 7001),
        "ccc": Address("::1", 7002),
    }


@pytest.mark.parametrize(
    ("slot", "last"), [(3, 3), (10, 29), (25, 29), (4, None), (30, None), (0, None)]
)
def test_last_of_run(slot: int, last: int | None) -> None:
    assert parse_own_view(TEXT).last_of_run(slot) == last


@pytest.mark.parametrize("text", [b"", b"OK", TEXT.replace(b"myself,", b""), b"\xff" * 9])
def test_text_without_a_sender(text: bytes) -> None:
    with pytest.raises(ProtocolBroken):
        parse_own_view(text)
