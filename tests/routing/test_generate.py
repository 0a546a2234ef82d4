"""The generated text: complete, in the order of the names, laid out as the formatter does."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rproxy.routing.generate import render
from rproxy.routing.rows import Row

SPEC = [
    b"flags", [b"RW"],
    b"begin_search", [b"type", b"keyword", b"spec", [b"keyword", b'A"\\', b"startfrom", 1]],
    b"find_keys", [b"type", b"range", b"spec", [b"lastkey", -1, b"keystep", 1, b"limit", 2]],
]  # fmt: skip
REPLY = [
    [b"zed", -2, [b"write", b"movablekeys"], 0, 0, 0, [b"@write"], [], [SPEC], []],
    [b"get", 2, [b"readonly"], 1, 1, 1, [b"@read"], [], [],
     [[b"get|sub", 2, [b"readonly"], 0, 0, 0, [b"@" + b"long" * 30], [], [], []]]],
    [b"del", -2, [b"write"], 1, -1, 1, [], [b"request_policy:multi_shard"], [], []],
]  # fmt: skip


def rows_of(text: str) -> list[Row]:
    names: dict[str, Any] = {}
    exec(text, names)
    return [Row(*row) for row in names["ROWS"]]


def test_render() -> None:
    rows = rows_of(render(REPLY))
    assert [row.name for row in rows] == ["del", "get", "get|sub", "zed"]
    assert rows[0] == Row("del", -2, "write", "", (1, -1, 1), (), "multi_shard", "")
    specs = ((("keyword", 'A"\\', 1), ("range", -1, 1, 2), "RW"),)
    assert rows[3] == Row("zed", -2, "write movablekeys", "write", (0, 0, 0), specs, "", "")


def test_the_formatter_changes_nothing() -> None:
    text = render(REPLY)
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "100", "-"]
    done = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True)
    # ruff picks the quotes that need fewer backslashes: no keyword of any server holds any
    assert done.stdout.replace("'A\"\\\\'", '"A\\"\\\\"') == text


@pytest.mark.parametrize("reply", [[], None, b"ERR", [[b"get"]]])
def test_no_commands(reply: object) -> None:
    with pytest.raises(ValueError, match="names no command"):
        render(reply)
