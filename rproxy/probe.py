"""Probe: the observer of everything worth counting or logging.

One method an event. This one does nothing, so lower layers call it without asking whether anybody
listens; `observability` derives from it. Rules: it is told at most once an event and never on the
straight path of a command; arguments are texts and numbers that the caller has at hand (nodes as
"host:port"); none is ever a value, a key or a password.
"""

from __future__ import annotations

from collections.abc import Sequence


class Probe:
    """Observes nothing. Override what you want to know."""

    def flush(self) -> None:
        """Time has passed: tell what was kept back."""

    # -- the process --

    def listening(self, where: str, is_open: bool) -> None:
        """A listener is up; `is_open`: other machines may connect, and no password is asked."""

    def draining(self, reason: str, clients: int) -> None:
        """No client is accepted any more; those that are here may finish."""

    def stopped(self, abandoned: int) -> None:
        """Everything is closed; `abandoned` clients had not finished."""

    def worker_ended(self, worker: int, reason: str) -> None:
        """A worker process has died; another takes its place."""

    # -- clients --

    def client_accepted(self, client: str) -> None:
        """A client has connected."""

    def client_refused(self, client: str, reason: str) -> None:
        """A client was turned away at the door."""

    def accept_failed(self, reason: str) -> None:
        """No client can be accepted for a while: the process or the system has run out of
        something.
        """

    def login_failed(self, client: str) -> None:
        """A client gave a wrong password."""

    def client_left(self, client: str) -> None:
        """A client has gone of its own will."""

    def client_dropped(self, client: str, reason: str) -> None:
        """rproxy has closed a client's connection."""

    def client_broke_protocol(self, client: str, trouble: str) -> None:
        """A client sent bytes that are no request; its connection is closed."""

    # -- links and gates --

    def link_up(self, node: str, protocol: int) -> None:
        """A link is ready for commands; `protocol` is 2 or 3."""

    def link_down(self, node: str, protocol: int, reason: str) -> None:
        """A link was lost, or could not be made."""

    def upstream_refused(self, node: str, code: str) -> None:
        """A node refuses our user or password; `code` is the first word of its error."""

    def subscriptions_lost(self, node: str, topics: int, reason: str) -> None:
        """A node's feed was lost; until `subscriptions_back` messages of Pub/Sub may be missed."""

    def subscriptions_back(self, topics: int, seconds: float) -> None:
        """All lost subscriptions are made again, the last one after so many seconds."""

    def subscription_refused(self, node: str, code: str) -> None:
        """A node refuses a subscription; `code` is the first word of its error."""

    def gate_closed(self, reason: str, slot: int) -> None:
        """Commands for a slot (-1: for a whole node) are held from now on."""

    def gate_opened(self, reason: str, slot: int, held: int) -> None:
        """The gate for that reason is open again; `held` commands have waited."""

    def gate_refused(self, reason: str, slot: int) -> None:
        """A held command was answered with an error: no time or no room is left."""

    # -- redirections --

    def moved(self, slot: int, told_by: str, owner: str) -> None:
        """A node says that another one owns the slot now."""

    def asked(self, slot: int, told_by: str, target: str) -> None:
        """A node sends one command for a slot under migration to another node."""

    # -- the slot map --

    def refresh_started(self, reason: str) -> None:
        """The cluster is asked for its slot map."""

    def refresh_failed(self, node: str, reason: str) -> None:
        """A node could not be asked for the slot map, or gave a bad one."""

    def no_seed_answers(self, seeds: Sequence[str], attempts: int) -> None:
        """No slot map is known yet and no seed answers; `attempts` rounds have failed."""

    def slotmap_replaced(self, masters: int, covered: int, epoch: int, changed: int) -> None:
        """Another slot map is in use; `changed` slots have another owner than before."""

    def slotmap_kept(self, covered: int, offered: int, epoch: int) -> None:
        """A view with fewer slots, or of an older epoch, was not believed (yet)."""
