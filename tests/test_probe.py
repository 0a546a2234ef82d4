"""The probe does nothing, and whoever derives from it overrides events that exist."""

from __future__ import annotations

import inspect

from rproxy.observability.logs import LogProbe
from rproxy.probe import Probe


def events(probe: type[Probe]) -> dict[str, inspect.Signature]:
    """Name -> signature of the methods that are no property of the class alone."""
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(probe, inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_event_is_a_no_op() -> None:
    probe = Probe()
    for name, signature in events(Probe).items():
        blanks = [None] * (len(signature.parameters) - 1)
        assert getattr(probe, name)(*blanks) is None


def test_the_log_overrides_every_event_with_the_same_arguments() -> None:
    mine = events(LogProbe)
    for name, signature in events(Probe).items():
        assert name in vars(LogProbe), f"{name} is not logged"
        assert mine[name] == signature
