"""The texts that rproxy writes, to the byte, and the table that picks exception classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy import errors


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_nobody_can_write_a_second_line_or_an_endless_one(name: bytes, subcommand: bytes) -> None:
    text = errors.unknown_subcommand_reply(name, subcommand)
    assert text.startswith(b"-ERR unknown subcommand '")
    assert text.endswith(b"\r\n")
    assert b"\r" not in text[:-2]
    assert b"\n" not in text[:-2]
    assert len(text) < 500


def test_a_reply_is_cut() -> None:
    assert errors.reply("x" * 5000) == b"-" + b"x" * errors.MAX_REPLY + b"\r\n"


def test_a_text_may_hold_bytes_that_are_no_text() -> None:
    assert errors.reply("\udcff") == b"-\xff\r\n"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            errors.CROSS_SLOT,
            b"-CROSSSLOT Keys in request don't hash to the same slot\r\n",
        ),
        (errors.AUTH_NEEDED, b"-NOAUTH Authentication required.\r\n"),
        (errors.MAX_CLIENTS, b"-ERR max number of clients reached\r\n"),
        (
            errors.MAY_HAVE_RUN,
            b"-ERR upstream connection lost; the command may have been executed\r\n",
        ),
        (
            errors.uncovered_reply(),
            b"-CLUSTERDOWN Hash slot not served; the command was not executed\r\n",
        ),
        (
            errors.unreachable_reply("10.0.0.1:6379"),
            b"-CLUSTERDOWN 10.0.0.1:6379 cannot be reached; the command was not executed\r\n",
        ),
        (
            errors.wrong_arity_reply("config|get"),
            b"-ERR wrong number of arguments for 'config|get' command\r\n",
        ),
        (
            errors.unknown_subcommand_reply(b"client", b"fo\no"),
            b"-ERR unknown subcommand 'fo o'. Try CLIENT HELP.\r\n",
        ),
        (
            errors.not_served_reply("blpop", "blocking commands wait on a link of their own"),
            b"-ERR rproxy does not serve 'blpop' yet: "
            b"blocking commands wait on a link of their own\r\n",
        ),
    ],
)
def test_texts(written: bytes, expected: bytes) -> None:
    assert written == expected


@pytest.mark.parametrize(
    "text",
    [
        errors.MAY_HAVE_RUN,
        errors.late_reply(True),
    ],
)
def test_what_may_have_run_says_so(text: bytes) -> None:
    assert b"may have been executed" in text


@pytest.mark.parametrize(
    "text",
    [
        errors.uncovered_reply(),
        errors.unreachable_reply("n:1"),
        errors.overfull_reply("n:1"),
        errors.late_reply(False),
    ],
)
def test_what_did_not_run_says_so(text: bytes) -> None:
    assert b"was not executed" in text


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("WRONGTYPE Operation against a key", errors.WrongType, "WRONGTYPE"),
        ("WRONGPASS invalid", errors.AuthRefused, "WRONGPASS"),
        ("CLUSTERDOWN The cluster is down", errors.NotReady, "CLUSTERDOWN"),
        ("ERR anything", errors.ReplyError, "ERR"),
        ("", errors.ReplyError, ""),
    ],
)
def test_the_first_word_picks_the_class(
    text: str, kind: type[errors.ReplyError], code: str
) -> None:
    error = errors.ReplyError.of(text)
    assert (type(error), error.code, str(error)) == (kind, code, text)
