"""A COMMAND reply -> rows, the one shape in which a command is written down.

Servers describe a command in a list that grew over the versions: 6 elements, 7 with ACL
categories (6.0), 10 with tips, key specifications and subcommands (7.0). RESP2 writes the parts of
a key specification as flat lists of names and values, RESP3 as maps and sets. All of them become
the same Row here; subcommands have rows of their own, named `object|encoding`.

Rules. A server's words never stop us: an entry that makes no sense is left out, the others are
taken. Key specifications are kept only where the simple key range does not say it all, whatever the
server's flag `movablekeys` says of that: this makes the checked-in table short enough to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

KeySpec = tuple[tuple[str | int, ...], tuple[str | int, ...], str]
"""Where the search begins, how keys are found from there, flags.

Begin: ("index", i), ("keyword", WORD, start_from) or ("unknown",).
Find: ("range", last, step, limit), ("keynum", count_at, first_key, step) or ("unknown",).
"""

MALFORMED = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError)
"""What reading an entry raises where it is not what the protocol says."""

_NAME_LIMIT = 128
"""Characters of a command's name: more is nonsense."""


class Row(NamedTuple):
    """One command or subcommand, as the server tells it."""

    name: str
    """Lower case; `container|sub` for a subcommand."""
    arity: int
    """Arguments with the name; negative: at least so many."""
    flags: str
    """The server's flags, separated by spaces."""
    categories: str
    """ACL categories without their @, separated by spaces."""
    keys: tuple[int, int, int]
    """Simple key range: first index (0: no keys), last index (negative: from the end), distance."""
    key_specs: tuple[KeySpec, ...]
    """Key specifications, where the simple range does not say it all."""
    request_policy: str
    """The request_policy tip, or empty."""
    response_policy: str
    """The response_policy tip, or empty."""


_TIPS_AT, _SPECS_AT, _SUBCOMMANDS_AT, _FULL = 7, 8, 9, 10
"""Indexes in an entry, and the length of an entry of 7.0 and newer."""


class Described(NamedTuple):
    """What one entry of a COMMAND reply says."""

    row: Row
    subcommands: list[Row]
    is_full: bool
    """Whether the server is of 7.0 or newer, whose entries tell everything."""


def read(reply: object) -> Iterator[Described]:
    """The commands of a COMMAND reply as hiredis parses it, in its order.

    Anything malformed is left out; a reply that is no list holds nothing.
    """
    for entry in reply if isinstance(reply, list) else ():
        try:
            row, is_full = _row(entry), len(entry) >= _FULL
            subs = [sub.row for sub in read(entry[_SUBCOMMANDS_AT])] if is_full else []
        except MALFORMED:
            continue
        yield Described(row, [sub for sub in subs if _belongs(sub, row)], is_full)


def _belongs(sub: Row, container: Row) -> bool:
    return sub.name.partition("|")[0] == container.name and sub.name.count("|") == 1


def _row(entry: list[Any]) -> Row:
    if not isinstance(entry, list):
        raise TypeError("an entry is a list")
    parts = entry + [[]] * (_FULL - len(entry))
    tips = dict(_text(tip).partition(":")[::2] for tip in parts[_TIPS_AT])
    flags = _words(parts[2])
    first, last, step = (int(number) for number in parts[3:6])
    return Row(
        name=_name(parts[0]),
        arity=int(parts[1]),
        flags=flags,
        categories=_words(parts[6]).replace("@", ""),
        keys=(first, last, step),
        key_specs=_key_specs(parts[_SPECS_AT], flags, (first, last, step)),
        request_policy=tips.get("request_policy", ""),
        response_policy=tips.get("response_policy", ""),
    )


def _key_specs(
    specs: Iterable[Any], command_flags: str, keys: tuple[int, int, int]
) -> tuple[KeySpec, ...]:
    found = tuple(_key_spec(_pairs(spec)) for spec in specs)
    is_needed = "movablekeys" in command_flags.split() or not is_plain(keys, found)
    return found if is_needed or any("not_key" in flags.split() for _, _, flags in found) else ()


def is_plain(keys: tuple[int, int, int], specs: Sequence[KeySpec]) -> bool:
    """Whether the simple key range says all that the specifications say: they follow one another
    from its first key to its last one.
    """
    at, last, step = keys
    reached = last
    for begin, find, flags in specs:
        if begin != ("index", at) or "incomplete" in flags.split():
            return False
        match find:
            case ("range", int(end), int(distance), 0 | 1) if distance == step:
                reached = end if end < 0 else at + end
                at = reached + step
            case _:
                return False
    return reached == last


def is_complete(spec: KeySpec) -> bool:
    """Whether the specification says where its keys are, all of them."""
    begin, find, flags = spec
    told = begin[0] in ("index", "keyword") and find[0] in ("range", "keynum")
    return told and "incomplete" not in flags.split()


def _key_spec(spec: dict[str, Any]) -> KeySpec:
    return _step(spec["begin_search"]), _step(spec["find_keys"]), _words(spec["flags"])


def _step(step: Any) -> tuple[str | int, ...]:
    """Half of a key specification: its type, then its parameters in the server's order."""
    fields = _pairs(step)
    values = _pairs(fields["spec"]).values()
    return _text(fields["type"]), *(v if isinstance(v, int) else _text(v) for v in values)


def _pairs(value: Any) -> dict[str, Any]:
    """A RESP3 map, or what RESP2 makes of it."""
    if not isinstance(value, dict):
        value = dict(zip(value[::2], value[1::2], strict=True))
    return {_text(name): part for name, part in value.items()}


def _words(value: Iterable[Any]) -> str:
    """A list or a set of words; sets get an order of their own."""
    words = [_text(word) for word in value]
    return " ".join(sorted(words) if isinstance(value, set | frozenset) else words)


def _name(value: Any) -> str:
    name = _text(value).lower()
    if not name or len(name) > _NAME_LIMIT or not name.isprintable() or not name.isascii():
        raise ValueError("no name of a command")
    return name


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise TypeError("a word is a string")
    return value.decode()
