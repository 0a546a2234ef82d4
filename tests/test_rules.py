"""The project's rules for its own source, as tests: format, types, stubs, sizes, texts.

Each tool runs once, as its command would, over the whole tree; what it prints is the failure's
message.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rproxy"
# Lines of a file, by its suffix, and of a function. Generated tables are exempt.
FILE_LIMITS = {".py": 400, ".pyx": 700}
FUNCTION_LIMIT = 60
GENERATED = PACKAGE / "routing" / "command_table.py"

# The line on which a function begins: its indentation and name.
CYTHON_FUNCTION = re.compile(
    r"(\s*)(?:cdef(?! class)|cpdef|def|async def)\b[^=]*?(\w+)\((?:.*[:,(])?\s*$"
)
DIRECTIVES = "# cython: language_level=3, boundscheck=False, wraparound=False"
# What Cython adds to every module or class; nothing that a stub could describe.
CYTHONS_OWN = r"""
.*\.__(reduce|setstate)_cython__
.*\.__(pyx_\w+|test)__
"""

LINTERS = {
    "ruff format": ["ruff", "format", "--check"],
    "ruff check": ["ruff", "check"],
    "mypy": ["mypy"],
}


def files(*suffixes: str, under: tuple[str, ...] = ("rproxy", "tests", "benchmarks")) -> list[Path]:
    found = chain.from_iterable((ROOT / folder).rglob("*") for folder in under)
    return sorted(p for p in found if p.suffix in suffixes and p != GENERATED)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def said_by(*command: str) -> str:
    """What a command that failed printed; nothing where it succeeded."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


# Tools


@pytest.mark.parametrize("linter", LINTERS)
def test_linter_is_content(linter: str) -> None:
    assert not said_by(sys.executable, "-m", *LINTERS[linter])


def test_layers_hold() -> None:
    # import-linter has no `python -m`.
    program = "from importlinter.cli import lint_imports_command as main; main()"
    assert not said_by(sys.executable, "-c", program)


def test_stubs_match_the_compiled_modules(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(CYTHONS_OWN)
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files(".pyx")]
    options = ["--concise", "--ignore-disjoint-bases", "--ignore-unused-allowlist"]
    stubtest = [sys.executable, "-m", "mypy.stubtest", *options, "--allowlist", str(allowed)]
    assert not said_by(*stubtest, *modules)


# Compiled modules


@pytest.mark.parametrize("path", files(".pyx"), ids=name_of)
def test_compiled_module_has_header_and_stub(path: Path) -> None:
    assert path.with_suffix(".pxd").exists()
    assert path.with_suffix(".pyi").exists()
    assert path.read_text().startswith(DIRECTIVES)


def test_every_compiled_module_is_built() -> None:
    listed = set(re.findall(r'sources = \["(.*)"\]', (ROOT / "pyproject.toml").read_text()))
    assert listed == {name_of(path) for path in files(".pyx")}


# Sizes


@pytest.mark.parametrize("path", files(*FILE_LIMITS), ids=name_of)
def test_file_is_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LIMITS[path.suffix]


@pytest.mark.parametrize("path", files(*FILE_LIMITS), ids=name_of)
def test_functions_are_small(path: Path) -> None:
    text = path.read_text()
    lengths = dict(python_functions(text) if path.suffix == ".py" else cython_functions(text))
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LIMIT} == {}


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and lines of each function, decorators and docstring not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            first = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            yield f"{node.name}:{node.lineno}", last - (first or node.lineno)


def cython_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and lines of each function: from its first line to the last that is deeper."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        opening = CYTHON_FUNCTION.match(line)
        if opening is None:
            continue
        indent, end = len(opening[1]), number
        for later, text_line in enumerate(lines[number + 1 :], number + 1):
            depth = len(text_line) - len(text_line.lstrip())
            if text_line.strip() and depth <= indent and not text_line.lstrip().startswith(")"):
                break
            if text_line.strip():
                end = later
        yield f"{opening[2]}:{number + 1}", end - number


def test_function_lengths_are_measured() -> None:
    python = 'def short():\n    """Text.\n\n    More.\n    """\n    a = 1\n    return a\n'
    assert dict(python_functions(python)) == {"short:1": 2}
    cython = (
        "cdef class C:\n    cdef inline int f(self, int a) except -1:\n        if a:\n\n"
        "            return 1\n        return 0\n\n"
        "    def g(\n        self,\n    ):\n        pass\n"
        "cdef int x = f(1)\n"
    )
    assert dict(cython_functions(cython)) == {"f:2": 4, "g:8": 3}


# Texts


@pytest.mark.parametrize("path", files(".py", ".pyx", ".pxd", under=("rproxy",)), ids=name_of)
def test_file_opens_with_its_theory(path: Path) -> None:
    lines = path.read_text().splitlines()
    if path.suffix == ".pyx":
        lines = lines[1:]
    assert lines, "the file is empty"
    assert lines[0].startswith(('"""', 'r"""'))


@pytest.mark.parametrize("path", files(".py", ".pyx", ".pxd", ".pyi"), ids=name_of)
def test_nothing_is_left_for_later(path: Path) -> None:
    # Written apart, or this file would break its own rule.
    postponed = re.findall(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b", path.read_text())
    assert not postponed
