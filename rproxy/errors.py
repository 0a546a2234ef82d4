"""Every exception class of rproxy, and every error reply that rproxy itself writes.

Exceptions come in three families, by fault: *you* (UsageError: a mistake in a configuration or a
call), *the node said so* (ReplyError: an error reply, told apart by its first word through one
table), and *the way there* (NetworkError: connecting, time limits, broken protocol). An error reply
stays bytes until the library's edge; foreign exceptions become one of these once, where they enter.

Texts for clients. Each begins with Redis's own code word where one exists, says why, and says
whether the command may have run, because a client decides by that whether it may send it again.
Texts that quote a client lose CR and LF and are bounded, so nobody can write a second reply into
the stream. The formats that Redis has are copied to the byte, caps included.
"""

from __future__ import annotations

from typing import ClassVar

MAX_REPLY = 1024
"""Bytes of one error reply that rproxy writes, its CRLF not counted."""

QUOTE_CAP = 128
"""Bytes that Redis quotes of a command's name, and of all its arguments together."""


class RproxyError(Exception):
    """Whatever rproxy raises on purpose."""


# -- you --


class UsageError(RproxyError):
    """What was asked for cannot be done, whatever the cluster does."""


class ConfigError(UsageError):
    """A configuration that cannot be used; the message names the field: `log.level: ...`."""


class AddressError(UsageError):
    """A text that names no address."""


# -- the node said so --


class ReplyError(RproxyError):
    """An error reply. `code` is its first word, `WRONGTYPE` for example, or `ERR`."""

    by_code: ClassVar[dict[str, type[ReplyError]]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]

    @classmethod
    def of(cls, text: str) -> ReplyError:
        """The error for a reply's text (no `-`, no CRLF); its first word picks the class."""
        return cls.by_code.get(text.partition(" ")[0], ReplyError)(text)


class AuthRefused(ReplyError):
    """No user, a wrong password, or a user without the right to this."""


class CrossSlot(ReplyError):
    """The keys of one command lie in several slots."""


class NotReady(ReplyError):
    """The node or the cluster cannot serve this now; nothing was executed, a later try may be."""


class Redirected(ReplyError):
    """Another node owns the slot, and the limit of redirections was reached."""


class NoScript(ReplyError):
    """The node does not know the script; EVAL teaches it."""


class TransactionRefused(ReplyError):
    """EXEC was given up because of an earlier error; nothing was executed."""


class WrongType(ReplyError):
    """The key holds another kind of value."""


ReplyError.by_code.update(
    {
        "ASK": Redirected,
        "CLUSTERDOWN": NotReady,
        "CROSSSLOT": CrossSlot,
        "EXECABORT": TransactionRefused,
        "LOADING": NotReady,
        "MASTERDOWN": NotReady,
        "MOVED": Redirected,
        "NOAUTH": AuthRefused,
        "NOPERM": AuthRefused,
        "NOSCRIPT": NoScript,
        "READONLY": NotReady,
        "TRYAGAIN": NotReady,
        "WRONGPASS": AuthRefused,
        "WRONGTYPE": WrongType,
    }
)


# -- the way there --


class NetworkError(RproxyError):
    """The node could not be asked, or its answer did not come."""


class ConnectFailed(NetworkError):
    """No connection was made; nothing was sent."""


class LinkLost(NetworkError):
    """The connection ended; what was under way may have been executed."""


class DeadlinePassed(NetworkError):
    """The answer did not come in time."""


class ProtocolBroken(NetworkError):
    """The peer sent bytes or a reply that make no sense; the connection is not trusted any more."""


class HandshakeRefused(NetworkError):
    """The node refused the connection's first commands; the message never holds a password."""


class NoSeedAnswers(NetworkError):
    """None of the configured seeds answers."""


# -- error replies --

_NO_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def reply(text: str | bytes) -> bytes:
    """The error reply that says `text`: one line, bounded, whatever the text quotes."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return b"-" + raw[:MAX_REPLY].translate(_NO_LINE_ENDS) + b"\r\n"


CROSS_SLOT = reply("CROSSSLOT Keys in request don't hash to the same slot")
TAIL_TOO_LONG = reply(
    "ERR the last argument is too long to be sent with every piece; nothing was executed"
)
NO_PLACES = reply(
    "ERR rproxy cannot tell which arguments are keys, and some may be pinned; nothing was executed"
)
SCATTERED_KEYS = reply("ERR keys at too many places of one command; nothing was executed")
NESTED_MULTI = reply("ERR MULTI calls can not be nested")
WATCH_INSIDE = reply("ERR WATCH inside MULTI is not allowed")
EXEC_OUTSIDE = reply("ERR EXEC without MULTI")
DISCARD_OUTSIDE = reply("ERR DISCARD without MULTI")
NOT_IN_MULTI = reply("ERR Command not allowed inside a transaction")
EXEC_ABORTED = reply("EXECABORT Transaction discarded because of previous errors.")
MAX_LEASED = reply(
    "ERR max number of links for transactions and blocked clients reached (upstream.max_leased); "
    "nothing was executed"
)
LARGE_TRANSACTION = reply("ERR the transaction is too large (clients.transaction_limit)")
MAX_BLOCKED = reply("ERR max number of blocked clients reached (clients.max_blocked)")
AUTH_NEEDED = reply("NOAUTH Authentication required.")
MAX_CLIENTS = reply("ERR max number of clients reached")
MAY_HAVE_RUN = reply("ERR upstream connection lost; the command may have been executed")
WRONG_PASSWORD = reply("WRONGPASS invalid username-password pair or user is disabled.")
NO_PASSWORD_SET = reply(
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
HELLO_NEEDS_AUTH = reply(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the "
    "HELLO AUTH <user> <pass> option can be used to authenticate the client and select "
    "the RESP protocol version at the same time"
)
NOT_A_VERSION = reply("ERR Protocol version is not an integer or out of range")
UNSUPPORTED_VERSION = reply("NOPROTO unsupported protocol version")
BAD_CLIENT_NAME = reply("ERR Client names cannot contain spaces, newlines or special characters.")
SYNTAX_ERROR = reply("ERR syntax error")
NOT_AN_INTEGER = reply("ERR value is not an integer or out of range")

MONITOR_ONLY = reply("ERR Replica can't interact with the keyspace")
NOT_SUBSCRIBED = reply(
    "CLUSTERDOWN no node has confirmed the subscription within upstream.hold_time; "
    "nothing was subscribed"
)


def uncovered_reply() -> bytes:
    """No node owns the slot."""
    return reply("CLUSTERDOWN Hash slot not served; the command was not executed")


def unreachable_reply(node: str) -> bytes:
    """The slot's owner could not be reached for as long as commands may wait."""
    return reply(f"CLUSTERDOWN {node} cannot be reached; the command was not executed")


def keys_untold_reply(error: str) -> bytes:
    """Servers were asked where a command's keys are, in vain; `error` is what they said."""
    return reply(f"{error} (asked where the command's keys are; it was not executed)")


def overfull_reply(node: str) -> bytes:
    """Too many bytes of commands wait for a node that is not ready."""
    return reply(
        f"CLUSTERDOWN too many commands wait for {node} (upstream.hold_bytes); "
        "the command was not executed"
    )


def partial_reply(error: bytes, node: str, done: int, asked: int) -> bytes:
    """A node's error to a command for several nodes, with its name and what the others did."""
    text = error.strip()[1:] if error[:1] == b"-" else error.partition(b"\r\n")[2].strip()
    return reply(b"%b (at %b; %d of %d nodes succeeded)" % (text, node.encode(), done, asked))


def late_reply(was_written: bool) -> bytes:
    """The command's deadline has passed; `was_written` tells whether a byte of it has left."""
    outcome = "may have been executed" if was_written else "was not executed"
    return reply(f"ERR no reply within upstream.command_timeout; the command {outcome}")


def not_served_reply(name: str | bytes, reason: str) -> bytes:
    """This stage of rproxy has no place for the command; `reason` says what kind it is.

    >>> not_served_reply("blpop", "blocking commands need a connection of their own")
    b"-ERR rproxy does not serve 'blpop' yet: blocking commands need a connection of their
    own\\r\\n"
    """
    return reply(b"ERR rproxy does not serve '%s' yet: %s" % (_quoted(name), reason.encode()))


def not_in_multi_reply(name: str, reason: str) -> bytes:
    """A command that rproxy cannot have queued; the transaction is flagged."""
    return reply(
        b"ERR rproxy does not serve '%s' inside a transaction: %s"
        % (_quoted(name), reason.encode())
    )


def subscriber_only_reply(name: str) -> bytes:
    """Redis's text for what a subscriber of RESP2 may not send."""
    return reply(
        f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
        "are allowed in this context"
    )


def too_many_reply(option: str) -> bytes:
    """One client wants more subscriptions than the option allows."""
    return reply(f"ERR too many subscriptions of one client ({option}); nothing was subscribed")


def pubsub_syntax_reply(subcommand: bytes) -> bytes:
    """Redis's text for arguments that a subcommand of PUBSUB does not have."""
    return reply(
        b"ERR unknown subcommand or wrong number of arguments for '%s'. Try PUBSUB HELP."
        % _quoted(subcommand)
    )


def admin_reply(name: str) -> bytes:
    """A command that administers servers, which the configuration does not allow."""
    return reply(
        b"ERR rproxy refuses '%s': it administers servers; admin_commands = \"allow\" permits it"
        % _quoted(name)
    )


def own_setting_reply(name: bytes) -> bytes:
    """CONFIG SET of what is rproxy's: Redis's text, with where to set it."""
    return reply(
        b"ERR CONFIG SET failed (possibly related to argument '%s') - "
        b"it is set in rproxy's configuration" % _quoted(name)
    )


def denied_reply(name: str) -> bytes:
    """Redis's text for a command that the user has no right to."""
    return reply(f"NOPERM this user has no permissions to run the '{name}' command")


def unknown_command_reply(argv: list[bytes]) -> bytes:
    """Redis's text for a command that there is not; it quotes up to 128 bytes of arguments."""
    quoted = b""
    for word in argv[1:]:
        if len(quoted) >= QUOTE_CAP:
            break
        quoted += b"'%s' " % _quoted(word, QUOTE_CAP - len(quoted))
    return reply(
        b"ERR unknown command '%s', with args beginning with: %s" % (_quoted(argv[0]), quoted)
    )


def hello_option_reply(option: bytes) -> bytes:
    """HELLO has no such option, or it lacks its arguments."""
    return reply(b"ERR Syntax error in HELLO option '%s'" % _quoted(option))


def wrong_arity_reply(name: str | bytes) -> bytes:
    """Redis's text for a wrong number of arguments; a subcommand is named `client|setname`."""
    return reply(b"ERR wrong number of arguments for '%s' command" % _quoted(name))


def unknown_subcommand_reply(name: bytes, subcommand: bytes) -> bytes:
    """Redis 7's text for a subcommand that its command does not have."""
    return reply(
        b"ERR unknown subcommand '%s'. Try %s HELP." % (_quoted(subcommand), _quoted(name).upper())
    )


def subcommand_arity_reply(name: bytes, subcommand: bytes) -> bytes:
    """Redis's text of subcommands that count their arguments themselves."""
    return reply(
        b"ERR unknown subcommand or wrong number of arguments for '%s'. Try %s HELP."
        % (_quoted(subcommand), _quoted(name).upper())
    )


def _quoted(text: str | bytes, cap: int = QUOTE_CAP) -> bytes:
    # Redis prints with %.128s, which ends at a NUL.
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return raw.partition(b"\0")[0][:cap]
