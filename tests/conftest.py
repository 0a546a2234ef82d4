"""What all tests share: options, the mark `live`, and clusters.

Tests in tests/live run against real servers and carry the mark `live` without saying so: `pytest
-m 'not live'` is the quick run. `--server=PATH` picks the server program (default: the one that
`rproxy demo` would use), `--backend=docker` runs the nodes as containers instead
(the equals sign matters: pytest takes a word of its own for a folder).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings

from rproxy import demo_servers
from rproxy.demo import LocalCluster
from rproxy.errors import UsageError

# The same examples each time, and no deadline: machines that run tests are slow at times.
settings.register_profile("rproxy", derandomize=True, deadline=None)
settings.load_profile("rproxy")

LIVE = Path(__file__).parent / "live"


class ClusterMaker(Protocol):
    """LocalCluster's arguments -> a cluster of the chosen backend and server, not started."""

    def __call__(self, masters: int = 3, replicas: int = 1, **options: Any) -> LocalCluster: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("process", "docker"),
        default="process",
        help="What the nodes of live tests are: processes (default) or containers.",
    )
    parser.addoption(
        "--server",
        type=lambda text: Path(text).absolute(),
        help="The redis-server or valkey-server program of live tests.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(LIVE):
            item.add_marker("live")


@pytest.fixture(scope="session")
def new_cluster(request: pytest.FixtureRequest) -> ClusterMaker:
    """Makes clusters that a test starts, breaks and stops itself: `with new_cluster() as c:`."""
    if request.config.getoption("backend") == "docker":
        return _container_maker()
    try:
        server = request.config.getoption("server") or demo_servers.find_server()
    except UsageError as error:
        pytest.skip(str(error))

    def make(masters: int = 3, replicas: int = 1, **options: Any) -> LocalCluster:
        return LocalCluster(masters, replicas, **{"server": server, **options})

    return make


def _container_maker() -> ClusterMaker:
    pytest.importorskip("testcontainers", reason="testcontainers is not installed")
    # Not at the top: it needs what the line above looks for.
    from tests import containers

    if reason := containers.why_not():
        pytest.skip(reason)

    def make(masters: int = 3, replicas: int = 1, **options: Any) -> LocalCluster:
        given = {**options, "server": containers.SERVER}
        return containers.ContainerCluster(masters, replicas, **given)

    return make


@pytest.fixture(scope="session")
def cluster(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """The cluster that live tests share: three masters, three replicas. Leave it as it was."""
    with new_cluster(masters=3, replicas=1) as shared:
        yield shared


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that returns a free loopback port."""
    return demo_servers.free_port
