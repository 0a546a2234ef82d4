"""The command table: Redis's own rows, what servers do not tell, and the news of the cluster.

`built_in` makes CommandSpecs of the checked-in rows. `merge` adds what the cluster's own COMMAND
reply knows: commands of newer servers and of modules, new subcommands, a changed arity. A command
that is in the table keeps everything else that the table knows: servers before 7.0 tell no key
specifications, tips or subcommands. Nothing is ever removed: a server that lacks a command says so
itself, in its own words.

The few tables below are the only place where the behaviour of a command hangs on its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from rproxy.routing.command_table import ROWS
from rproxy.routing.rows import MALFORMED, Described, Row, read
from rproxy.routing.specs import CommandSpec, CommandTable, KeyRule

KEY_RULES = {
    "mset": KeyRule.PAIRS,
    "msetnx": KeyRule.PAIRS,
    "sort": KeyRule.SORT,
    "georadius": KeyRule.GEORADIUS,
    "georadiusbymember": KeyRule.GEORADIUS,
    "xread": KeyRule.XREAD,
    "xreadgroup": KeyRule.XREAD,
    "migrate": KeyRule.MIGRATE,
}
"""Commands whose keys no key specification describes rightly."""

POLICIES = {"msetnx": ("", "")}
"""Request and response policy, where the server's tips mislead: in pieces MSETNX is not atomic."""

UNTOLD_REQUESTS = dict.fromkeys(
    ("ts.mget", "ts.mrange", "ts.mrevrange", "ts.queryindex"), "all_shards"
)
"""Request policy of modules' commands for all keys, where the server tells none: one node's answer
would lack the other nodes' keys, and nobody tells how to merge theirs.
"""

UNTOLD_FLAGS = {"pfcount": "may_replicate", "eval": "teaches", "eval_ro": "teaches"}
"""Flags that COMMAND does not print: PFCOUNT writes its cached count into the key; EVAL teaches the
node a script that EVALSHA can name from then on.
"""

UNTOLD_SUBCOMMANDS = {
    "debug": [
        Row(f"debug|{name}", -3, "admin", "admin", (2, last, 1), (), "", "")
        for name, last in (
            ("object", 2),
            ("sdslen", 2),
            ("listpack", 2),
            ("ziplist", 2),
            ("htstats-key", 2),
            ("digest-value", -1),
        )
    ],
}
"""Subcommands that the server treats as mere arguments, but that name a key."""


@cache
def built_in() -> CommandTable:
    """The table that is checked in: every command of Redis 7.0."""
    return CommandTable(_spec(row, subs) for row, subs in _grouped(Row(*row) for row in ROWS))


def merge(table: CommandTable, reply: object) -> CommandTable:
    """The table together with a cluster's COMMAND (or COMMAND INFO) reply, as hiredis parses it.

    Entries that make no sense are left out; a reply that is no list changes nothing. So are entries
    for a subcommand alone (COMMAND INFO config|get has one): nobody sends a command of that name.
    """
    specs = {spec.name: spec for spec in table}
    for found in read(reply):
        if "|" in found.row.name:
            continue
        try:
            specs[found.row.name] = _merged(specs.get(found.row.name), found)
        except MALFORMED:
            continue
    return CommandTable(specs.values())


def _merged(known: CommandSpec | None, found: Described) -> CommandSpec:
    """A new command as the server tells it; a known one with the server's news."""
    if known is None:
        return _spec(found.row, found.subcommands)
    if not found.is_full:
        return known
    subs = {spec.name: spec for spec in known.subcommands.values()}
    for row in found.subcommands:
        sub = subs.get(row.name)
        subs[row.name] = _spec(row) if sub is None else sub.renewed(row.arity, ())
    return known.renewed(found.row.arity, subs.values())


def _grouped(rows: Iterable[Row]) -> Iterator[tuple[Row, list[Row]]]:
    """Each command with its subcommands."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.name.partition("|")[0], []).append(row)
    for first, *subs in groups.values():
        yield first, subs


def _spec(row: Row, subcommands: Iterable[Row] = ()) -> CommandSpec:
    first, last, step = row.keys
    request_policy, response_policy = POLICIES.get(
        row.name, (row.request_policy, row.response_policy)
    )
    return CommandSpec(
        row.name,
        row.arity,
        server_flags=[*row.flags.split(), *UNTOLD_FLAGS.get(row.name, "").split()],
        acl_categories=[f"@{category}" for category in row.categories.split()],
        first=first,
        last=last,
        step=step or 1,
        key_specs=row.key_specs,
        rule=_rule(row),
        request_policy=request_policy or UNTOLD_REQUESTS.get(row.name, ""),
        response_policy=response_policy,
        subcommands=[_spec(sub) for sub in (*subcommands, *UNTOLD_SUBCOMMANDS.get(row.name, ()))],
    )


def _rule(row: Row) -> KeyRule:
    """How keys are found. Servers before 7.0 say that keys are movable, but not how they move."""
    if row.name in KEY_RULES:
        return KEY_RULES[row.name]
    if "movablekeys" not in row.flags.split():
        return KeyRule.RANGE
    if row.key_specs:
        return KeyRule.SPECS
    return KeyRule.RANGE if row.keys[0] else KeyRule.HIDDEN
