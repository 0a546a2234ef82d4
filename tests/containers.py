"""Cluster nodes as containers: the interface of a server process, for `pytest --backend=docker`.

Strategy: each node is a container in the host's network, so ports, addresses and the whole of
LocalCluster stay as they are; only starting, halting and ending go through Docker. testcontainers
removes the containers of a test run that was killed.
"""

import gc
import os
import warnings
from pathlib import Path

from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from rproxy.demo import LocalCluster
from rproxy.demo_servers import NodeProcess

IMAGE = os.environ.get("RPROXY_TEST_IMAGE", "redis:7.4-alpine")
# Inside the image, found there on the PATH.
SERVER = Path("redis-server")


def why_not() -> str | None:
    """Why Docker cannot be used here, in one line; None where it can."""
    reason = None
    with warnings.catch_warnings():
        # Where it cannot connect, docker leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            DockerClient().client.ping()
        # Whatever the reason is, it is the answer; docker's own classes are not imported for it.
        except Exception as error:
            reason = f"Docker cannot be used: {error}"
        gc.collect()
    return reason


class ContainerNode(NodeProcess):
    """A node whose server runs in a container of its own."""

    # The container; kept, because testcontainers removes it when the object goes.
    _holder: DockerContainer | None = None

    @property
    def alive(self) -> bool:
        if self._holder is None:
            return False
        container = self._holder.get_wrapped_container()
        container.reload()
        return container.status in ("running", "paused")

    def start(self) -> None:
        if self._holder is None:
            self._holder = DockerContainer(IMAGE).with_kwargs(network_mode="host")
            self._holder.with_command([str(self._server), *self._options]).start()
        else:
            self._holder.get_wrapped_container().start()

    def stop(self) -> None:
        if self._holder is not None:
            self._holder.get_wrapped_container().stop(timeout=5)

    def kill(self) -> None:
        if self._holder is not None and self.alive:
            self._holder.get_wrapped_container().kill()

    def freeze(self) -> None:
        if self._holder is not None:
            self._holder.get_wrapped_container().pause()

    def thaw(self) -> None:
        if self._holder is not None:
            self._holder.get_wrapped_container().unpause()

    def remove(self) -> None:
        """End the container and forget it."""
        if self._holder is not None:
            self._holder.stop()
            self._holder = None

    def _last_words(self) -> str:
        return "see docker logs"


class ContainerCluster(LocalCluster):
    """A LocalCluster of containers."""

    node_type = ContainerNode

    def stop(self) -> None:
        for node in self.nodes:
            if isinstance(node, ContainerNode):
                node.remove()
        super().stop()
