"""conf/rproxy.toml and the code say the same, option by option, in both directions."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from rproxy.config import Config, Row, check, load, rows

FILE = Path(__file__).parents[1] / "conf" / "rproxy.toml"
ROWS = {row.name: row for row in rows()}


class Shown(NamedTuple):
    """An option as the file shows it."""

    comment: str
    value: str


def shown() -> dict[str, Shown]:
    """Full name -> what the file shows, read line by line because TOML forgets comments."""
    found: dict[str, Shown] = {}
    table = ""
    comment: list[str] = []
    for line in FILE.read_text().splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
            continue
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line:
            name, _, value = line.partition(" = ")
            assert table + name not in found, f"{name} is shown twice"
            found[table + name] = Shown(" ".join(comment), value)
        comment = []
    return found


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full name -> value of everything in a TOML tree."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:  # an empty one is an option's value
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


SHOWN = shown()


def test_the_file_shows_every_option_and_no_other_in_the_order_of_the_code() -> None:
    assert list(SHOWN) == list(ROWS)


def test_what_is_shown_is_what_toml_reads() -> None:
    assert dict(flat(tomllib.loads(FILE.read_text()))).keys() == SHOWN.keys()


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_meaning_and_default_are_the_code_s(row: Row) -> None:
    meaning = row.option.meaning + ("" if row.option.live else " At start.")
    assert SHOWN[row.name] == Shown(meaning, row.default_text)


def test_the_file_read_is_the_default_configuration() -> None:
    # Only the seeds have no default that could serve.
    assert check(FILE, {}) == [
        'line 13: seeds: name at least one node, such as seeds = ["10.0.0.1:6379"]'
    ]
    config = load(FILE, {"seeds": ["127.0.0.1:1"]}, {})
    assert msgspec.structs.replace(config, seeds=()) == Config()


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_meaning_is_a_sentence_and_no_password_has_a_default(row: Row) -> None:
    assert row.option.meaning[0].isupper()
    assert row.option.meaning.endswith(".")
    assert not row.name.endswith("password") or not row.default
