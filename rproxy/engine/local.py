"""Commands that rproxy answers itself: they concern the client's connection, or rproxy.

One function a command, in the table LOCAL; CLIENT's subcommands have a table of their own. Each
gets the request's arguments and returns the reply's bytes, in Redis's exact words; what needs
more than a reply (QUIT, HELLO) does it first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rproxy import errors
from rproxy.engine.clients import SUBCOMMANDS
from rproxy.engine.everywhere import ask_all, concerns_all
from rproxy.engine.multi import unwatch
from rproxy.engine.numbers import integer
from rproxy.engine.pubsub import monitor
from rproxy.engine.replies import OK, encode, simple
from rproxy.engine.server import info
from rproxy.engine.tracking_commands import begins_to_track
from rproxy.engine.ways import HERE, MASTERS, PUBSUB, TO_ANY, Way
from rproxy.wire.frames import Request

if TYPE_CHECKING:
    from rproxy.engine.engine import Engine
    from rproxy.engine.session import Session

Answer = Callable[["Engine", "Session", Request], None]
Words = list[bytes]

CONNECTING = frozenset({"auth", "hello", "quit", "reset"})
"""Commands that a client may send before it is authenticated."""


def _local(reply: Callable[[Engine, Session, Words], bytes]) -> Answer:
    """An Answer from a function that returns the reply."""

    def answer(engine: Engine, session: Session, request: Request) -> None:
        session.answer(reply(engine, session, request.argv()), request)

    return answer


def _ping(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) > 2:
        return errors.wrong_arity_reply("ping")
    return simple("PONG") if len(argv) == 1 else encode(argv[1])


def _echo(engine: Engine, session: Session, argv: Words) -> bytes:
    return encode(argv[1])


def _time(engine: Engine, session: Session, argv: Words) -> bytes:
    micros = time.time_ns() // 1000
    return encode([str(micros // 1_000_000), str(micros % 1_000_000)])


def _select(engine: Engine, session: Session, argv: Words) -> bytes:
    index = integer(argv[1])
    if index is None:
        return errors.NOT_AN_INTEGER
    if index == 0:
        return OK
    return errors.reply("ERR SELECT is not allowed in cluster mode")


def _whoami(engine: Engine, session: Session, argv: Words) -> bytes:
    """Clients have one user; which one rproxy is towards the nodes is not theirs to know."""
    return encode("default")


def _accepted(engine: Engine, session: Session, argv: Words) -> bytes:
    """READONLY, READWRITE, ASKING of clients that know clusters: nothing to change here."""
    return OK


def _quit(engine: Engine, session: Session, request: Request) -> None:
    """OK after all earlier replies, then close; what follows QUIT is ignored."""
    unwatch(session)
    session.answer(OK, request)
    session.end()


def _reset(engine: Engine, session: Session, request: Request) -> None:
    """Back to a fresh connection, once earlier commands are answered: they keep their protocol
    version.
    """

    unwatch(session)

    def reset(session: Session) -> None:
        engine.hub.leave(session)
        engine.tracking.leave(session)
        session.mute(False)
        session.speak(2)
        session.client.reset(not engine.password)
        if engine.password:
            session.lock()
        session.answer(simple("RESET"))
        session.release()

    session.hold(reset)


def _auth(engine: Engine, session: Session, argv: Words) -> bytes:
    if len(argv) > 3:
        return errors.SYNTAX_ERROR
    user, password = (argv[1], argv[2]) if len(argv) == 3 else (b"default", argv[1])
    if len(argv) == 2 and not engine.password:
        return errors.NO_PASSWORD_SET
    return OK if log_in(engine, session, user, password) else errors.WRONG_PASSWORD


def log_in(engine: Engine, session: Session, user: bytes, password: bytes) -> bool:
    """Whether user and password are right; then the session is open. Wrong ones change nothing."""
    if user != b"default" or (engine.password and not engine.password.matches(password)):
        engine.probe.login_failed(session.client.address)
        return False
    session.client.authenticated = True
    session.unlock()
    return True


def _hello(engine: Engine, session: Session, request: Request) -> None:
    """HELLO [2|3 [AUTH user password] [SETNAME name]]; a change of version waits for earlier
    replies.
    """
    unwatch(session, for_good=False)
    problem, version, name = _read_hello(engine, session, request.argv())
    if problem is not None:
        session.answer(problem, request)
        return

    def greet(session: Session) -> None:
        session.speak(version)
        if name is not None:
            session.client.name = name
        session.answer(encode(_greeting(engine, session), version), request)
        session.release()

    session.hold(greet)


def _read_hello(
    engine: Engine, session: Session, argv: Words
) -> tuple[bytes | None, int, str | None]:
    """The error if there is one, the protocol version, the client's name if it gives one."""
    version, name, at = session.protocol, None, 2
    login: tuple[bytes, bytes] | None = None
    if len(argv) > 1:
        wanted = integer(argv[1])
        if wanted is None:
            return errors.NOT_A_VERSION, version, None
        if wanted not in (2, 3):
            return errors.UNSUPPORTED_VERSION, version, None
        version = wanted
    while at < len(argv):
        option, left = argv[at].upper(), len(argv) - at - 1
        if option == b"AUTH" and left >= 2:
            login = argv[at + 1], argv[at + 2]
            at += 3
        elif option == b"SETNAME" and left >= 1:
            name = argv[at + 1].decode("utf-8", "surrogateescape")
            at += 2
        else:
            return errors.hello_option_reply(argv[at]), version, None
    if login is not None and not log_in(engine, session, *login):
        return errors.WRONG_PASSWORD, version, None
    if not session.client.authenticated:
        return errors.HELLO_NEEDS_AUTH, version, None
    if name is not None and not all("!" <= letter <= "~" for letter in name):
        return errors.BAD_CLIENT_NAME, version, None
    return None, version, name


def _greeting(engine: Engine, session: Session) -> dict[str, object]:
    return {
        "server": "redis",
        "version": engine.server_version,
        "proto": session.protocol,
        "id": session.client.id,
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }


def _client(engine: Engine, session: Session, request: Request) -> None:
    argv = request.argv()
    answer = SUBCOMMANDS.get(argv[1].lower())
    if answer is None:
        session.answer(errors.unknown_subcommand_reply(b"CLIENT", argv[1]), request)
        return
    reply = answer(engine, session, argv)
    if reply is not None and concerns_all(engine, argv[1].lower(), reply):
        ask_all(engine, session, request, reply)
    elif reply is not None:
        session.answer(reply, request)


def _track(engine: Engine, session: Session, request: Request) -> None:
    """CLIENT TRACKING, once the nodes tell of changes."""
    if not begins_to_track(engine, session, request):
        _client(engine, session, request)


LOCAL = {
    "ping": Way(HERE, _local(_ping)),
    "echo": Way(HERE, _local(_echo)),
    "time": Way(HERE, _local(_time)),
    "select": Way(HERE, _local(_select)),
    "readonly": Way(HERE, _local(_accepted)),
    "readwrite": Way(HERE, _local(_accepted)),
    "asking": Way(HERE, _local(_accepted)),
    "acl|whoami": Way(HERE, _local(_whoami)),
    "auth": Way(HERE, _local(_auth)),
    "info": Way(MASTERS, info),
    "quit": Way(HERE, _quit),
    "reset": Way(HERE, _reset),
    "hello": Way(HERE, _hello),
    "client": Way(HERE, _client),
    "client|help": TO_ANY,
    "client|tracking": Way(HERE, _track),
    "monitor": Way(PUBSUB, monitor),
}
"""Commands and containers -> their Way."""
