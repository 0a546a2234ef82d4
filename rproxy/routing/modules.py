"""What servers do not tell of modules' commands, or tell wrongly.

Modules announce their commands themselves, most of them well: those need no line here. What stands
here are commands whose announcement would have rproxy send them to the wrong node, or take one
node's part for the whole. It counts only where a server announces the command, and gives way to
what the server tells of policies (command tips).

Search (FT.*) is two things. As a mere module on each node it knows this node's documents, and
names the index as the command's key, though there is no such key. With its coordinator it asks all
nodes itself, and any node's reply is the whole: such servers also have the command _FT.SEARCH.
"""

from __future__ import annotations

from collections.abc import Container

from rproxy.routing.rows import Described, Row

KEYS = {"json.mget": (1, -2, 1), "json.mset": (1, -1, 3)}
"""Simple key ranges of commands that announce but their first key."""

POLICIES = {"json.mget": ("multi_shard", ""), "json.mset": ("multi_shard", "all_succeeded")}
"""Request and response policy of commands that can be split."""

UNMERGED = "untold"
"""Response policy of commands for every node: nobody tells how their replies become one."""

ALL_KEYS = frozenset({"ts.mget", "ts.mrange", "ts.mrevrange", "ts.queryindex"})
"""Commands for all keys: one node's reply would lack the other nodes' keys."""

_SEARCH = """
    _aliasaddifnx _aliasdelifx _alterifnx _createifnx _dropifx _dropindexifx _list aggregate
    aliasadd aliasdel aliasupdate alter config create cursor debug dictadd dictdel dictdump drop
    dropindex explain explaincli hybrid info mget profile search spellcheck synadd syndump
    synforceupdate synupdate tagvals
"""
SEARCH = frozenset(f"ft.{name}" for name in _SEARCH.split())
"""Commands for an index, or for all: one node's reply is for its own documents. Not FT.SUGADD and
the like, which have a key.
"""

COORDINATOR = "_ft.search"
"""The command that tells servers whose search asks all nodes itself."""


def amended(found: Described, known: Container[str]) -> Described:
    """What is said of a command as it should have been; `known` are the names that servers know."""
    rows = [_amended(row, found.row.name, known) for row in (found.row, *found.subcommands)]
    return found._replace(row=rows[0], subcommands=rows[1:])


def _amended(row: Row, root: str, known: Container[str]) -> Row:
    """The row of the command `root`, or of one of its subcommands."""
    if root in KEYS:
        row = _with_keys(row, KEYS[root])
    if row.request_policy:
        return row
    if root in POLICIES:
        request_policy, response_policy = POLICIES[root]
        return row._replace(request_policy=request_policy, response_policy=response_policy)
    if root in ALL_KEYS or (root in SEARCH and COORDINATOR not in known):
        row = _with_keys(row, (0, 0, 0))
        return row._replace(request_policy="all_shards", response_policy=UNMERGED)
    return row


def _with_keys(row: Row, keys: tuple[int, int, int]) -> Row:
    """The row with a simple key range that says it all."""
    flags = (flag for flag in row.flags.split() if flag != "movablekeys")
    return row._replace(keys=keys, key_specs=(), flags=" ".join(flags))
