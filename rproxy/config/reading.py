"""From a TOML file, the command line and the environment to a Config, or to all that is wrong.

Strategy. Each option is read on its own, so one look reports every mistake, each with the option's
full name and the line where the file has it. Options that nobody gave keep their defaults; what the
command line says goes before the file; the environment fills in passwords and the user where both
are silent or empty. At last come the rules between options, as one table. Messages never quote a
value of a secret option.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from rproxy.config.options import Config, rows
from rproxy.config.values import Secret
from rproxy.errors import AddressError, ConfigError

ENVIRONMENT = {
    "clients.password": "RPROXY_PASSWORD",
    "upstream.username": "RPROXY_UPSTREAM_USERNAME",
    "upstream.password": "RPROXY_UPSTREAM_PASSWORD",
}
"""Option -> the variable that stands in where it is empty."""

_HEADER = re.compile(r"\s*\[\[?\s*([\w.\s\"'-]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


class Problem(NamedTuple):
    """One mistake."""

    name: str
    """The option's full name, or "" where the file as a whole is meant."""

    reason: str
    """What is wrong, and what would be right."""

    line: int | None = None
    """Where the file has it, counted from 1; None where it does not."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return where + (f"{self.name}: {self.reason}" if self.name else self.reason)


def load(
    path: Path | str | None = None,
    given: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The configuration of a file (none: the defaults); what is `given`, by full name, goes first.

    `load("rproxy.toml", {"listen": ["127.0.0.1:7000"], "log.level": "debug"})`. Raises ConfigError
    with every problem, one a line.
    """
    config, problems = read(path, given or {}, environ)
    if problems:
        raise ConfigError("\n".join(str(problem) for problem in problems))
    return config


def check(path: Path | str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What is wrong with a file, one text a problem, in its order; empty when it can be served."""
    return [str(problem) for problem in read(path, {}, environ)[1]]


def read(
    path: Path | str | None, given: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[Config, list[Problem]]:
    """The configuration, as far as it can be read, and all problems. Raises nothing."""
    try:
        text = "" if path is None else Path(path).read_text("utf-8")
        tree = tomllib.loads(text)
    except OSError as error:
        return Config(), [Problem("", f"{path}: {error.strerror}")]
    except UnicodeDecodeError:
        return Config(), [Problem("", f"{path}: not a text in UTF-8")]
    except tomllib.TOMLDecodeError as error:
        return Config(), [Problem("", f"{path}: {error}")]
    # What is given has no line: a mistake in it is not the file's.
    lines = {name: line for name, line in _lines(text).items() if name not in given}
    values, problems = _values({**dict(_flatten(tree)), **given}, lines)
    for name, variable in ENVIRONMENT.items():
        if not values.get(name) and environ.get(variable):
            values[name] = _from_environment(name, environ[variable])
    config = _build(Config, values)
    broken = {problem.name for problem in problems}
    for name, reason in _broken_rules(config):
        if name not in broken:
            table = name.rpartition(".")[0]
            problems.append(Problem(name, reason, lines.get(name, lines.get(table))))
    return config, sorted(problems, key=lambda problem: problem.line or 0)


# -- options one by one --

_ROWS = {row.name: row for row in rows()}
_TABLES = {name.rpartition(".")[0] for name in _ROWS} - {""}


def _values(
    found: Mapping[str, object], lines: Mapping[str, int]
) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, raw in found.items():
        try:
            values[name] = _value(name, raw)
        except (ValueError, AddressError) as error:
            problems.append(Problem(name, str(error), lines.get(name)))
    return values, problems


def _value(name: str, raw: object) -> object:
    """The value of one option; raises ValueError or AddressError."""
    row = _ROWS.get(name)
    if row is None:
        raise ValueError(_unknown(name))
    if row.option.each is not None:
        if not isinstance(raw, (list, tuple)):
            raise ValueError("expected a list")
        return tuple(row.option.each(item) for item in raw)
    try:
        return msgspec.convert(raw, row.type, dec_hook=_parse)
    except msgspec.ValidationError as error:
        raise ValueError(_plain(str(error), row.type)) from None


def _parse(kind: type, raw: object) -> object:
    return kind.parse(raw)  # type: ignore[attr-defined]


def _plain(reason: str, kind: Any) -> str:
    """msgspec's words, begun in lower case and without its marks; a choice is spelt out."""
    (bare, *_) = get_args(kind)
    if get_origin(bare) is Literal:
        return f"expected one of {', '.join(get_args(bare))}"
    return (reason[:1].lower() + reason[1:]).replace("`", "")


def _unknown(name: str) -> str:
    if name in _TABLES:
        return "expected a table"
    known = [*_ROWS, *_TABLES]
    # A right word in the wrong table is the commonest slip after a typing error.
    same_word = [other for other in _ROWS if other.rpartition(".")[2] == name.rpartition(".")[2]]
    close = difflib.get_close_matches(name, known, 1, 0.7) or same_word[:1]
    return f"unknown option; did you mean {close[0]}?" if close else "unknown option"


def _from_environment(name: str, text: str) -> object:
    return Secret(text) if isinstance(_ROWS[name].default, Secret) else text


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        full = prefix + name
        # A table where an option is expected is kept whole, for the message.
        if isinstance(value, dict) and full in _TABLES:
            yield from _flatten(value, f"{full}.")
        else:
            yield full, value


def _build(table: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    chosen: dict[str, Any] = {}
    for field in msgspec.structs.fields(table):
        full = prefix + field.name
        if isinstance(field.default, msgspec.Struct):
            chosen[field.name] = _build(type(field.default), values, f"{full}.")
        elif full in values:
            chosen[field.name] = values[full]
    return table(**chosen)


def _lines(text: str) -> dict[str, int]:
    """Full name of a key or table -> the line where the file first has it, counted from 1."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = re.sub(r"[\s\"']", "", header[1]) + "."
            found.setdefault(table[:-1], number)
        elif key := _KEY.match(line):
            found.setdefault(table + re.sub(r"[\"']", "", key[1]), number)
    return found


# -- between options --

_Rule = Callable[[Config], str | None]


def _needs_seeds(config: Config) -> str | None:
    return None if config.seeds else 'name at least one node, such as seeds = ["10.0.0.1:6379"]'


def _needs_listeners(config: Config) -> str | None:
    if not config.listen:
        return 'name at least one address, such as listen = ["127.0.0.1:6380"]'
    twice = {str(where) for where in config.listen if config.listen.count(where) > 1}
    # Port 0 is another port each time.
    twice = {where for where in twice if not where.endswith(":0")}
    return f"{min(twice)} is named twice" if twice else None


def _closed_to_strangers(config: Config) -> str | None:
    if config.allow_open or config.clients.password or not exposed(config):
        return None
    return (
        f"{exposed(config)[0]} can be reached from other machines and no password is asked: "
        "set clients.password (or RPROXY_PASSWORD), or allow_open = true"
    )


def _user_has_password(config: Config) -> str | None:
    if config.upstream.username and not config.upstream.password:
        return "needs upstream.password (or RPROXY_UPSTREAM_PASSWORD)"
    return None


def _new_names_are_free(config: Config) -> str | None:
    taken: set[str] = set()
    for old, new in config.rename.items():
        if old != old.lower() or not _is_word(old):
            return f"{old!r} is no name of a command: write it in lower case"
        if new and (not _is_word(new) or new.lower() in taken):
            return f"{new!r} is no name that one command alone can have"
        taken.add(new.lower())
    return None


def _prefixes_are_pinned_once(config: Config) -> str | None:
    prefixes = [prefix for rule in config.pin for prefix in rule.prefixes]
    twice = {prefix for prefix in prefixes if prefixes.count(prefix) > 1}
    return f"{min(twice).decode()!r} is pinned twice" if twice else None


def _is_word(name: str) -> bool:
    return name.isascii() and name.isprintable() and not set(name) & {" ", "|", "\x7f"}


def _tls_is_on(config: Config) -> str | None:
    tls = config.upstream.tls
    if not tls.enabled and (tls.ca_file or tls.cert_file or tls.key_file or tls.server_name):
        return "is false, but other options of upstream.tls are set: links would not be encrypted"
    return None


def _key_has_certificate(config: Config) -> str | None:
    tls = config.upstream.tls
    return "needs upstream.tls.cert_file" if tls.key_file and not tls.cert_file else None


def _at_most(low: str, high: str) -> tuple[str, _Rule]:
    def rule(config: Config) -> str | None:
        smaller, larger = _at(config, low), _at(config, high)
        return None if smaller <= larger else f"{smaller} is more than {high}, which is {larger}"

    return low, rule


def _more_than_0(name: str) -> tuple[str, _Rule]:
    return name, lambda config: None if _at(config, name) > 0 else "must be more than 0"


_RULES: tuple[tuple[str, _Rule], ...] = (
    ("seeds", _needs_seeds),
    ("listen", _needs_listeners),
    ("listen", _closed_to_strangers),
    ("upstream.username", _user_has_password),
    ("rename", _new_names_are_free),
    ("pin", _prefixes_are_pinned_once),
    ("upstream.tls.enabled", _tls_is_on),
    ("upstream.tls.key_file", _key_has_certificate),
    _at_most("clients.pause_output", "clients.output_limit"),
    _at_most("clients.max_bulk", "clients.request_limit"),
    _at_most("upstream.retry_delay", "upstream.retry_delay_max"),
    _at_most("upstream.reconnect_delay", "upstream.reconnect_delay_max"),
    _at_most("topology.min_interval", "topology.refresh_interval"),
    _more_than_0("clients.pause_output"),
    _more_than_0("clients.max_bulk"),
    _more_than_0("upstream.connect_timeout"),
    _more_than_0("upstream.stall_timeout"),
    _more_than_0("upstream.heartbeat"),
    _more_than_0("upstream.retry_delay"),
    _more_than_0("upstream.reconnect_delay"),
    _more_than_0("topology.min_interval"),
    _more_than_0("topology.fetch_timeout"),
)


def _broken_rules(config: Config) -> Iterator[tuple[str, str]]:
    for name, rule in _RULES:
        reason = rule(config)
        if reason is not None:
            yield name, reason


def _at(config: Config, name: str) -> Any:
    """The value of an option by its full name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def exposed(config: Config) -> list[str]:
    """The listeners that other machines can reach."""
    return [str(where) for where in config.listen if not where.is_loopback]
