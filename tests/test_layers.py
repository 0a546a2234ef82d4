"""Compiled files obey the layers of pyproject.toml, as import-linter holds the others to them.

import-linter reads only .py files; here the import and cimport lines of .pyx and .pxd are read
instead. That is enough because each names one module, in full: `from rproxy.wire.frames cimport X`.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rproxy"
LAYERED, PURE, *_ = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
# Name of a layer -> its height; siblings of one line are equally high.
RANK = {
    name.strip(): -depth for depth, line in enumerate(LAYERED["layers"]) for name in line.split("|")
}
COMPILED = sorted(PACKAGE.rglob("*.p[yx][xd]"))
OURS = re.compile(
    r"^\s*(?:(?:from|cimport|import)\s+rproxy\.|from\s+rproxy\s+c?import\s+)(\w+)", re.MULTILINE
)
# What would hide an import from OURS.
HIDDEN = re.compile(
    r"^\s*from\s+\.|^\s*include\s|^\s*from\s+rproxy\s+c?import\s+(?:\(|.*,)", re.MULTILINE
)
IMPURE = re.compile(
    rf"^\s*(?:from|cimport|import)\s+({'|'.join(PURE['forbidden_modules'])})\b", re.MULTILINE
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].partition(".")[0]


def breaches(path: Path, text: str) -> list[str]:
    """The layers that a compiled file imports although they do not stand below its own."""
    mine = layer_of(path)
    return [
        theirs for theirs in OURS.findall(text) if theirs != mine and RANK[theirs] >= RANK[mine]
    ]


def test_there_are_compiled_files() -> None:
    assert COMPILED


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_compiled_file_imports_downward(path: Path) -> None:
    assert not breaches(path, path.read_text())


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_compiled_file_hides_no_import(path: Path) -> None:
    assert not HIDDEN.findall(path.read_text())


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_pure_compiled_file_has_no_io(path: Path) -> None:
    if any(name_of(path).startswith(pure) for pure in PURE["source_modules"]):
        assert not IMPURE.findall(path.read_text())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from rproxy.engine.session cimport Session", ["engine"]),
        ("    from rproxy.proxy.server import Server", ["proxy"]),
        ("cimport rproxy.upstream.link", ["upstream"]),
        ("from rproxy import engine", ["engine"]),
        ("from rproxy.wire.frames cimport Request", []),
        ("from rproxy.errors import RproxyError", []),
    ],
)
def test_an_upward_import_is_seen(line: str, expected: list[str]) -> None:
    assert breaches(PACKAGE / "routing" / "slots.pyx", f'"""Text."""\n{line}\n') == expected


@pytest.mark.parametrize(
    "line", ["from .frames cimport X", 'include "x.pxi"', "from rproxy import errors, proxy"]
)
def test_a_hidden_import_is_seen(line: str) -> None:
    assert HIDDEN.findall(f"{line}\n")


def test_io_in_the_pure_half_is_seen() -> None:
    assert IMPURE.findall("import asyncio\nfrom socket import socket\nimport sslx\n") == [
        "asyncio",
        "socket",
    ]
