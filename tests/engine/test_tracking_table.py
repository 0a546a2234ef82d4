"""The table of who has read what, against a plain dict; news that become too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rproxy.engine.tracking_table import ENTRY_SIZE, ITEM_SIZE, News, Tracker, TrackingTable
from tests.fakes import FakeProxy

KEYS = st.integers(0, 8)


def trackers(count: int) -> list[Tracker]:
    """Trackers of that many clients."""
    proxy = FakeProxy()
    return [Tracker(proxy.client().session) for _ in range(count)]


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS, st.integers(0, 2)),
        st.tuples(st.just("take"), KEYS, st.just(0)),
        st.tuples(st.just("slot"), KEYS, st.just(0)),
    ),
    max_size=60,
)


@given(acts=ACTS, limit=st.integers(1, 9))
def test_as_a_dict(acts: list[tuple[str, int, int]], limit: int) -> None:
    table, model = TrackingTable(limit, 1 << 20), dict[bytes, set[Tracker]]()
    readers = trackers(3)
    for act, number, who in acts:
        key, slot = b"%d" % number, number % 3
        if act == "add":
            table.add(key, slot, readers[who])
            model.setdefault(key, set()).add(readers[who])
        elif act == "take":
            assert set(table.take(key, slot)) == model.pop(key, set())
        else:
            taken = {found: set(who) for found, who in table.take_slot(slot)}
            mine = [found for found in model if int(found) % 3 == slot]
            assert taken == {found: model.pop(found) for found in mine}
        while (victim := table.overflow()) is not None:
            assert set(victim[1]) == model.pop(victim[0])
        items = sum(map(len, model.values()))
        assert (table.keys, table.items) == (len(model), items)
        assert len(model) <= limit
        bytes_used = sum(map(len, model)) + ENTRY_SIZE * len(model)
        assert table.size == bytes_used + ITEM_SIZE * (items - len(model))
    table.clear()
    assert repr(table) == "<TrackingTable 0 keys, 0 items, 0 bytes>"


def test_news() -> None:
    news = News()
    news.add([b"a"], 1000)
    news.add([b"b", b"c"], 1000)
    assert news.messages == [[b"a"], [b"b", b"c"]]
    news.add([b"x" * 1000], 1000)
    news.add([b"d"], 1000)
    assert news.messages == [None]
    news = News()
    news.add([b"a"], 1000)
    news.add(None, 1000)
    news.add(None, 1000)
    assert news.messages == [None]
