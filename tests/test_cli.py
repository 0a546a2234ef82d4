"""The command line, without servers: help, checks of a file, slots, and what wrong usage gets."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rproxy
from rproxy.cli import main, slot_owners, unescape

COMMANDS = ["serve", "check", "demo", "slot"]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="rproxy")


# Help


def test_help_lists_the_commands_and_hides_the_rest() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
    assert "gen-commands" not in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_explains_each_option(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"\n    rproxy {command}" in result.stdout
    parameters = main.commands[command].params
    unexplained = [p.name for p in parameters if p.param_type_name == "option" and not p.help]
    assert not unexplained
    # Backslash-b keeps examples on their lines; seen in the output it was misspelt.
    assert "\b" not in result.stdout
    assert "\\b" not in result.stdout


def test_version() -> None:
    assert run("--version").stdout == f"rproxy, version {rproxy.__version__}\n"


def test_module_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "rproxy", "--version"], capture_output=True)
    assert said.stdout.decode() == run("--version").stdout


# check


def test_check_of_a_good_file(tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text('seeds = ["127.0.0.1:7000"]\n')
    result = run("check", str(good))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ok\n", "")


def test_check_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('seeds = ["127.0.0.1:7000"]\nworkers = "many"\n\n[clients]\nno_such = 1\n')
    result = run("check", str(bad))
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{bad}: line 2: workers: ")
    assert second.startswith(f"{bad}: line 5: clients.no_such: ")


def test_check_opens_the_files_that_the_file_names(tmp_path: Path) -> None:
    config = tmp_path / "tls.toml"
    config.write_text(
        f'seeds = ["a:1"]\n[upstream.tls]\nenabled = true\nca_file = "{tmp_path}/none.pem"\n'
    )
    result = run("check", str(config))
    assert result.exit_code == 1
    assert "upstream.tls.ca_file: no such file" in result.stderr


def test_check_needs_an_existing_file() -> None:
    result = run("check", "/nonexistent.toml")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


# serve


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ([], "seeds"),
        (["--seed", "no-port"], "seeds"),
        (["--seed", "h:1", "--listen", "127.0.0.1:99999"], "listen"),
        (["--seed", "h:1", "--listen", "0.0.0.0:6380"], "allow_open"),
    ],
    ids=["no seed", "seed without a port", "impossible port", "open to the network"],
)
def test_serve_refuses_in_one_line(args: list[str], names: str) -> None:
    result = run("serve", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert names in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["serve", "--workers", "0"],
        ["serve", "--log-level", "loud"],
        ["serve", "--nonsense"],
        ["demo", "--masters", "2"],
        ["demo", "--cluster-port", "60000"],
        ["slot"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: rproxy" in result.stderr


# slot


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 12739),
        ("foo", 12182),
        ("{foo}bar", 12182),
        ("{}foo", 9500),
        (r"\x66o\x6F", 12182),
    ],
)
def test_slot_of_a_key(key: str, slot: int) -> None:
    assert run("slot", key).stdout == f"{slot}\t{key}\n"


def test_slot_of_several_keys_is_a_line_each() -> None:
    assert run("slot", "foo", "{foo}").stdout == "12182\tfoo\n12182\t{foo}\n"


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("plain", b"plain"),
        (r"\x00\xfF\x0a", b"\x00\xff\n"),
        (r"\xg0\x1", rb"\xg0\x1"),
        ("caf\u00e9", "caf\u00e9".encode()),
        (os.fsdecode(b"\xff\xfe"), b"\xff\xfe"),
    ],
)
def test_unescape(typed: str, key: bytes) -> None:
    assert unescape(typed) == key


def test_slot_with_dead_seeds_is_one_line() -> None:
    with socket.socket() as bound:
        # Bound but not listening: nobody else can answer here.
        bound.bind(("127.0.0.1", 0))
        result = run("slot", "foo", "--seed", f"127.0.0.1:{bound.getsockname()[1]}")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no node answers")
    assert result.stderr.count("\n") == 1


def test_owners_are_laid_over_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = [[0, 9, [b"a", 1, b"id"], [b"replica", 3, b"id"]], [11, 16383, [b"", 2, b"id"]]]
    monkeypatch.setattr("rproxy.cli.ask", lambda *_: reply)
    owners = slot_owners(["a:1"])
    assert len(owners) == 16384
    assert (owners[0], owners[9], owners[10], owners[11]) == ("a:1", "a:1", "-", "?:2")
