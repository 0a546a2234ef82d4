"""Nodes that ask for a password or speak TLS, and what is said where rproxy has not what it takes.

The certificates are made by the openssl program: an authority, a certificate for the nodes and one
for rproxy, and an authority that signed neither.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rproxy.demo import LocalCluster
from rproxy.demo_servers import TlsFiles, wait_until
from rproxy.errors import RproxyError
from tests.conftest import ClusterMaker
from tests.live.proxies import Proxy, running

PATIENCE = 30.0
"""Seconds: what is waited for takes a fraction of it."""
PASSWORD, WRONG = "node word", "other word"
USER = "proxy-user"
HOLD = 'upstream.hold_time = "300ms"\n'
"""What cannot be served is answered soon."""


def serves(proxy: Proxy) -> None:
    """Keys on all nodes, one after the other and split, a large value, both protocol versions;
    subscriptions, which have connections of their own.
    """
    for protocol in (2, 3):
        with proxy.client(protocol) as client:
            keys = [f"access:{number}" for number in range(300)]
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.set(key, key).get(key)
                assert pipe.execute() == [x for key in keys for x in (True, key.encode())]
            assert client.mget(keys) == [key.encode() for key in keys]
            large = bytes(range(256)) * (3 << 12)
            assert client.set("access:large", large)
            assert client.get("access:large") == large
            assert client.delete("access:large", *keys) == 301
    with proxy.connect() as wire:
        assert wire.ask(b"PSUBSCRIBE", b"*").endswith(b":1\r\n")
        assert proxy.client().publish("access", large) == 1
        assert wire.reply().endswith(large + b"\r\n")


def refuses(proxy: Proxy, *words: str) -> str:
    """Commands get an error; the log has all the words. All that could be read, in one text."""
    with proxy.connect() as wire:
        replies = wire.ask(b"GET", b"a") + wire.ask(b"MGET", b"a", b"b")
    assert replies.count(b"-CLUSTERDOWN ") == 2
    wait_until(lambda: all(word in proxy.text() for word in words), PATIENCE, f"{words} in the log")
    return proxy.text() + replies.decode()


# -- passwords --


@pytest.fixture(scope="module")
def guarded(new_cluster: ClusterMaker) -> Iterator[LocalCluster]:
    """Nodes with a password, and a user of another name with the same password."""
    with new_cluster(masters=3, replicas=0, password=PASSWORD) as cluster:
        for node in cluster.nodes:
            words = (USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
            assert node.call("ACL", "SETUSER", *words) == b"OK"
        yield cluster


def test_password_of_the_file(guarded: LocalCluster) -> None:
    with running(guarded, config=f'upstream.password = "{PASSWORD}"') as proxy:
        serves(proxy)
        assert PASSWORD not in proxy.text()


def test_user_and_password_of_the_environment(guarded: LocalCluster) -> None:
    given = {"RPROXY_UPSTREAM_USERNAME": USER, "RPROXY_UPSTREAM_PASSWORD": PASSWORD}
    with running(guarded, "--log-level", "debug", **given) as proxy:
        serves(proxy)
        users = {
            line.split(" user=")[1].split()[0]
            for node in guarded.nodes
            for line in node.call("CLIENT", "LIST").decode().splitlines()
            if " name=rproxy " in line
        }
        assert users == {USER}
        assert PASSWORD not in proxy.text()


@pytest.mark.parametrize("user", ["", USER])
def test_wrong_password(guarded: LocalCluster, user: str) -> None:
    config = HOLD + f'upstream.password = "{WRONG}"\nupstream.username = "{user}"\n'
    with running(guarded, "--log-level", "debug", config=config) as proxy:
        said = refuses(proxy, "refused our user name and password", "no seed answers")
        assert WRONG not in said


def test_missing_password(guarded: LocalCluster) -> None:
    with running(guarded, config=HOLD) as proxy:
        refuses(proxy, "NOAUTH", "no seed answers")


def test_needless_password(cluster: LocalCluster) -> None:
    with running(cluster, config=HOLD + f'upstream.password = "{WRONG}"') as proxy:
        assert WRONG not in refuses(proxy, "refused", "no seed answers")


# -- TLS --


class Authority:
    """Signs certificates; its own is in `file`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self.file, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        self._openssl("req", "-x509", *_key(self._key), "-subj", f"/CN={name}", "-out", self.file)

    def issue(self, name: str, *places: str) -> TlsFiles:
        """A certificate for the places ("DNS:x", "IP:x"), and its key."""
        file, key = (self._directory / f"{name}.{end}" for end in ("pem", "key"))
        signed = ("-CA", self.file, "-CAkey", self._key)
        subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={','.join(places)}")
        self._openssl("req", "-x509", *_key(key), *subject, *signed, "-out", file)
        return TlsFiles(self.file, file, key)

    def _openssl(self, *words: str | Path) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)


def _key(file: Path) -> list[str | Path]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    return [*curve, "-keyout", file]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the nodes and of rproxy."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is not installed")
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def secure(new_cluster: ClusterMaker, authority: Authority) -> Iterator[LocalCluster]:
    """Nodes that speak TLS only, and want to see a certificate of the authority."""
    files = authority.issue("node", "IP:127.0.0.1", "DNS:nodes.test")
    cluster = new_cluster(masters=3, replicas=0, tls=files)
    try:
        cluster.start()
    except RproxyError as error:
        if "tls" not in str(error):
            raise
        pytest.skip("this server was built without TLS")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def own(authority: Authority) -> TlsFiles:
    """rproxy's certificate."""
    return authority.issue("proxy", "DNS:proxy.test")


def tls_config(own: TlsFiles | None, ca: Path, **more: str) -> str:
    """A configuration for TLS links."""
    options = {"enabled": "true", "ca_file": f'"{ca}"', **more}
    if own is not None:
        options |= {"cert_file": f'"{own.certificate}"', "key_file": f'"{own.key}"'}
    lines = [f"upstream.tls.{name} = {value}\n" for name, value in options.items()]
    return "".join(lines)


def test_tls(secure: LocalCluster, own: TlsFiles) -> None:
    with running(secure, config=tls_config(own, own.ca)) as proxy:
        serves(proxy)
        slot = 0
        home, *others = [secure.slot_owner(slot), *secure.nodes[1:]]
        secure.migrate_slot(slot, others[0].port)
        serves(proxy)
        secure.migrate_slot(slot, home.port)


def test_name_to_verify(secure: LocalCluster, own: TlsFiles) -> None:
    with running(secure, config=tls_config(own, own.ca, server_name='"nodes.test"')) as proxy:
        serves(proxy)
    with running(secure, config=HOLD + tls_config(own, own.ca, server_name='"else.test"')) as proxy:
        refuses(proxy, "Hostname mismatch", "no seed answers")


def test_unknown_authority(secure: LocalCluster, own: TlsFiles, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").file
    with running(secure, config=HOLD + tls_config(own, stranger)) as proxy:
        refuses(proxy, "certificate verify failed", "no seed answers")
    with running(secure, config=tls_config(own, stranger, verify="false")) as proxy:
        serves(proxy)


def test_node_wants_a_certificate(secure: LocalCluster, own: TlsFiles) -> None:
    with running(secure, config=HOLD + tls_config(None, own.ca)) as proxy:
        refuses(proxy, "certificate required", "no seed answers")


def test_only_one_side_speaks_tls(
    cluster: LocalCluster, secure: LocalCluster, own: TlsFiles
) -> None:
    with running(cluster, config=HOLD + tls_config(own, own.ca)) as proxy:
        refuses(proxy, "no seed answers")
    with running(secure, config=HOLD) as proxy:
        refuses(proxy, "no seed answers")
