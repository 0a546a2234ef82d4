"""From the TLS options to a context, or to an error that names the option."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec
import pytest

from rproxy.config import Tls
from rproxy.errors import ConfigError
from rproxy.upstream.tls import context


def _tls(name: str, path: str) -> Tls:
    return msgspec.structs.replace(Tls(enabled=True), **{name: path})


def test_without_tls_there_is_no_context() -> None:
    assert context(Tls()) is None


def test_certificates_and_names_are_verified() -> None:
    made = context(Tls(enabled=True))
    assert made is not None
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_verification_can_be_switched_off() -> None:
    made = context(Tls(enabled=True, verify=False))
    assert made is not None
    assert made.verify_mode is ssl.CERT_NONE
    assert not made.check_hostname


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=f"^upstream.tls.{name}: no such file: .*none.pem$"):
        context(_tls(name, path))


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_directory_is_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^upstream.tls.{name}: Is a directory"):
        context(_tls(name, str(tmp_path)))


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_with_something_else_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    path.write_text("no certificate")
    with pytest.raises(ConfigError, match=f"^upstream.tls.{name}: "):
        context(_tls(name, str(path)))
