"""Where commands without a key go, where neither keys nor the servers' own hints say it.

Four places: any one node answers for all; every master is asked; rproxy answers itself (local.py,
server.py, keyspace.py); or nobody, because a single server behind rproxy cannot stand for it. What
servers tell about commands for all of them (the request policy) comes first: these tables fill
in what they leave out. A command that stands in no table, of a module for instance, goes to any
node, which is what Redis tells clients to do with it.
"""

from __future__ import annotations

from rproxy.engine.words import words

ANYWHERE = words(
    """
    acl acl|cat acl|dryrun acl|genpass acl|getuser acl|help acl|list acl|users
    client|help cluster|help command command|count command|docs command|getkeys
    command|getkeysandflags command|help command|info command|list config config|help
    failover function function|dump function|help function|list latency latency|help lolwut
    memory memory|help module module|help module|list object object|help pfselftest publish
    pubsub pubsub|help replicaof script script|help slaveof slowlog slowlog|help swapdb
    xgroup xgroup|help xinfo xinfo|help
    """
)
"""Any node's answer is the answer: all know the same, or all refuse it in cluster mode. A container
by its bare name is a subcommand that nobody knows: the node has the words for that.
"""

UNTOLD_POLICIES = {
    "acl|deluser": "all_succeeded",
    "acl|load": "all_succeeded",
    "acl|log": "special",
    "acl|save": "all_succeeded",
    "acl|setuser": "all_succeeded",
    "bgrewriteaof": "all_succeeded",
    "bgsave": "all_succeeded",
    "config|resetstat": "all_succeeded",
    "config|rewrite": "all_succeeded",
    "lastsave": "agg_min",
    "module|load": "all_succeeded",
    "module|loadex": "all_succeeded",
    "module|unload": "all_succeeded",
    "role": "special",
    "save": "all_succeeded",
}
"""Commands for every master of which servers do not say so -> their response policy."""

NOWHERE = {
    "psync": "it turns a connection into a stream of one node's changes",
    "replconf": "it belongs to the replication of one node",
    "script|debug": "it stops one node at a script's lines",
    "shutdown": "it ends one node: send it to that node",
    "sync": "it turns a connection into a stream of one node's changes",
}
"""Commands that are not served, whatever admin_commands says -> why."""

HARMLESS = words(
    """
    acl|dryrun acl|users config|get latency|doctor latency|graph latency|histogram latency|history
    latency|latest latency|reset module|list slowlog|get slowlog|len slowlog|reset debug|object
    """
)
"""Commands that Redis calls administration, but that change no server and tell no secret."""

DEBUG_ANYWHERE = frozenset({b"help", b"stringmatch-len", b"protocol", b"log"})
"""Subcommands of DEBUG that one node answers; those that name a key have specs of their own."""

DEBUG_NOWHERE = frozenset(
    {b"segfault", b"panic", b"restart", b"crash-and-recover", b"assert", b"oom", b"leak"}
)
"""Subcommands of DEBUG that would end every node."""
