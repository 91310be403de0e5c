"""What a comparison finds: sets of flows, each with the rule that opens it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import assert_never

from netpolicy.algebra.normal import effective, outward
from netpolicy.attachment import Attachment
from netpolicy.flow import Flow, Origin
from netpolicy.ruleset import Network
from netpolicy.services import Service

#: Stands for the host of whatever attachment there is: its gateway is an address that no rule opens and no packet leaves with.
HOST = Attachment("host", "the host", "host", (), (ip_address("fe80::1"),))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    """What the flows of an `Opening` have in common."""

    NAME = "name"
    """They name one name, or names below one."""
    NETWORK = "network"
    """They go to the addresses of one network, by a rule for it."""
    ANSWER = "answer"
    """They go to addresses of a network that allowed names may resolve to, and by the other ruleset may not."""
    HOST = "host"
    """They go to the host itself."""
    EVERYTHING = "everything"
    """They are all that the other ruleset does not open: the policy is off."""
    OBSERVED = "observed"
    """They are all that the other ruleset refuses: the policy is only observed."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A set of flows: services at a place, for a time.

    Told as rules are written. What no rule can open is not meant, though a wide one seems to say it: port 53, and addresses that
    never leave the workload's own link.
    """

    kind: Kind
    where: str | Network | None
    """A name, a wildcard or a network; None for the host and for everything."""
    services: tuple[Service, ...]
    """Empty for everything."""
    origin: Origin | None
    """The rule that opens it; or the denial that the other ruleset has in its way, where no rule of this one does."""
    example: Flow
    """One of the flows."""
    apart: tuple[str, ...] = ()
    """Names and wildcards below a wildcard that are not meant."""
    since: float | None = None
    """When it begins, in seconds since 1970, because a rule of the other ruleset ends then; None: at once."""
    until: float | None = None
    """When the rule behind it ends, in seconds since 1970; None: never."""

    def __str__(self) -> str:
        since = "" if self.since is None else f", from {timestamp(self.since)} on"
        until = "" if self.until is None else f", until {timestamp(self.until)}"
        return f"{self._what()}{since}{until}"

    def _what(self) -> str:
        services = ", ".join(str(service) for service in self.services)
        match self.kind:
            case Kind.NAME | Kind.NETWORK:
                apart = f", apart from {', '.join(self.apart)}" if self.apart else ""
                return f"{self.where} {services}{apart}"
            case Kind.ANSWER:
                return f"{self.where} {services}, where an allowed name resolves to it"
            case Kind.HOST:
                return f"the host {services}"
            case Kind.EVERYTHING:
                return f"everything else{services and f' at {services}'}: the policy is off"
            case Kind.OBSERVED:
                return "everything else: the policy is only observed, so that what it refuses passes"
            case _:
                assert_never(self.kind)


@dataclass(frozen=True, slots=True)
class Counterexample:
    """What shows that one ruleset opens more than another one."""

    flow: Flow
    """Allowed by the one, and not by the other."""
    since: float | None = None
    """The moment (seconds since 1970) from which it is so, because a rule of the other one ends then; None: at once."""

    def __str__(self) -> str:
        return str(self.flow) if self.since is None else f"{self.flow} from {timestamp(self.since)} on"


def timestamp(moment: float) -> str:
    """A moment for people, by UTC."""
    try:
        return (_EPOCH + timedelta(seconds=moment)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        # Before the year 1 or after 9999.
        return f"{moment:.0f} seconds after 1970"


def at_network(network: Network, services: tuple[Service, ...]) -> Flow:
    """A flow to a network, at least one address of which is outward."""
    first, lowest = effective(services)[0], outward(network).pairs[0][0]
    address = network.network_address + (lowest - int(network.network_address))
    return Flow(first.protocol, first.first or None, address=address)


def at_name(name: str, services: tuple[Service, ...]) -> Flow:
    """A flow to a name."""
    first = effective(services)[0]
    return Flow(first.protocol, first.first or None, name=name)


def at_host(services: tuple[Service, ...]) -> Flow:
    """A flow to the host."""
    first = effective(services)[0]
    return Flow(first.protocol, first.first or None, address=HOST.gateways[0])
