"""The proxy that live tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rproxy.demo import LocalCluster
from tests.live.proxies import Proxy, running


@pytest.fixture(scope="session")
def proxy(cluster: LocalCluster) -> Iterator[Proxy]:
    """A proxy with its defaults in front of the shared cluster."""
    with running(cluster) as shared:
        yield shared
