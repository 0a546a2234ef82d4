"""Verdicts by the catalogue of error replies, back-off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.upstream.recovery import PASS, Kind, Verdict, backoff, verdict


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"-MOVED 3999 127.0.0.1:6381\r\n", Verdict(Kind.MOVED, 3999, "127.0.0.1:6381")),
        (b"-MOVED 0 :6381\r\n", Verdict(Kind.MOVED, 0, ":6381")),
        (b"-MOVED 16383 ?:6381\r\n", Verdict(Kind.MOVED, 16383, "?:6381")),
        (b"-ASK 1 ::1:6381\r\n", Verdict(Kind.ASK, 1, "::1:6381")),
        (b"-ASK 1 node-1.example.com:6381", Verdict(Kind.ASK, 1, "node-1.example.com:6381")),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Verdict(Kind.TRYAGAIN)),
        (b"-CLUSTERDOWN Hash slot not served\r\n", Verdict(Kind.CLUSTERDOWN)),
        (b"-CLUSTERDOWN The cluster is down\r\n", Verdict(Kind.CLUSTERDOWN)),
        (b"-READONLY You can't write against a read only replica.\r\n", Verdict(Kind.READONLY)),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Verdict(Kind.LOADING)),
        (b"-MASTERDOWN Link with MASTER is down\r\n", Verdict(Kind.MASTERDOWN)),
        (b"-NOAUTH Authentication required.\r\n", Verdict(Kind.NOAUTH)),
        (b"-NOSCRIPT No matching script. Please use EVAL.\r\n", Verdict(Kind.NOSCRIPT)),
        (b"-WRONGPASS invalid username-password pair\r\n", Verdict(Kind.NOAUTH)),
    ],
)
def test_errors_that_prove_that_nothing_ran(reply: bytes, expected: Verdict) -> None:
    assert verdict(reply) == expected


@pytest.mark.parametrize(
    "word",
    [
        "CROSSSLOT",
        "NOPERM",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "BUSY",
        "WRONGTYPE",
        "EXECABORT",
        "NOGOODSLAVE",
        "BUSYGROUP",
        "NOGROUP",
        "UNKILLABLE",
        "NOTBUSY",
        "INPROG",
        "STALE",
        "UNBLOCKED",
        "ERR",
        "NOPROTO",
        "MOVEDX",
        "moved",
    ],
)
def test_everything_else_is_the_client_s(word: str) -> None:
    assert verdict(f"-{word} 1 127.0.0.1:6381\r\n".encode()).kind is Kind.PASS


@pytest.mark.parametrize(
    "reply",
    [
        b"-MOVED\r\n",
        b"-MOVED 1\r\n",
        b"-MOVED 16384 h:1\r\n",
        b"-MOVED -1 h:1\r\n",
        b"-MOVED +1 h:1\r\n",
        b"-MOVED x h:1\r\n",
        b"-MOVED \xb2 h:1\r\n",
        b"-MOVED 1 h\r\n",
        b"-MOVED 1 h:\r\n",
        b"-MOVED 1 h:0\r\n",
        b"-MOVED 1 h:65536\r\n",
        b"-MOVED 1 h:+1\r\n",
        b"-MOVED 1 h:1 more\r\n",
        b"-MOVED 1 \xff\xfe:1\r\n",
        b"-MOVED " + b"9" * 5000 + b" h:1\r\n",
        b"-ASK 1\r\n",
        b"-\r\n",
        b"",
    ],
)
def test_a_malformed_redirection_is_the_client_s(reply: bytes) -> None:
    assert verdict(reply) == PASS


@given(st.binary(max_size=80))
def test_no_reply_makes_it_fail(tail: bytes) -> None:
    for word in (b"-", b"-MOVED ", b"-ASK 5 ", b""):
        found = verdict(word + tail)
        assert (found.kind in (Kind.MOVED, Kind.ASK)) == (found.slot >= 0)
        assert found.slot < 16384


@pytest.mark.parametrize(
    ("attempt", "least", "most"),
    [(0, 0.01, 0.02), (1, 0.01, 0.02), (2, 0.02, 0.04), (5, 0.16, 0.32), (6, 0.25, 0.5)],
)
def test_backoff_doubles_up_to_the_cap(attempt: int, least: float, most: float) -> None:
    assert backoff(attempt, 0.02, 0.5, lambda: 0.0) == pytest.approx(least)
    assert backoff(attempt, 0.02, 0.5, lambda: 1.0) == pytest.approx(most)


@given(st.integers(min_value=0, max_value=10**9), st.floats(min_value=0, max_value=1))
def test_backoff_stays_in_bounds_for_ever(attempt: int, chance: float) -> None:
    assert 0.01 <= backoff(attempt, 0.02, 0.5, lambda: chance) <= 0.5
