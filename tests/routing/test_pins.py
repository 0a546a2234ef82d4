"""Pins: keys of requests get their tag, and only keys; replies lose it wherever keys are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.engine.replies import encode
from rproxy.routing.commands import built_in
from rproxy.routing.globs import matches
from rproxy.routing.pins import SHAPES, Pins, escaped, quoted
from rproxy.routing.slots import request_keys
from rproxy.routing.specs import CommandSpec
from rproxy.wire.frames import FrameReader, Scratch, pack

TABLE = built_in()
PINS = Pins([(b"arq:", b"arq:"), (b"arq:job:", b"j"), (b"q", b"{q"), (b"q2", b"{q")])
EVERY_NAME = [
    [word.encode() for word in name.split("|")]
    for spec in TABLE
    for name in (spec.name, *(sub.name for sub in spec.subcommands.values()))
]


def spec_of(*words: bytes) -> CommandSpec:
    found = TABLE.lookup(*words[:2])
    assert found is not None
    return found


def sent(*words: bytes) -> list[bytes]:
    """The arguments that servers get."""
    reader = FrameReader(Scratch())
    reader.feed(PINS.request(spec_of(*words), pack(list(words))))
    found = reader.request()
    assert isinstance(found, list)
    assert not isinstance(reader.request(), list)
    return found


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (b"arq:", b"{arq:}arq:"),
        (b"arq:x", b"{arq:}arq:x"),
        (b"arq:{x}y", b"{arq:}arq:{x}y"),
        (b"arq:job:1", b"{j}arq:job:1"),
        (b"q", b"{{q}q"),
        (b"q22", b"{{q}q22"),
        (b"arq", b"arq"),
        (b"", b""),
        (b"{arq:}arq:x", b"{arq:}arq:x"),
        (b"xarq:", b"xarq:"),
    ],
)
def test_names(key: bytes, name: bytes) -> None:
    assert PINS.to_server(key) == name
    assert PINS.to_client(name) == (key if not key.startswith(b"{") else b"arq:x")


def test_what_cannot_be_pinned() -> None:
    for prefix, tag in ((b"p", b""), (b"p", b"a}b")):
        with pytest.raises(ValueError, match="cannot pin"):
            Pins([(prefix, tag)])


WORDS = st.sampled_from(
    b"arq:1 arq:job:2 q3 other {arq:}arq:1 0 1 2 3 STORE STREAMS KEYS GROUP LIMIT COUNT".split()
) | st.sampled_from([b"", b"arq:" + b"x" * 200])


@given(st.sampled_from(EVERY_NAME), st.lists(WORDS, max_size=12))
def test_keys_and_nothing_but_keys_are_renamed(name: list[bytes], rest: list[bytes]) -> None:
    """Over the key positions of every command."""
    words = [*name, *rest]
    keys = set(request_keys(TABLE, words))
    wanted = [PINS.to_server(word) if at in keys else word for at, word in enumerate(words)]
    assert sent(*words) == wanted


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=6), st.integers(0, 6))
def test_any_bytes(rest: list[bytes], times: int) -> None:
    words = [b"MGET", *(b"arq:" * times + word for word in rest)]
    assert sent(*words) == [b"MGET", *map(PINS.to_server, words[1:])]


def test_channels_are_no_keys() -> None:
    assert sent(b"SPUBLISH", b"arq:c", b"arq:m") == [b"SPUBLISH", b"arq:c", b"arq:m"]


def test_a_huge_request_leaves_no_huge_memory_and_later_ones_are_right() -> None:
    keys = [b"arq:%d" % number for number in range(100_000)]
    assert sent(b"MGET", *keys)[-1] == b"{arq:}arq:99999"
    assert sent(b"GET", b"arq:1") == [b"GET", b"{arq:}arq:1"]


# -- replies --

KEY, NAME = b"arq:1", b"{arq:}arq:1"


def raw(command: str, reply: bytes) -> bytes:
    """What the client gets of a reply."""
    return PINS.reply_to(spec_of(*command.encode().split(b"|")), reply)


def shown(command: str, value: Any, protocol: int = 2) -> bytes:
    return raw(command, encode(value, protocol))


@pytest.mark.parametrize(
    ("command", "reply", "expected"),
    [
        ("blpop", [NAME, NAME], [KEY, NAME]),
        ("bzpopmin", [NAME, NAME, 1.5], [KEY, NAME, 1.5]),
        ("lmpop", [NAME, [NAME, b"x"]], [KEY, [NAME, b"x"]]),
        ("bzmpop", [NAME, [[NAME, 2.0]]], [KEY, [[NAME, 2.0]]]),
        ("xread", [[NAME, [[b"1-1", [NAME, NAME]]]]], [[KEY, [[b"1-1", [NAME, NAME]]]]]),
        ("cluster|getkeysinslot", [NAME, b"x", NAME], [KEY, b"x", KEY]),
        ("eval", [NAME, [b"x", NAME], 7, NAME], [KEY, [b"x", KEY], 7, KEY]),
        ("eval", NAME, KEY),
        ("get", NAME, NAME),
        ("lrange", [NAME, NAME], [NAME, NAME]),
        ("mget", [NAME, None], [NAME, None]),
    ],
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_reply(command: str, reply: Any, expected: Any, protocol: int) -> None:
    assert shown(command, reply, protocol) == encode(expected, protocol)


def test_maps_of_streams() -> None:
    entries = [[b"1-1", [NAME, NAME]]]
    assert shown("xread", {NAME: entries, b"x": entries}, 3) == encode(
        {KEY: entries, b"x": entries}, 3
    )


@pytest.mark.parametrize("command", [name for name in SHAPES if "|" not in name])
@pytest.mark.parametrize(
    "reply", [b"*-1\r\n", b"$-1\r\n", b"_\r\n", b"*0\r\n", b":1\r\n", b"%0\r\n"]
)
def test_replies_without_keys_stay(command: str, reply: bytes) -> None:
    assert raw(command, reply) == reply


def test_errors_quote_clients_names() -> None:
    error = b"-NOGROUP No such key '%b' or consumer group 'g' for {arq:}\r\n"
    assert raw("xreadgroup", error % NAME) == error % KEY
    assert raw("get", error % NAME) == error % KEY


def test_exec_shows_each_reply_by_its_command() -> None:
    queued: list[CommandSpec | None] = [
        spec_of(word) for word in (b"GET", b"BLPOP", b"EVAL", b"GET")
    ]
    queued.append(None)
    elements = [encode(NAME), encode([NAME, NAME]), encode([NAME]), b"-ERR '%b'\r\n" % NAME]
    elements.append(encode([NAME]))
    reply = b"*5\r\n" + b"".join(elements)
    elements[1:4] = [encode([KEY, NAME]), encode([KEY]), b"-ERR '%b'\r\n" % KEY]
    wanted = b"*5\r\n" + b"".join(elements)
    spec = spec_of(b"EXEC")
    assert PINS.reply_to(spec, reply, queued) == wanted
    before = b"+OK\r\n" + b"+QUEUED\r\n" * 5
    assert PINS.reply_to(spec, before + reply, queued) == before + wanted
    assert PINS.reply_to(spec, reply, queued[1:]) == reply, "whatever is not understood stays"


REPLIES = st.recursive(
    st.sampled_from([NAME, KEY, b"{arq:}", b"", None, 5, b"{j}arq:job:1", b"{{q}q"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=3), inner),
)


def bare(value: Any) -> Any:
    """A reply in which every string has lost its tag."""
    if isinstance(value, bytes):
        return PINS.to_client(value)
    if isinstance(value, list):
        return [bare(item) for item in value]
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    return value


@given(REPLIES, st.sampled_from([2, 3]))
def test_no_tag_is_left_in_a_scripts_reply(value: Any, protocol: int) -> None:
    assert shown("eval", value, protocol) == encode(bare(value), protocol)


@given(st.sampled_from(sorted(SHAPES)), REPLIES, st.sampled_from([2, 3]))
def test_any_shape_of_reply_stays_a_whole_frame(command: str, value: Any, protocol: int) -> None:
    reader = FrameReader(Scratch())
    reader.feed(shown(command, value, protocol))
    assert isinstance(reader.reply(), bytes)
    assert not isinstance(reader.reply(), bytes)


# -- channels, lines, patterns --


def test_messages_of_events() -> None:
    space, event = b"__keyspace@0__:", b"__keyevent@0__:set"
    for words, expected in (
        ([b"message", space + NAME, b"set"], [b"message", space + KEY, b"set"]),
        ([b"message", event, NAME], [b"message", event, KEY]),
        ([b"pmessage", b"*", event, NAME], [b"pmessage", b"*", event, KEY]),
        (
            [b"pmessage", space + NAME, space + NAME, NAME],
            [b"pmessage", space + KEY, space + KEY, NAME],
        ),
        ([b"pmessage", b"*", NAME, NAME], [b"pmessage", b"*", NAME, NAME]),
        ([b"message", b"__keyspace", NAME], [b"message", b"__keyspace", NAME]),
    ):
        assert PINS.message(encode(words)) == encode(expected)
    assert PINS.channel_to_server(space + KEY) == space + NAME
    assert PINS.channel_to_client(space + NAME) == space + KEY
    assert PINS.channel_to_server(KEY) == KEY
    assert PINS.channel_to_client(NAME) == NAME


def test_lines_of_monitor() -> None:
    pins = Pins([(b'a"\x00', b"t\n")])
    line = b'+1.2 [0 x:1] "SET" "%b" "x"\r\n'
    assert pins.line(line % b'{t\\n}a\\"\\x00b') == line % b'a\\"\\x00b'
    assert pins.line(line % b"other") == line % b"other"


@given(st.binary(max_size=20))
def test_escaped_and_quoted(text: bytes) -> None:
    assert matches(escaped(text), text)
    assert text == b"" or not matches(escaped(text), text[:-1])
    assert b'"' not in quoted(text).replace(b'\\"', b"")


KEYS_OF_ALL = st.text("arq:jo{}b12*", max_size=9).map(str.encode) | st.sampled_from(
    [b"arq:1", b"arq:job:1", b"q1", b"{arq:}"]
)
PATTERN = st.text("arq:jo{}*?[]^-\\", max_size=8).map(str.encode)


@given(st.lists(KEYS_OF_ALL, max_size=20), PATTERN)
def test_patterns_find_what_clients_mean(keys: list[bytes], pattern: bytes) -> None:
    names = {PINS.to_server(key) for key in keys}
    asked, again = PINS.pattern(pattern)
    found = PINS.found([n for n in names if matches(asked, n)], pattern if again else None)
    assert sorted(found) == sorted(
        key for key in map(PINS.to_client, names) if matches(pattern, key)
    )


def test_the_empty_prefix_stands_for_all_other_keys() -> None:
    pins = Pins([(b"", b"all"), (b"arq:", b"arq")])
    for key, name in ((b"", b"{all}"), (b"x", b"{all}x"), (b"arq:", b"{arq}arq:")):
        assert pins.to_server(key) == name
        assert pins.to_client(name) == key
    assert pins.pattern(b"*") == (b"*", False)
    assert pins.pattern(b"x*") == (b"{all}x*", False)
    assert pins.channel_to_server(b"__keyspace@0__:*") == b"__keyspace@0__:{all}*"


def test_a_pattern_of_one_prefix_is_the_servers_work() -> None:
    assert Pins([(b"a[", b"t*")]).pattern(b"a\\[x*") == (b"{t\\*}a\\[x*", False)
    assert PINS.pattern(b"q*") == (b"{{q}q*", False)
    assert PINS.pattern(b"x*") == (b"x*", False)
    assert PINS.pattern(b"arq:*") == (b"*", True), "two tags"
    assert PINS.pattern(b"*") == (b"*", False)
