"""Applications unmodified, on their defaults: first at a plain server, then through rproxy.

Each is a script in tests/live/apps that asserts what it expects; it gets a port. What it needs is
installed, in pinned versions, in environments of their own. Where rproxy has to be told something,
a file in conf/ says it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rproxy.config import check
from rproxy.demo import LocalCluster
from tests.live.plain import Plain
from tests.live.proxies import running

HERE = Path(__file__).parent / "apps"
CONF = Path(__file__).parents[2] / "conf"
PATIENCE = 120.0
"""Seconds that an installation or an application may take."""

OLDER = ("arq==0.28.0", "redis==5.3.1")
"""arq does not take a newer redis-py."""
NEWER = (
    "aiocache==0.12.3",
    "celery==5.7.0",
    "Django==5.2.19",
    "django-redis==7.0.0",
    "dramatiq==2.2.1",
    "limits==5.8.0",
    "redis==8.1.0",
    "rq==3.0.0",
)
NODE = ("bullmq@5.81.5",)


class App(NamedTuple):
    """One application."""

    script: str
    """In tests/live/apps."""

    needs: tuple[str, ...]
    """The packages that it runs with."""

    conf: str = ""
    """The file in conf/ that rproxy needs for it."""


APPS = (
    App("redis_py.py", NEWER),
    App("redis_py_cache.py", NEWER),
    App("limits_windows.py", NEWER),
    App("bullmq_jobs.js", NODE),
    App("aiocache_cache.py", NEWER, "caches.toml"),
    App("django_cache.py", NEWER, "caches.toml"),
    App("arq_jobs.py", OLDER, "arq.toml"),
    App("rq_jobs.py", NEWER, "rq.toml"),
    App("celery_tasks.py", NEWER, "celery.toml"),
    App("dramatiq_actors.py", NEWER, "dramatiq.toml"),
)

Command = Callable[[App], list[str]]


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, ...], Path]]:
    """Packages -> where they are installed; filled when they are wanted."""
    found: dict[tuple[str, ...], Path] = {}
    yield found
    for place in found.values():
        shutil.rmtree(place)


@pytest.fixture
def command(
    places: dict[tuple[str, ...], Path], tmp_path_factory: pytest.TempPathFactory
) -> Command:
    """How to start an application."""

    def find(app: App) -> list[str]:
        if app.needs not in places:
            place = places[app.needs] = tmp_path_factory.mktemp("apps")
            (install_node if app.needs is NODE else install)(place, app.needs)
        place = places[app.needs]
        if app.needs is NODE:
            shutil.copy(HERE / app.script, place)
            return [tool("node"), str(place / app.script)]
        return [str(place / "bin" / "python"), "-W", "ignore", str(HERE / app.script)]

    return find


def tool(name: str) -> str:
    """Where the program is; skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def install(place: Path, packages: tuple[str, ...]) -> None:
    """A virtual environment with the packages in it."""
    venv.create(place, with_pip=True)
    done([str(place / "bin" / "python"), "-m", "pip", "install", "-q", *packages], place)


def install_node(place: Path, packages: tuple[str, ...]) -> None:
    """A directory with the Node.js packages in it."""
    tool("node")
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    done([tool("npm"), "install", *quiet, *packages], place)


def done(words: list[str], place: Path) -> None:
    """Run an installation; skips the test where the packages cannot be had."""
    ended = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=PATIENCE)
    if ended.returncode:
        pytest.skip(f"cannot be installed here: {ended.stderr[-300:]}")


def use(words: list[str], port: int) -> None:
    """Run the application to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [*words, str(port)],
        cwd=HERE,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.script)
def test_application(cluster: LocalCluster, plain: Plain, command: Command, app: App) -> None:
    words = command(app)
    with plain.connect() as wire:
        wire.ask(b"FLUSHALL")
    use(words, plain.port)
    config = (CONF / app.conf).read_text() if app.conf else ""
    with running(cluster, config=config) as proxy:
        with proxy.client() as client:
            client.flushall()
        use(words, proxy.port)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.toml")), ids=lambda file: file.name)
def test_files_in_conf_want_nothing_but_seeds(file: Path) -> None:
    (problem,) = check(file, {})
    assert "seeds: name at least one node" in problem


def test_every_script_is_run() -> None:
    scripts = {file.name for file in HERE.iterdir() if file.suffix in (".py", ".js")}
    assert scripts == {app.script for app in APPS}
