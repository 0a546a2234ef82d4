"""Commands about the server, which need more than a rule for the nodes' replies.

INFO is asked of every master and told as one server's; rproxy adds what it knows itself. CONFIG GET
is one node's answer, corrected where it concerns the connection between client and server, which
is rproxy's matter and cannot be SET. SLOWLOG GET needs its count. DEBUG has subcommands that its
spec does not tell.

All of them are sent at once, in order with what the client sends before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rproxy import __version__, errors
from rproxy.engine import merging
from rproxy.engine.broadcast import is_error, to_masters
from rproxy.engine.everywhere import Counts, all_counts, limit_tracking, own_counts
from rproxy.engine.fanout import spread
from rproxy.engine.info import Sections, merged, parse, written
from rproxy.engine.numbers import integer
from rproxy.engine.placement import DEBUG_ANYWHERE, DEBUG_NOWHERE
from rproxy.engine.replies import OK, encode, verbatim
from rproxy.engine.ways import ANY, MASTERS, TO_ANY, Way, unserved
from rproxy.upstream.cluster import parse_reply
from rproxy.wire.frames import Request, pack

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

INFO_LIMIT = 2.0
"""Seconds that a node has for INFO: whoever asks during an outage wants to know of the rest."""

ALL_SECTIONS = {b"all", b"everything", b"default"}
SLOWLOG_COUNT = 10
"""Entries of SLOWLOG GET when it names no number."""

BAD_SLOWLOG_COUNT = errors.reply("ERR count should be greater than or equal to -1")


# -- INFO --


def info(engine: Engine, session: Session, request: Request) -> None:
    """Answer INFO, once the other workers have told how many clients they have."""
    if engine.bus is None:
        _info(engine, session, request, own_counts(engine))
        return
    session.hold()
    engine.spawn(_count_first(engine, session, request))


async def _count_first(engine: Engine, session: Session, request: Request) -> None:
    clients = await all_counts(engine)
    if not session.stream.is_closed:
        _info(engine, session, request, clients)
        session.release()


def _info(engine: Engine, session: Session, request: Request, clients: Counts) -> None:
    """Rproxy's own part alone is told without asking any node."""
    wanted = {word.lower() for word in request.argv()[1:]}
    with_own = not wanted or bool(wanted & (ALL_SECTIONS | {b"proxy"}))
    pools = [] if wanted == {b"proxy"} else engine.cluster.masters(session.protocol)
    own = _own_fields(engine, session, clients)
    protocol = session.protocol

    def merge(replies: list[bytes]) -> bytes:
        nodes = [parse(merging.text_of(raw)) for raw in replies if not is_error(raw)]
        sections = (
            merged(nodes, own)
            if nodes or wanted == {b"proxy"}
            else _alone(own, engine.server_version)
        )
        if with_own:
            sections["Proxy"] = _about(engine, len(nodes))
        return verbatim(written(sections), protocol)

    if not pools:
        session.answer(merge([]), request)
        return
    soon = engine.cluster.loop.time() + INFO_LIMIT
    request.deadline = min(request.deadline, soon) if request.deadline else soon
    session.enter(request)
    spread(request, pools, merge)


def _own_fields(engine: Engine, session: Session, clients: Counts) -> dict[str, str]:
    """What rproxy knows better than any node."""
    return {
        "redis_mode": "standalone",
        "tcp_port": local_port(session),
        "connected_clients": str(clients.connected),
        "blocked_clients": str(clients.blocked),
        "tracking_clients": str(clients.tracking),
        "tracking_total_keys": str(clients.keys),
        "tracking_total_items": str(clients.items),
        "tracking_total_prefixes": str(clients.prefixes),
        "maxclients": str(engine.config.clients.max_clients),
        "role": "master",
        "connected_slaves": "0",
        "cluster_enabled": str(int(engine.config.cluster_emulation)),
    }


def local_port(session: Session) -> str:
    """The port that the client reached; 0 for a Unix socket."""
    return str(session.client.local_address.rpartition(":")[2])


def _alone(own: dict[str, str], version: str) -> Sections:
    """What clients look for, when no node answers."""
    own = {**own, "redis_version": version}
    titles = {
        "Server": ("redis_version", "redis_mode", "tcp_port"),
        "Clients": ("connected_clients", "maxclients"),
        "Replication": ("role", "connected_slaves"),
        "Cluster": ("cluster_enabled",),
    }
    return {title: {name: own[name] for name in names} for title, names in titles.items()}


def _about(engine: Engine, nodes: int) -> dict[str, str]:
    """The section about rproxy itself."""
    fields = {
        "rproxy_version": __version__,
        "server_version": engine.server_version,
        "proxy_uptime_in_seconds": int(time.monotonic() - engine.started),
        "workers": engine.config.workers,
        "worker_clients": len(engine.clients),
        "masters": len(engine.cluster.slotmap.masters),
        "masters_in_this_reply": nodes,
        "slots_covered": engine.cluster.slotmap.covered,
        "commands_under_way": engine.shared.tick.under_way,
        "admin_commands": engine.config.admin_commands,
        "cluster_emulation": int(engine.config.cluster_emulation),
    }
    return {name: str(value) for name, value in fields.items()}


# -- CONFIG GET and SET --

SECRETS = (b"requirepass", b"masterauth", b"masteruser", b"tls-key-file-pass")
"""Settings that are shown empty unless clients may administer the servers."""


def _config_get(engine: Engine, session: Session, request: Request) -> None:
    pools = engine.cluster.masters(session.protocol)[:1]
    own, protocol = _own_settings(engine, session), session.protocol

    def merge(replies: list[bytes]) -> bytes:
        if is_error(replies[0]):
            return replies[0]
        settings = merging.fields_of(parse_reply(replies[0]))
        return encode({name: own.get(name, value) for name, value in settings.items()}, protocol)

    session.enter(request)
    spread(request, pools, merge)


def _config_set(engine: Engine, session: Session, request: Request) -> None:
    """Settings of the servers go to all masters; those of rproxy can only stay what they are."""
    argv, own = request.argv(), _own_settings(engine, session)
    pairs = list(zip(argv[2::2], argv[3::2], strict=False))
    for name, value in pairs:
        if name.lower() in own and own[name.lower()].encode() != value:
            session.answer(errors.own_setting_reply(name), request)
            return
    theirs = [word for pair in pairs if pair[0].lower() not in own for word in pair]
    if len(argv) % 2 == 0 and not theirs:
        session.answer(OK, request)
        return
    if len(argv) % 2 == 0:  # else the servers say what is wrong
        session.rewrite(request, pack([*argv[:2], *theirs]), request.spec)
        for name, value in pairs:
            if name.lower() == b"tracking-table-max-keys" and value.isdigit():
                limit_tracking(engine, int(value))
    to_masters(engine, session, request, merging.first)


def _own_settings(engine: Engine, session: Session) -> dict[bytes, str]:
    """Settings that concern the way between client and server: those of rproxy."""
    clients = engine.config.clients
    own = {
        b"cluster-enabled": "yes" if engine.config.cluster_emulation else "no",
        b"databases": "1",
        b"port": local_port(session),
        b"maxclients": str(clients.max_clients),
        b"timeout": str(int(clients.idle_timeout)),
    }
    if engine.config.admin_commands == "refuse":
        own.update(dict.fromkeys(SECRETS, ""))
    return own


# -- the others --


def _slowlog_get(engine: Engine, session: Session, request: Request) -> None:
    argv = request.argv()
    count = integer(argv[2]) if len(argv) == 3 else SLOWLOG_COUNT
    if len(argv) > 3:
        session.answer(errors.subcommand_arity_reply(b"SLOWLOG", argv[1]), request)
    elif count is None or count < -1:
        session.answer(BAD_SLOWLOG_COUNT, request)
    else:
        to_masters(engine, session, request, merging.slowlog(count))


def _debug(engine: Engine, session: Session, request: Request) -> None:
    rule = merging.digest if request.argv()[1].lower() == b"digest" else merging.first
    to_masters(engine, session, request, rule)


def _debug_elsewhere(argv: list[bytes]) -> Way | None:
    """The Way of a subcommand of DEBUG that is not for every master."""
    sub = argv[1].lower()
    if sub in DEBUG_NOWHERE:
        return unserved(f"debug|{sub.decode()}", "it would end every node")
    return TO_ANY if sub in DEBUG_ANYWHERE else None


SERVER = {
    "config|get": Way(ANY, _config_get),
    "config|set": Way(MASTERS, _config_set),
    "debug": Way(MASTERS, _debug),
    "slowlog|get": Way(MASTERS, _slowlog_get),
}
"""Command -> its Way."""

BY_WORDS: dict[str, Callable[[list[bytes]], Way | None]] = {"debug": _debug_elsewhere}
"""Commands of which some arguments have a Way of their own."""
