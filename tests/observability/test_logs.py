"""What operators read: one line an event, bounded in number, without secrets."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from rproxy.observability.logs import LogProbe, RateLimited, set_up


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    logger = logging.getLogger("rproxy")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def limited(clock: Clock) -> tuple[RateLimited, list[str]]:
    lines: list[str] = []
    return RateLimited(lambda level, text: lines.append(text), clock, 3, 10.0), lines


def test_a_line_has_time_level_worker_and_text(stream: io.StringIO) -> None:
    set_up("info", 3, stream).warning("something %s", "happened")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning w3 something happened\n",
        stream.getvalue(),
    )


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    set_up("warning", 0, stream).info("x")
    assert stream.getvalue() == ""


def test_setting_up_again_replaces(stream: io.StringIO) -> None:
    set_up("info", 0, stream)
    set_up("info", 1, stream).info("once")
    assert stream.getvalue().count("once") == 1


def test_nobody_can_forge_a_line(stream: io.StringIO) -> None:
    logger = set_up("info", 0, stream)
    LogProbe(logger, Clock()).client_broke_protocol("1.2.3.4:5", "bad\r\nfake line\x1b[2J\u2028")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\u2028" not in stream.getvalue()


def test_a_traceback_is_one_line(stream: io.StringIO) -> None:
    logger = set_up("info", 0, stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: broken" in stream.getvalue()


def test_a_flood_is_counted() -> None:
    clock = Clock()
    limiter, lines = limited(clock)
    for number in range(315):
        limiter.line("drops", logging.INFO, f"drop {number}")
    assert lines == ["drop 0", "drop 1", "drop 2"]
    clock.now += 10.0
    limiter.line("drops", logging.INFO, "drop 315")
    assert lines[3:] == ["… and 312 more: drops", "drop 315"]


def test_the_count_comes_without_a_further_event() -> None:
    clock = Clock()
    limiter, lines = limited(clock)
    for _ in range(4):
        limiter.line("drops", logging.INFO, "drop")
    clock.now += 9.9
    limiter.flush()
    assert len(lines) == 3
    clock.now += 0.1
    limiter.flush()
    limiter.flush()
    assert lines[3:] == ["… and 1 more: drops"]


def test_kinds_do_not_disturb_each_other() -> None:
    limiter, lines = limited(Clock())
    for _ in range(9):
        limiter.line("one", logging.INFO, "one")
    limiter.line("two", logging.INFO, "two")
    assert lines == ["one", "one", "one", "two"]


def test_closing_tells_the_rest() -> None:
    limiter, lines = limited(Clock())
    for _ in range(5):
        limiter.line("one", logging.INFO, "one")
    limiter.close()
    limiter.close()
    assert lines[3:] == ["… and 2 more: one"]


def test_events_of_an_operator_s_day(stream: io.StringIO) -> None:
    probe = LogProbe(set_up("info", 0, stream), Clock())
    probe.listening("0.0.0.0:6380", True)
    probe.no_seed_answers(["a:1", "b:2"], 3)
    probe.slotmap_replaced(3, 16384, 7, 16384)
    probe.link_down("a:1", 2, "Connection refused")
    probe.slotmap_replaced(2, 10000, 8, 6384)
    probe.stopped(0)
    told = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert told == [
        "info w0 listening on 0.0.0.0:6380",
        "warning w0 0.0.0.0:6380 is open: whoever reaches it needs no password",
        "warning w0 no seed answers, tried 3 times, trying on: a:1, b:2",
        "info w0 slot map of epoch 7: 3 masters, 16384 of 16384 slots served, 16384 changed hands",
        "warning w0 link to a:1 (RESP2) is down: Connection refused",
        "warning w0 slot map of epoch 8: 2 masters, 10000 of 16384 slots served, "
        "6384 changed hands",
        "info w0 stopped; 0 clients had not finished",
    ]


def test_one_dead_node_does_not_hide_another(stream: io.StringIO) -> None:
    probe = LogProbe(set_up("info", 0, stream), Clock())
    for _ in range(100):
        probe.link_down("a:1", 2, "refused")
    probe.link_down("b:2", 2, "refused")
    assert stream.getvalue().count("a:1") == 5
    assert stream.getvalue().count("b:2") == 1
