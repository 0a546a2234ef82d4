"""TLS towards the nodes: from options to an ssl.SSLContext."""

from __future__ import annotations

import ssl
from pathlib import Path

from rproxy.config import Tls
from rproxy.errors import ConfigError

_FILES = ("ca_file", "cert_file", "key_file")


def context(tls: Tls) -> ssl.SSLContext | None:
    """What links to nodes use, or None where they use no TLS.

    Raises ConfigError where a file is missing, unreadable or not what it should be; the message
    names the option.
    """
    if not tls.enabled:
        return None
    for name in _FILES:
        _check_readable(f"upstream.tls.{name}", getattr(tls, name))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        # In this order: ssl refuses to verify nothing while it still checks names.
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    _trust(made, tls)
    _identify(made, tls)
    return made


def _check_readable(name: str, path: str) -> None:
    if not path:
        return
    try:
        with Path(path).open("rb"):
            pass
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such file: {path}") from None
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}: {path}") from None


def _trust(made: ssl.SSLContext, tls: Tls) -> None:
    if not tls.ca_file:
        made.load_default_certs()
        return
    try:
        made.load_verify_locations(tls.ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"upstream.tls.ca_file: no certificates in {tls.ca_file}") from error


def _identify(made: ssl.SSLContext, tls: Tls) -> None:
    if not tls.cert_file:
        return
    try:
        made.load_cert_chain(tls.cert_file, tls.key_file or None, _no_passphrase)
    except ssl.SSLError as error:
        raise ConfigError(
            f"upstream.tls.cert_file: {tls.cert_file} holds no certificate with a key that fits it "
            "(upstream.tls.key_file), or the key needs a passphrase"
        ) from error


def _no_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal and wait there.
    return ""
