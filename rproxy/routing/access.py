"""The command table as the operator wants it: commands denied, renamed, taken away, or paused.

Strategy. A command that is to be treated apart gets a mark among its server flags, which also
takes it off the straight path. So the straight path pays nothing: what is not marked is found as
before, by one look-up. Who meets a marked command reads the mark and acts.

Rules. A denied command keeps its name, a denied subcommand gets a spec of its own even where the
servers tell of none (`debug|sleep`). A renamed command leaves the table; the new name finds a spec
that is marked, and `original` tells what is meant. Nodes never see the new name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rproxy.routing.specs import CommandSpec, CommandTable

DENIED, RENAMED, PAUSED = "denied", "renamed", "paused"
"""Marks; specs.pyx keeps each of them off the straight path."""

Judge = Callable[[CommandSpec], bool]


class Access:
    """What the operator says about commands."""

    def __init__(self, deny: Iterable[str] = (), rename: Mapping[str, str] | None = None) -> None:
        self.denied = frozenset(deny)
        self._new_names = {old: new.lower() for old, new in (rename or {}).items()}
        self._originals = {
            new.encode(): old.encode() for old, new in self._new_names.items() if new
        }

    def denying(self, table: CommandTable) -> CommandTable:
        """The table with what is denied marked; the same where nothing is."""
        if not self.denied:
            return table
        return marked(_with_subcommands(table, self.denied), DENIED, self._denies)

    def renaming(self, table: CommandTable) -> CommandTable:
        """The table under the new names; the same where there are none."""
        if not self._new_names:
            return table
        kept = (spec for spec in table if spec.name not in self._new_names)
        renamed = (
            _copy(spec, {RENAMED}, (), new)
            for spec in table
            if (new := self._new_names.get(spec.name))
        )
        return CommandTable((*kept, *renamed))

    def original(self, name: bytes) -> bytes | None:
        """The command that a new name stands for."""
        return self._originals.get(name.lower())

    def is_gone(self, name: bytes) -> bool:
        """Whether this is the old name of a renamed command, which is unknown now."""
        word = name.lower().decode("ascii", "replace")
        return word in self._new_names and word.encode() not in self._originals

    def strangers(self, table: CommandTable) -> list[str]:
        """Names in the operator's lists that the table does not have."""
        named = {name.partition("|")[0] for name in (*self.denied, *self._new_names)}
        return sorted(name for name in named if table.lookup(name.encode()) is None)

    def _denies(self, spec: CommandSpec) -> bool:
        return spec.name in self.denied or spec.name.partition("|")[0] in self.denied


def marked(table: CommandTable, mark: str, judge: Judge) -> CommandTable:
    """The table in which every command and subcommand that `judge` picks has the mark."""

    def mark_one(spec: CommandSpec) -> CommandSpec:
        subs = [mark_one(sub) for sub in spec.subcommands.values()]
        return _copy(spec, {mark} if judge(spec) else set(), subs)

    return CommandTable(map(mark_one, table))


def _with_subcommands(table: CommandTable, names: Iterable[str]) -> CommandTable:
    """The table, with a spec for every subcommand that is named: servers do not tell of all."""
    specs = {spec.name: spec for spec in table}
    for name in names:
        root, bar, sub = name.partition("|")
        spec = specs.get(root)
        if bar and spec is not None and sub.encode() not in spec.subcommands:
            subs = [*spec.subcommands.values(), _copy(spec, (), (), name)]
            specs[root] = _copy(spec, (), subs)
    return CommandTable(specs.values())


def _copy(
    spec: CommandSpec, flags: Iterable[str], subcommands: Iterable[CommandSpec], name: str = ""
) -> CommandSpec:
    """The spec with more flags, with these subcommands, and perhaps with another name."""
    return CommandSpec(
        name or spec.name,
        spec.arity,
        server_flags=spec.server_flags | frozenset(flags),
        acl_categories=spec.acl_categories,
        first=spec.first,
        last=spec.last,
        step=spec.step,
        key_specs=spec.key_specs,
        rule=spec.rule,
        request_policy=spec.request_policy,
        response_policy=spec.response_policy,
        subcommands=subcommands,
    )
