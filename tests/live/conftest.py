"""The proxy that live tests share, and a plain server to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import find_server
from tests.conftest import ClusterMaker
from tests.live.plain import Plain, plain_server
from tests.live.proxies import Proxy, running


@pytest.fixture(scope="session")
def proxy(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy with its defaults in front of the shared cluster."""
    with running(cluster) as shared:
        yield shared


@pytest.fixture(scope="session")
def program(cluster: LocalCluster) -> Path:
    """The server that the shared cluster's nodes run."""
    return cluster.server or find_server()


@pytest.fixture(scope="session")
def plain(program: Path) -> Iterator[Plain]:
    """A plain server of the same version: the judge."""
    with plain_server(program) as shared:
        yield shared


@pytest.fixture(scope="module")
def own(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """A cluster whose slots the tests of a module move, and whose nodes change roles."""
    with new_cluster(masters=3, replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def front(own: LocalCluster) -> Iterator[Proxy]:
    """A proxy in front of it."""
    with running(own) as proxy:
        yield proxy


@pytest.fixture
def modern(cluster: LocalCluster) -> None:
    """For tests of what servers have, or say so, since 7.0: skips those of older ones."""
    about = cluster.nodes[0].call("INFO", "server").decode()
    version = about.partition("redis_version:")[2].partition(".")[0]
    if int(version) < 7:
        pytest.skip("needs a server of version 7.0 or newer")
