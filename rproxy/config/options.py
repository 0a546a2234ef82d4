"""Every option: its type, default, meaning, and whether it can change while rproxy runs.

The structs are frozen: a new configuration replaces the old one whole. What stands beside each
field is all there is to know about the option: `--help` and the check of a file read it from here,
and a test holds conf/rproxy.toml to it. "Live" options are read anew wherever they are used, or by
every connection that is made after the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec

from rproxy.config.values import (
    Address,
    Bytes,
    PinRule,
    Seconds,
    Secret,
    UnixPath,
    parse_command,
    parse_listen,
    parse_pin,
)


class Option(NamedTuple):
    """What is written beside a field."""

    meaning: str
    """One sentence for operators."""

    live: bool = True
    """Whether a reload can change it."""

    each: Callable[[object], object] | None = None
    """Makes one item of a list option; raises ValueError or AddressError."""


AtLeast1 = msgspec.Meta(ge=1)
AtLeast0 = msgspec.Meta(ge=0)
OctalMode = msgspec.Meta(pattern=r"^0?[0-7]{3}$")


class Clients(msgspec.Struct, frozen=True, kw_only=True):
    """Towards clients: who may connect, and how much of rproxy one of them may take."""

    password: Annotated[
        Secret,
        Option("Clients must AUTH with it; empty: RPROXY_PASSWORD, and without that no password."),
    ] = Secret()
    max_clients: Annotated[
        int, AtLeast1, Option("Clients connected at once to one worker; more are refused.")
    ] = 10000
    max_blocked: Annotated[
        int, AtLeast1, Option("Clients of one worker that wait in blocking commands at once.")
    ] = 5000
    idle_timeout: Annotated[
        Seconds, Option("A client that sends nothing for so long is closed; 0: never.")
    ] = Seconds(0)
    max_in_flight: Annotated[
        int,
        AtLeast1,
        Option("Commands of one client under way before no more are read from its socket."),
    ] = 1024
    pause_output: Annotated[
        Bytes, Option("While so many bytes of replies wait for a client, no more are read from it.")
    ] = Bytes(1 << 20)
    output_limit: Annotated[
        Bytes, Option("A client for which so many bytes of replies wait is dropped, that one only.")
    ] = Bytes(256 << 20)
    subscriber_limit: Annotated[
        Bytes,
        Option(
            "A subscriber or monitor for which so many bytes wait is dropped, that one only "
            "(Redis: client-output-buffer-limit pubsub)."
        ),
    ] = Bytes(32 << 20)
    subscriber_soft_limit: Annotated[
        Bytes, Option("The same where so many bytes have waited for subscriber_soft_time.")
    ] = Bytes(8 << 20)
    subscriber_soft_time: Annotated[
        Seconds, Option("How long a subscriber may be above subscriber_soft_limit.")
    ] = Seconds(60)
    max_subscriptions: Annotated[
        int, AtLeast1, Option("Channels and patterns that one client can be subscribed to.")
    ] = 10000
    subscription_bytes: Annotated[
        Bytes, Option("Bytes of the names of one client's channels and patterns.")
    ] = Bytes(16 << 20)
    tracking_keys: Annotated[
        int,
        AtLeast1,
        Option(
            "Keys that clients of one worker with CLIENT TRACKING may have cached; beyond that "
            "they are told to forget some (Redis: tracking-table-max-keys)."
        ),
    ] = 1000000
    tracking_bytes: Annotated[
        Bytes, Option("Bytes that those keys, and who has cached them, may take in rproxy.")
    ] = Bytes(512 << 20)
    request_limit: Annotated[Bytes, Option("Bytes of one whole request.")] = Bytes(1 << 30)
    transaction_limit: Annotated[
        Bytes, Option("Bytes of all the commands that one transaction may queue.")
    ] = Bytes(256 << 20)
    max_args: Annotated[
        int, AtLeast1, Option("Elements of one request, its name included (Redis: 2147483647).")
    ] = 1048576
    max_bulk: Annotated[
        Bytes, Option("Bytes of one element of a request (Redis: proto-max-bulk-len).")
    ] = Bytes(512 << 20)
    unix_permissions: Annotated[
        str, OctalMode, Option("Mode of Unix sockets, octal.", live=False)
    ] = "700"
    tcp_keepalive: Annotated[
        Seconds,
        Option("Silence after which the system probes whether a client is still there; 0: never."),
    ] = Seconds(300)
    backlog: Annotated[
        int, AtLeast1, Option("Connections that may wait to be accepted.", live=False)
    ] = 511


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS towards the nodes."""

    enabled: Annotated[bool, Option("Whether links to nodes use TLS.")] = False
    ca_file: Annotated[
        str, Option("PEM file of the authorities to trust; empty: those of the system.")
    ] = ""
    cert_file: Annotated[str, Option("PEM file of rproxy's own certificate; empty: none.")] = ""
    key_file: Annotated[
        str, Option("PEM file of that certificate's key; empty: it is in cert_file.")
    ] = ""
    server_name: Annotated[
        str, Option("Name to ask for (SNI) and to verify; empty: the node's host name.")
    ] = ""
    verify: Annotated[bool, Option("Whether certificates of nodes are verified.")] = True


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """Towards the nodes: how to log in, how long to wait, when to try again."""

    username: Annotated[
        str, Option("User to log in as; empty: RPROXY_UPSTREAM_USERNAME, else the default user.")
    ] = ""
    password: Annotated[
        Secret,
        Option("Password to log in with; empty: RPROXY_UPSTREAM_PASSWORD, else no login."),
    ] = Secret()
    connect_timeout: Annotated[Seconds, Option("Time to connect to a node and to log in.")] = (
        Seconds(2)
    )
    command_timeout: Annotated[
        Seconds,
        Option("Then the client gets an error; a reply that comes later is dropped; 0: never."),
    ] = Seconds(30)
    stall_timeout: Annotated[
        Seconds, Option("A link with commands under way is closed when no byte came for so long.")
    ] = Seconds(15)
    suspect_time: Annotated[
        Seconds,
        Option(
            "A link with commands under way that is silent for so long gets no more; they wait, "
            "and the cluster is asked whether another node has taken over."
        ),
    ] = Seconds(1)
    heartbeat: Annotated[Seconds, Option("A link without traffic for so long is sent a PING.")] = (
        Seconds(5)
    )
    hold_time: Annotated[
        Seconds, Option("How long commands wait while their slot moves or its node is away.")
    ] = Seconds(10)
    hold_bytes: Annotated[
        Bytes, Option("Bytes of commands that may wait for one node or slot.")
    ] = Bytes(64 << 20)
    max_redirects: Annotated[
        int,
        AtLeast1,
        Option("Redirections and retries of one command; then it gets the last error."),
    ] = 16
    retry_delay: Annotated[
        Seconds, Option("Back-off after TRYAGAIN, LOADING or CLUSTERDOWN; doubles, with jitter.")
    ] = Seconds(0.02)
    retry_delay_max: Annotated[Seconds, Option("The longest such back-off.")] = Seconds(0.5)
    reconnect_delay: Annotated[
        Seconds, Option("Back-off after a failed connection; doubles, with jitter.")
    ] = Seconds(0.05)
    reconnect_delay_max: Annotated[Seconds, Option("The longest such back-off.")] = Seconds(1)
    tcp_keepalive: Annotated[
        Seconds,
        Option("Silence after which the system probes whether a node is still there; 0: never."),
    ] = Seconds(60)
    script_cache: Annotated[
        Bytes,
        Option("Bytes of scripts remembered, to teach them to nodes that do not know them.", False),
    ] = Bytes(16 << 20)
    max_leased: Annotated[
        int,
        AtLeast1,
        Option("Links to one node that transactions and blocked clients of a worker may hold."),
    ] = 4000
    warm_links: Annotated[
        int, AtLeast0, Option("Links to one node that are kept open for the next of them.")
    ] = 16
    warm_time: Annotated[
        Seconds, Option("Such a link is closed when nobody took it for so long.")
    ] = Seconds(60)
    idle_transaction_timeout: Annotated[
        Seconds,
        Option("An idle transaction loses its link then; with WATCH, EXEC is nil; 0: never."),
    ] = Seconds(60)
    tls: Tls = Tls()


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """How the slot map is learnt."""

    refresh_interval: Annotated[
        Seconds, Option("Time between two looks at the cluster when nothing happens, with jitter.")
    ] = Seconds(60)
    min_interval: Annotated[
        Seconds, Option("Time between two looks at the cluster at least.", live=False)
    ] = Seconds(0.25)
    ask_nodes: Annotated[int, AtLeast1, Option("Nodes that are asked each time.")] = 3
    fetch_timeout: Annotated[Seconds, Option("Time for one node to answer.")] = Seconds(2)


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Option("The least severe level that is shown."),
    ] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration."""

    listen: Annotated[
        tuple[Address | UnixPath, ...],
        Option(
            'Where clients connect: "host:port", "[::1]:6380" or "unix:/path".', False, parse_listen
        ),
    ] = (Address("127.0.0.1", 6380),)
    seeds: Annotated[
        tuple[Address, ...],
        Option(
            'Nodes to learn the cluster from: "host:port", at least one. Names are looked up anew.',
            each=Address.parse,
        ),
    ] = ()
    workers: Annotated[int, AtLeast1, Option("Processes that share the listeners.", live=False)] = 1
    allow_open: Annotated[
        bool, Option("Whether others than this machine may connect without a password.", live=False)
    ] = False
    drain_timeout: Annotated[
        Seconds, Option("Time that clients have to finish when rproxy stops.")
    ] = Seconds(10)
    admin_commands: Annotated[
        Literal["refuse", "allow"],
        Option("Whether clients may use commands that change servers, such as CONFIG SET."),
    ] = "refuse"
    transactions: Annotated[
        Literal["one-slot", "per-slot"],
        Option("Whether a transaction may have keys of several slots: then each slot's is atomic."),
    ] = "one-slot"
    deny: Annotated[
        tuple[str, ...],
        Option('Commands that no client may use: "keys", "config|set".', False, parse_command),
    ] = ()
    rename: Annotated[
        dict[str, str],
        Option('Other names of commands: { flushall = "my-flushall" }; "": it is unknown.', False),
    ] = {}
    pin: Annotated[
        tuple[PinRule, ...],
        Option(
            'Keys that share one slot: { prefix = "arq:" }, or several prefixes and their "tag".',
            False,
            parse_pin,
        ),
    ] = ()
    cluster_emulation: Annotated[
        bool,
        Option("Whether CLUSTER tells of one node that owns all slots, for cluster clients."),
    ] = False
    clients: Clients = Clients()
    upstream: Upstream = Upstream()
    topology: Topology = Topology()
    log: Log = Log()


class Row(NamedTuple):
    """One option, for those who list or read them."""

    name: str
    """Full name: `upstream.tls.ca_file`."""

    type: Any
    """What it is, as msgspec understands it."""

    default: Any
    """Its value when nobody says anything."""

    option: Option
    """What is written beside it."""

    @property
    def default_text(self) -> str:
        """The default as a TOML file says it."""
        return as_toml(self.default)


def rows(table: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[Row]:
    """Every option of a table and of the tables in it, in the order of the file."""
    defaults = {
        field.name: field.default if field.default_factory is msgspec.NODEFAULT else {}
        for field in msgspec.structs.fields(table)
    }
    for name, kind in get_type_hints(table, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from rows(kind, f"{prefix}{name}.")
        else:
            option = next(mark for mark in kind.__metadata__ if isinstance(mark, Option))
            yield Row(prefix + name, kind, defaults[name], option)


def as_toml(value: object) -> str:
    """A value as a TOML file says it; a secret's text is never shown."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple) and not isinstance(value, (Address, UnixPath)):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{name} = {as_toml(item)}" for name, item in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    if isinstance(value, Secret):
        return '"***"' if value else '""'
    if isinstance(value, int) and not isinstance(value, Bytes):
        return str(value)
    return f'"{value}"'
