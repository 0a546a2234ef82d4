"""Configuration: the only door to it.

options.py has every option, values.py the kinds of values they have; reading.py makes a Config of a
file, the command line and the environment.
"""

from rproxy.config.options import Clients, Config, Log, Option, Row, Tls, Topology, Upstream, rows
from rproxy.config.reading import ENVIRONMENT, Problem, check, exposed, load
from rproxy.config.values import Address, Bytes, PinRule, Seconds, Secret, UnixPath

__all__ = [
    "ENVIRONMENT",
    "Address",
    "Bytes",
    "Clients",
    "Config",
    "Log",
    "Option",
    "PinRule",
    "Problem",
    "Row",
    "Seconds",
    "Secret",
    "Tls",
    "Topology",
    "UnixPath",
    "Upstream",
    "check",
    "exposed",
    "load",
    "rows",
]
