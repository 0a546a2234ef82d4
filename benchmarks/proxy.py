"""rproxy beside other proxies: processor time a command, throughput and latency, in one run.

    python benchmarks/proxy.py                      # everything that is on this machine
    python benchmarks/proxy.py --quick              # does it run? The numbers mean little
    python benchmarks/proxy.py --cases get,get-p16 --targets rproxy,haproxy --json result.json

Strategy: all targets run at once and take turns, case by case and round by round, each round
beginning with another one, so that a change of the machine's mood meets all of them. What is
printed are medians over the rounds. The first short run of a case at a target finds its speed, so
that measured runs last equally long; it is not counted.

A proxy that this file does not know takes part with --peer: start a cluster (`rproxy demo` does),
put the proxy in front of it, and name both here:

    python benchmarks/proxy.py --cluster 127.0.0.1:7000 --peer predixy=127.0.0.1:7617:4711
"""

import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import rproxy
from load import CASES, GET, SET, Case, Run, Sample, find_load, measure
from rproxy.demo_servers import find_server, server_version
from rproxy.errors import RproxyError
from targets import STARTERS, Missing, Stage, Target, find_program, parse_peer, staged

OURS = "rproxy"
# By pipeline: what rproxy's processor time for a GET or SET may be, as a multiple of a peer's.
GOALS = {
    "envoy": {1: 0.65, 16: 0.35, 100: 0.25},
    "predixy": {1: 1.0, 16: 0.8, 100: 0.75},
    "haproxy": {1: 1.0, 16: 1.3},
}
# The same for an MGET of ten keys, as a multiple of a GET.
MGET_GOAL = 3.0
# Commands of the short run that finds a target's speed, at least.
TRIAL = 1000

# Medians of a case at each target that took part, by the target's name.
Medians = dict[str, Sample]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="Runs of each case at each target.")
@click.option("--seconds", default=1.5, show_default=True, help="How long one run lasts.")
@click.option("--quick", is_flag=True, help="One round of short runs, to see that it works.")
@click.option("--cases", help=f"Only these: {','.join(case.name for case in CASES)}.")
@click.option("--targets", help=f"Only these: {','.join(STARTERS)}; peers always.")
@click.option("--peer", "peers", multiple=True, help="NAME=HOST:PORT:PID; repeatable.")
@click.option("--cluster", metavar="HOST:PORT", help="Use the cluster with this node.")
@click.option("--threads", default=1, show_default=True, help="Threads of redis-benchmark.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the results here.")
def main(
    rounds: int,
    seconds: float,
    quick: bool,
    cases: str | None,
    targets: str | None,
    peers: tuple[str, ...],
    cluster: str | None,
    threads: int,
    output: Path | None,
) -> None:
    """Compare rproxy with the proxies that are on this machine."""
    if quick:
        rounds, seconds = 1, 0.2
    try:
        chosen = [case for case in CASES if is_chosen(case.name, cases)]
        told = conditions() | {"rounds": rounds, "seconds": seconds, "load threads": threads}
        with staged(cluster) as stage:
            taking_part = start_targets(stage, targets, peers)
            show_conditions(told)
            samples = measure_all(chosen, taking_part, rounds, seconds, threads)
    except RproxyError as error:
        raise click.ClickException(str(error)) from error
    results = {case.name: medians_of(case, samples) for case in chosen}
    show_results(chosen, results)
    if output:
        output.write_text(json.dumps(report(told, results, samples), indent=1))


def is_chosen(name: str, filter_text: str | None) -> bool:
    """Whether a name is in a comma-separated list; everything is in no list."""
    return filter_text is None or name in filter_text.split(",")


def start_targets(stage: Stage, names: str | None, peers: Sequence[str]) -> list[Target]:
    """Start what was asked for; a peer that is not installed is told and left out."""
    found = []
    for name, start in STARTERS.items():
        if is_chosen(name, names):
            try:
                found.append(start(stage))
            except Missing as error:
                click.echo(f"{name} does not take part: {error}", err=True)
    return found + [parse_peer(text) for text in peers]


# Measuring


def measure_all(
    cases: Sequence[Case], targets: Sequence[Target], rounds: int, seconds: float, threads: int
) -> dict[tuple[str, str], list[Sample]]:
    """Samples by case and target; targets take turns, and each round begins with another one."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    counts: dict[tuple[str, str], int] = {}
    with Console(stderr=True).status("") as status:
        for number, case, target in turns(cases, targets, rounds):
            status.update(f"round {number + 1} of {rounds}: {case.name} at {target.name}")
            run = Run(target.host, target.port, target.pids, threads)
            key = case.name, target.name
            if key not in counts:
                counts[key] = requests_for(case, run, seconds)
            samples.setdefault(key, []).append(measure(case, run, counts[key]))
    return samples


def turns(
    cases: Sequence[Case], targets: Sequence[Target], rounds: int
) -> Iterator[tuple[int, Case, Target]]:
    """The order of the runs."""
    for number, case in itertools.product(range(rounds), cases):
        first = number % len(targets)
        for target in (*targets[first:], *targets[:first]):
            if target.cases is None or case.name in target.cases:
                yield number, case, target


def requests_for(case: Case, run: Run, seconds: float) -> int:
    """How many commands keep this target busy for that long."""
    at_once = case.connections * case.pipeline
    trial = measure(case, run, max(TRIAL, 4 * at_once))
    return max(TRIAL, round(trial.rate * seconds / at_once) * at_once)


def medians_of(case: Case, samples: dict[tuple[str, str], list[Sample]]) -> Medians:
    """The median of each number, by target."""
    found: Medians = {}
    for (name, target), runs in samples.items():
        if name == case.name:
            columns = zip(*[asdict(run).values() for run in runs], strict=True)
            found[target] = Sample(*map(median, columns))
    return found


# Telling


def conditions() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "processor": f"{os.cpu_count()} x {processor()}",
        "system": platform.platform(),
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "uvloop": installed("uvloop"),
        "rproxy": rproxy.__version__,
        "server": server_version(find_server()),
        "redis-benchmark": first_line(find_load(), "--version"),
        "haproxy": first_line("haproxy", "-v"),
        "envoy": first_line("envoy", "--version"),
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def installed(package: str) -> str:
    """A package's version, "-" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def first_line(program: str, option: str) -> str:
    """What a program says of its version, "-" where it is not installed."""
    try:
        done = subprocess.run([find_program(program), option], capture_output=True, text=True)
    except Missing:
        return "-"
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "?")


def show_conditions(told: dict[str, Any]) -> None:
    """One line a condition."""
    for name, value in told.items():
        click.echo(f"{name + ':':17}{value}")
    click.echo()


def show_results(cases: Sequence[Case], results: dict[str, Medians]) -> None:
    """The table, then what compares two lines of it."""
    titles = ("case", "target", "CPU us", "rproxy/it", "goal", "req/s", "p50 ms", "p99 ms")
    table = Table(*titles, title="medians; CPU is the proxy's, for one command")
    for column in table.columns[2:]:
        column.justify = "right"
    for case in cases:
        for target, sample in results[case.name].items():
            table.add_row(*cells(case, target, sample, results[case.name].get(OURS)))
        table.add_section()
    Console(width=100).print(table)
    for line in comparisons(results):
        click.echo(line)


def cells(case: Case, target: str, sample: Sample, ours: Sample | None) -> list[str]:
    """One line of the table."""
    ratio = ours.cpu_us / sample.cpu_us if ours and sample.cpu_us else None
    allowed = goal(case, target)
    return [
        case.name,
        target,
        f"{sample.cpu_us:.2f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if allowed is None else f"{allowed:.2f}",
        f"{sample.rate:,.0f}",
        f"{sample.p50_ms:.3f}",
        f"{sample.p99_ms:.3f}",
    ]


def goal(case: Case, target: str) -> float | None:
    """The most that rproxy/target may be in this case; None where nothing was promised."""
    if case.command not in (GET, SET) or case.connections != 50:
        return None
    return GOALS.get(target, {}).get(case.pipeline)


def comparisons(results: dict[str, Medians]) -> Iterator[str]:
    """Ratios between two cases, or of latencies."""
    one, ten = (results.get(name, {}).get(OURS) for name in ("get", "mget10"))
    if one and ten and one.cpu_us:
        ratio = ten.cpu_us / one.cpu_us
        yield f"MGET of 10 keys: {ratio:.2f} times the CPU of a GET (goal {MGET_GOAL:g})"
    alone = results.get("get-c1", {})
    for target, sample in alone.items():
        if OURS in alone and target != OURS and sample.p50_ms:
            ratio = alone[OURS].p50_ms / sample.p50_ms
            yield f"p50 with one connection: {ratio:.2f} times that of {target}"
    for name, medians in results.items():
        two = medians.get(f"{OURS}-2w")
        if two and OURS in medians:
            ratio = two.rate / medians[OURS].rate
            yield f"two workers, {name}: {ratio:.2f} times the throughput of one"


def report(
    told: dict[str, Any],
    results: dict[str, Medians],
    samples: dict[tuple[str, str], list[Sample]],
) -> dict[str, Any]:
    """Everything, for --json: microseconds, commands a second, milliseconds."""
    rows = [
        {
            "case": case,
            "target": target,
            **asdict(sample),
            "rounds": [asdict(run) for run in samples[case, target]],
        }
        for case, medians in results.items()
        for target, sample in medians.items()
    ]
    return {"conditions": told, "results": rows}


if __name__ == "__main__":
    main()
