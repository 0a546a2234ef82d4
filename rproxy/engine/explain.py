"""PROXY: what rproxy does with commands, told by rproxy itself.

PROXY COMMANDS lists every command with what becomes of it in one word, or tells all of one.
PROXY EXPLAIN takes a whole request and says what would happen to just this one, now, for this
client; nothing is sent. Both ask the ladder (dispatch.py), which tells what it would do by the
very Way that it would take: this file only puts it into words. A name that the command table lacks
is looked up at the servers first, as it would be for the command itself.

Rules. Arguments that are no keys are never repeated: they may be secrets. So is the new name of a
renamed command: only who names it hears of it. Keys are shown as clients call them, slots are those
of the names that servers know. What is long is cut: requests, lists and keys have limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rproxy import errors
from rproxy.engine import ways
from rproxy.engine.broadcast import policy_of
from rproxy.engine.replies import encode, simple
from rproxy.engine.ways import Way
from rproxy.routing import access
from rproxy.routing.slots import request_keys, slot_of
from rproxy.routing.specs import CommandFlag, CommandSpec, CommandTable, KeyRule
from rproxy.upstream.gate import Gate
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Words = list[bytes]
About = dict[str, Any]
"""What a reply tells: names and values, a map in RESP3."""

MOST_WORDS = 16384
"""Words of a request that is explained: each costs time that other clients wait."""

MOST_SHOWN = 64
"""Keys, and slots, that are listed; how many there are is always told."""

KEY_SHOWN = 128
"""Bytes of a key that are shown."""

TOO_LONG = errors.reply(f"ERR PROXY EXPLAIN takes at most {MOST_WORDS} words of a command")

SPEC = CommandSpec(
    "proxy",
    -2,
    server_flags=("noscript", "loading", "stale"),
    acl_categories=("@slow", "@connection"),
    subcommands=[
        CommandSpec(
            f"proxy|{name}",
            arity,
            server_flags=("noscript", "loading", "stale"),
            acl_categories=("@slow", "@connection"),
        )
        for name, arity in (("commands", -2), ("explain", -3), ("help", 2))
    ],
)


def with_own(table: CommandTable) -> CommandTable:
    """The table with PROXY, whatever servers call by that name."""
    return CommandTable([*table, SPEC])


# -- what the words of ways.py mean --

HOW = {
    ways.SLOT: "straight to the node of its keys' slot",
    ways.SPLIT: "keys of several slots: in one-slot pieces, replies merged; not atomic then",
    ways.ANY: "to any one node",
    ways.MASTERS: "to every master, replies merged",
    ways.HERE: "answered by rproxy itself",
    ways.PUBSUB: "Pub/Sub: rproxy's own feeds from the nodes serve all clients",
    ways.TRANSACTION: "a transaction: on a link of the client's own, to the slot of its first key",
    ways.BLOCKING: "where it may wait: on a link of the client's own",
    ways.REFUSED: "refused: it administers servers",
    ways.DENIED: "denied by the operator",
    ways.RENAMED: "renamed or taken away by the operator",
    ways.UNSERVED: "not served",
    ways.CROSS: "refused: its keys lie in several slots, and it cannot be cut",
    ways.ARITY: "refused: the wrong number of arguments",
    ways.UNKNOWN: "unknown to rproxy and to the servers: any node answers with the error",
    ways.NO_AUTH: "refused: the client has to authenticate",
    ways.CONFINED: "refused in the client's state: it is subscribed, or under MONITOR",
    ways.PAUSED: "waits for the end of CLIENT PAUSE",
    ways.QUEUED: "queued by MULTI",
    ways.ATTACK: "the word of an HTTP request: the connection is closed without an answer",
}
"""What becomes of the command, by the name of its Way."""

INSTEAD = {
    ways.REFUSED: 'admin_commands = "allow" permits it; or send it to the nodes themselves',
    ways.DENIED: "the operator can take it off the list `deny`",
    ways.RENAMED: "the operator knows its name: see `rename`",
    ways.UNSERVED: "send it to the node that it concerns",
    ways.CROSS: "give the keys a common hash tag, {like-this}, or pin their prefix: [[pin]]",
    ways.CONFINED: "use another connection",
    ways.PAUSED: "CLIENT UNPAUSE ends the pause",
}
"""What to do where that is not what was wanted."""

MERGED = {
    "": "elements in the order of the keys",
    "agg_sum": "the sum",
    "agg_min": "the least",
    "agg_logical_and": "1 where all nodes say so",
    "all_succeeded": "success only if all succeed",
    "one_succeeded": "success if one succeeds",
    "special": "by a rule of its own",
}
"""How replies become one, by the response policy."""

RULES = {
    KeyRule.SPECS: "keys where the servers' key specifications say",
    KeyRule.SORT: "the first argument, and that of the last STORE",
    KeyRule.GEORADIUS: "the first argument, and that of STORE or STOREDIST",
    KeyRule.XREAD: "the first half of what follows STREAMS",
    KeyRule.MIGRATE: "the third argument, or what follows KEYS",
    KeyRule.HIDDEN: "servers do not tell where: any node is asked, and names the right one",
}
"""Where the keys are, for rules that are no range of arguments."""

MARKS = {access.DENIED, access.RENAMED, access.PAUSED, "teaches"}
"""Flags that rproxy adds for itself."""


def _where_keys_are(spec: CommandSpec) -> str:
    if spec.rule in RULES:
        return RULES[KeyRule(spec.rule)]
    if not spec.is_keyed:
        return "none"
    what = "channels" if spec.flags & CommandFlag.CHANNEL else "keys"
    if spec.first == spec.last:
        return f"{what}: argument {spec.first}"
    last = spec.last if spec.last > 0 else "the last" if spec.last == -1 else f"{spec.last}"
    step = f", every {spec.step}." if spec.step > 1 else ""
    return f"{what}: arguments {spec.first} to {last}{step}"


def _treated(way: Way) -> About:
    """The Way in words."""
    about: About = {"treatment": way.name, "how": HOW[way.name]}
    if way.error:
        about["error"] = way.error[1:].removesuffix(b"\r\n")
    if way.name in INSTEAD:
        about["instead"] = INSTEAD[way.name]
    return about


def _merging(spec: CommandSpec, way: Way) -> About:
    if way.name == ways.SPLIT:
        return {"merged": MERGED[spec.response_policy]}
    if way.name == ways.MASTERS:
        return {"merged": MERGED.get(policy_of(spec) or "special", MERGED["special"])}
    return {}


# -- COMMANDS --


def _commands(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) == 2:
        return encode(dict(_all(engine)), session.protocol)
    name, *more = (word for part in argv[2:] for word in part.lower().split(b"|"))
    if len(more) > 1:
        return errors.wrong_arity_reply("proxy|commands")
    spec = engine.shared.commands.lookup(name, *more)
    if engine.access.is_gone(name):
        return encode({"name": name, **_treated(Way(ways.RENAMED, _nothing))}, session.protocol)
    if spec is not None and more and "|" not in spec.name and not _is_renamed(spec):
        return errors.reply(b"ERR unknown subcommand. Try %b HELP." % spec.name.upper().encode())
    if spec is None:
        return errors.unknown_command_reply([name])
    return encode(_one(engine, _servers_own(engine, spec, name, more)), session.protocol)


def _nothing(engine: Engine, session: Session, request: Request) -> None:
    """What a command that is only told of does."""


def _is_renamed(spec: CommandSpec) -> bool:
    return access.RENAMED in spec.server_flags


def _servers_own(engine: Engine, spec: CommandSpec, name: bytes, more: Words) -> CommandSpec:
    """The spec under the servers' name, where this one bears the operator's."""
    found = engine.meant.lookup(engine.access.original(name) or name, *more)
    return found if _is_renamed(spec) and found is not None else spec


def _all(engine: Engine) -> Iterator[tuple[str, str]]:
    """Every command and subcommand under the servers' names, and what becomes of it."""
    for spec in sorted(engine.meant, key=lambda spec: spec.name):
        gone = engine.access.is_gone(spec.name.encode())
        for one in (spec, *sorted(spec.subcommands.values(), key=lambda sub: sub.name)):
            yield one.name, ways.RENAMED if gone else engine.in_general(one).name


def _one(engine: Engine, spec: CommandSpec) -> About:
    way = engine.in_general(spec)
    return {
        "name": spec.name,
        "arity": spec.arity,
        "keys": _where_keys_are(spec),
        "flags": sorted(spec.server_flags - MARKS),
        "request_policy": spec.request_policy or "none",
        "response_policy": policy_of(spec) or "none",
        **_treated(way),
        **_merging(spec, way),
    }


# -- EXPLAIN --


def _explain(engine: Engine, session: Session, argv: Words) -> bytes:
    words = argv[2:]
    if len(words) > MOST_WORDS:
        return TOO_LONG
    request = Request(pack(words))
    request.spec = engine.shared.commands.lookup(*words[:2])
    session.pin_keys(request)
    way = engine.judge(session, request)
    spec: CommandSpec | None = request.spec
    about: About = {"command": words[0][:KEY_SHOWN] if spec is None else spec.name}
    about |= _treated(_discreet(way, spec, words))
    if way.name == ways.PAUSED and spec is not None:
        about["then"] = engine.in_general(spec).name
    if spec is not None:
        about |= _merging(spec, way)
        about |= _places(engine, session, request, words, way)
    return encode(about, session.protocol)


def _discreet(way: Way, spec: CommandSpec | None, words: Words) -> Way:
    """The Way with an error that quotes no arguments."""
    if spec is not None:
        return way
    if way.name in (ways.UNKNOWN, ways.RENAMED):
        return way._replace(error=errors.unknown_command_reply(words[:1]))
    return way


def _places(engine: Engine, session: Session, request: Request, words: Words, way: Way) -> About:
    """Keys, slots and nodes of a request that goes, or would go, to some."""
    if way.name == ways.MASTERS:
        nodes = [str(node) for node in engine.cluster.slotmap.masters]
        return {"nodes": nodes or "none is known yet: it waits for the slot map"}
    if way.name in (ways.ARITY, ways.ATTACK, ways.NO_AUTH):
        return {}
    if request.spec.flags & CommandFlag.CHANNEL:
        slot = session.assign(request)
        return {"slots": [_slot(engine, session, slot)]} if slot >= 0 else {}
    keys = request_keys(engine.shared.commands, words)
    return _keyed(engine, session, request, [words[at] for at in keys], way) if keys else {}


def _keyed(
    engine: Engine, session: Session, request: Request, keys: list[bytes], way: Way
) -> About:
    slots = [slot_of(engine.pins.to_server(key)) for key in keys]
    counts = Counter(slots)  # in the order in which slots appear, as pieces are
    shown = list(counts.items())[:MOST_SHOWN]
    about: About = {
        "key_count": len(keys),
        "keys": [
            [key[:KEY_SHOWN], slot]
            for key, slot in zip(keys[:MOST_SHOWN], slots[:MOST_SHOWN], strict=True)
        ],
        "slot_count": len(counts),
        "slots": [_slot(engine, session, slot) for slot, _ in shown],
    }
    pinned = sum(engine.pins.to_server(key) != key for key in keys)
    if pinned:
        about["pinned"] = pinned
    if way.name == ways.SPLIT:
        about["pieces"] = [[slot, _node(engine, slot), count] for slot, count in shown]
    return about


def _slot(engine: Engine, session: Session, slot: int) -> list[Any]:
    """A slot, its node, and whether a gate holds its commands just now."""
    sink = engine.cluster.table(session.protocol)[slot]
    state = "open"
    if isinstance(sink, Gate):
        state = f"{'held' if sink.refusing is None else 'refused'}: {sink.reason}"
    return [slot, _node(engine, slot), state]


def _node(engine: Engine, slot: int) -> str:
    node = engine.cluster.slotmap.owner(slot)
    return "none" if node is None else str(node)


# -- HELP, and the command itself --

LINES = (
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COMMANDS [<command> [<subcommand>]]",
    "    What rproxy does with every command, in one word; or all about one command.",
    "EXPLAIN <command> [<arg> ...]",
    "    What would become of this command now: keys, slots, nodes, errors. Nothing is sent.",
    "HELP",
    "    Print this help.",
)


def _help(engine: Engine, session: Session, argv: Words) -> bytes:
    return b"*%d\r\n" % len(LINES) + b"".join(map(simple, LINES))


ANSWERS: dict[str, Callable[[Engine, Session, Words], bytes]] = {
    "proxy|commands": _commands,
    "proxy|explain": _explain,
    "proxy|help": _help,
}


def proxy(engine: Engine, session: Session, request: Request) -> None:
    """Answer PROXY and its subcommands."""
    argv = request.argv()
    answer = ANSWERS.get(request.spec.name)
    if answer is None:
        session.answer(errors.unknown_subcommand_reply(b"PROXY", argv[1]), request)
    elif (name := _stranger(engine, argv)) is not None:
        session.hold()
        engine.spawn(_learn_first(engine, session, request, name))
    else:
        session.answer(answer(engine, session, argv), request)


def _stranger(engine: Engine, argv: Words) -> bytes | None:
    """The name of a command that only servers can know, and that they were not asked of."""
    name = argv[2].lower().partition(b"|")[0] if len(argv) > 2 else b"proxy"
    known = engine.shared.commands.lookup(name) is not None
    return None if known or engine.access.is_gone(name) or engine.is_unknown(name) else name


async def _learn_first(engine: Engine, session: Session, request: Request, name: bytes) -> None:
    await engine.learn(name)
    engine.resume(session, request)
