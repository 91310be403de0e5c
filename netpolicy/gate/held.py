"""One attachment as the gate holds it: what is remembered, its DNS gate, and its state for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from netpolicy.clock import Clock
from netpolicy.dns.core import DnsCore
from netpolicy.dns.listeners import Listeners, SocketFactory
from netpolicy.dns.servers import Server, ServerList
from netpolicy.dns.service import DnsService, Learn
from netpolicy.dns.upstreams import Upstreams
from netpolicy.gate.protocol import DnsState, Json, Phase, State
from netpolicy.gate.state import Record
from netpolicy.ruleset import Learned, Ruleset


@dataclass(slots=True, eq=False)
class Held:
    """An attachment and everything that serves it."""

    record: Record
    service: DnsService
    listeners: Listeners
    clock: Clock
    unresolved: tuple[str, ...] = ()
    trouble: dict[str, str] = field(default_factory=dict)
    """What is wrong now, by subject: ``restore``, ``listen``, ``learn``, ``names``."""
    verification: Json | None = None

    @property
    def id(self) -> str:
        """The attachment's."""
        return self.record.attachment.id

    @property
    def core(self) -> DnsCore:
        """What decides in its DNS gate."""
        return self.service.core

    @property
    def ruleset(self) -> Ruleset | None:
        """The ruleset in force; None while locked, whatever is remembered."""
        return None if self.core.view is None else self.record.ruleset

    def learned(self) -> list[Learned]:
        """The addresses learned for names that are in force."""
        view = self.core.view
        return [] if view is None or view.open else self.core.table.entries(view, self.clock.monotonic())

    def close(self) -> None:
        """Stop answering; what is held in the kernel stays."""
        self.core.adopt(None)
        self.listeners.close()
        self.service.close()

    def state(self, refused: int) -> State:
        """For people and programs; `refused` is the kernel's count of packets."""
        ruleset, counters = self.ruleset, self.core.counters
        resolved = self.core.table.names(self.clock.monotonic())
        phase: Phase = "locked" if ruleset is None else "off" if ruleset.mode == "off" else "enforced"
        listening = self.listeners.listening
        waits = () if listening or "listen" in self.trouble else (f"the DNS gate waits for {self.listeners.interface}",)
        return State(
            attachment=self.record.attachment,
            phase=phase,
            policy=None if ruleset is None else ruleset.policy,
            ruleset=None if ruleset is None else ruleset.id,
            names=0 if ruleset is None else len(ruleset.by_name),
            ranges=0 if ruleset is None else len(ruleset.ranges),
            learned=self.core.table.addresses(self.clock.monotonic()),
            unresolved=tuple(name for name in self.unresolved if name not in resolved),
            warnings=(*(() if ruleset is None else ruleset.warnings), *self.trouble.values(), *waits),
            refused=refused,
            dns=DnsState(
                port=self.listeners.port,
                listening=listening,
                answered=counters.answered,
                denied=counters.denied,
                stripped=counters.stripped,
                failed=counters.failed,
            ),
            verification=self.verification,
            applied_at=None if ruleset is None else self.record.applied_at,
        )


def hold(record: Record, *, servers: ServerList, learn: Learn, open_socket: SocketFactory, clock: Clock) -> Held:
    """Everything for one attachment, locked and not listening yet."""
    service = DnsService(DnsCore(clock), Upstreams(chosen(record.upstreams, servers)), learn)
    attachment = record.attachment
    listeners = Listeners(service, attachment.interface, attachment.gateways, open_socket, record.dns_port)
    return Held(record, service, listeners, clock)


def chosen(upstreams: Sequence[str] | None, default: ServerList) -> ServerList:
    """The resolvers of one attachment: its own, or the gate's. Raises UserError ``bad-upstream``."""
    if upstreams is None:
        return default
    own = tuple(Server.parse(text) for text in upstreams)
    return lambda: own
