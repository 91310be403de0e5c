"""One attachment as the gate holds it: what is remembered, its DNS gate, and its state for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from netpolicy.clock import Clock
from netpolicy.dns.core import DnsCore
from netpolicy.dns.listeners import Listeners, SocketFactory
from netpolicy.dns.servers import Server, ServerList
from netpolicy.dns.service import DnsService, Learn
from netpolicy.dns.upstreams import Upstreams
from netpolicy.dns.view import NameView
from netpolicy.gate.forms import Json
from netpolicy.gate.protocol import DnsState, Drift, Phase, State
from netpolicy.gate.state import Record
from netpolicy.ruleset import Learned, Mode, Ruleset

#: Where the DNS gate listens for the processes of the namespace itself.
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))
_PHASES: dict[Mode, Phase] = {"enforce": "enforced", "observe": "observed", "off": "off"}


@dataclass(frozen=True, slots=True)
class Deadline:
    """By when what was applied must be confirmed: whichever clock is there first."""

    by: float
    """Seconds since the epoch."""
    at: float
    """Monotonic."""


@dataclass(slots=True, eq=False)
class Held:
    """An attachment and everything that serves it."""

    record: Record
    service: DnsService
    listeners: Listeners
    clock: Clock
    ruleset: Ruleset | None = None
    """What is in force: the remembered ruleset without what has ended. None while locked, whatever is remembered."""
    unresolved: tuple[str, ...] = ()
    trouble: dict[str, str] = field(default_factory=dict)
    """What is wrong now, by subject: ``listen``, ``learn``, ``names``, ``confirm``, ``end``, ``drift``."""
    verification: Json | None = None
    drift: Drift | None = None
    deadline: Deadline | None = None

    @property
    def id(self) -> str:
        """The attachment's."""
        return self.record.attachment.id

    @property
    def core(self) -> DnsCore:
        """What decides in its DNS gate."""
        return self.service.core

    @property
    def overdue(self) -> bool:
        """Whether what was applied should have been confirmed by now."""
        deadline = self.deadline
        return deadline is not None and (self.clock.monotonic() >= deadline.at or self.clock.now() >= deadline.by)

    @property
    def ended(self) -> bool:
        """Whether a rule that is in force should not be any more."""
        ends = None if self.ruleset is None else self.ruleset.next_end
        return ends is not None and ends <= self.clock.now()

    def learned(self) -> list[Learned]:
        """The addresses learned for names that are in force."""
        view = self.core.view
        return [] if view is None or view.open else self.core.table.entries(view, self.clock)

    def adopt(self, ruleset: Ruleset, view: NameView) -> list[Learned]:
        """The kernel holds this ruleset now; see `DnsCore.adopt`."""
        self.ruleset = ruleset
        return self.core.adopt(view)

    def ask(self) -> None:
        """From now on what was applied waits to be confirmed, if its record says so."""
        pending = self.record.unconfirmed
        left = 0.0 if pending is None else pending.left(self.clock.now())
        self.deadline = None if pending is None else Deadline(pending.by, self.clock.monotonic() + left)

    def lock(self) -> None:
        """The kernel refuses everything now."""
        self.ruleset, self.unresolved, self.verification, self.deadline = None, (), None, None
        self.core.adopt(None)

    def close(self) -> None:
        """Stop answering; what is held in the kernel stays."""
        self.lock()
        self.listeners.close()
        self.service.close()

    def state(self, refused: int) -> State:
        """For people and programs; `refused` is the kernel's count of packets."""
        ruleset, record = self.ruleset, self.record
        resolved = self.core.table.names(self.clock.monotonic())
        return State(
            attachment=record.attachment,
            phase="locked" if ruleset is None else _PHASES[ruleset.mode],
            policy=None if ruleset is None else ruleset.policy,
            ruleset=None if ruleset is None else ruleset.id,
            names=0 if ruleset is None else len(ruleset.by_name),
            ranges=0 if ruleset is None else len(ruleset.ranges),
            learned=self.core.table.addresses(self.clock.monotonic()),
            unresolved=tuple(name for name in self.unresolved if name not in resolved),
            warnings=self._warnings(),
            refused=refused,
            dns=self._dns(),
            verification=self.verification,
            applied_at=None if ruleset is None else record.applied_at,
            confirm_by=None if self.deadline is None else self.deadline.by,
            ends_at=None if ruleset is None else ruleset.next_end,
            drift=self.drift,
            upstreams=record.upstreams,
        )

    def _warnings(self) -> tuple[str, ...]:
        warnings = [] if self.ruleset is None else [*self.ruleset.warnings]
        if self.ruleset is None and self.record.locked_by is not None:
            warnings.append(self.record.locked_by)
        warnings += self.trouble.values()
        if not self.listeners.listening and "listen" not in self.trouble:
            warnings.append(f"the DNS gate waits for {self.listeners.interface or 'its sockets'}")
        return tuple(warnings)

    def _dns(self) -> DnsState:
        counters = self.core.counters
        return DnsState(
            port=self.listeners.port,
            listening=self.listeners.listening,
            answered=counters.answered,
            denied=counters.denied,
            stripped=counters.stripped,
            failed=counters.failed,
            observed=counters.observed,
            limited=counters.limited,
        )


def hold(record: Record, *, servers: ServerList, learn: Learn, open_socket: SocketFactory, clock: Clock) -> Held:
    """Everything for one attachment, locked and not listening yet."""
    service = DnsService(DnsCore(clock), Upstreams(chosen(record.upstreams, servers)), learn)
    attachment = record.attachment
    where = _LOOPBACK if attachment.hook == "output" else attachment.gateways
    listeners = Listeners(service, attachment.interface, where, open_socket, record.dns_port)
    return Held(record, service, listeners, clock)


def chosen(upstreams: Sequence[str] | None, default: ServerList) -> ServerList:
    """The resolvers of one attachment: its own, or the gate's. Raises UserError ``bad-upstream``."""
    if upstreams is None:
        return default
    own = tuple(Server.parse(text) for text in upstreams)
    return lambda: own
