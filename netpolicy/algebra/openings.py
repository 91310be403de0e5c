"""What a comparison finds: sets of flows, each with the rule that opens it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from netpolicy.algebra.normal import effective, outward
from netpolicy.attachment import Attachment
from netpolicy.flow import Flow, Origin
from netpolicy.ruleset import Network
from netpolicy.services import Service

#: Stands for the host of whatever attachment there is: its gateway is an address that no rule opens and no packet leaves with.
HOST = Attachment("host", "the host", "host", (), (ip_address("fe80::1"),))


class Kind(StrEnum):
    """What the flows of an `Opening` have in common."""

    NAME = "name"
    """They name one name."""
    NETWORK = "network"
    """They go to the addresses of one network, by a rule for it."""
    ANSWER = "answer"
    """They go to addresses of a network that allowed names may resolve to, although it is not a public one."""
    HOST = "host"
    """They go to the host itself."""
    EVERYTHING = "everything"
    """They are all that the other ruleset does not open: the policy is off."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A set of flows: services at a place.

    Told as rules are written. What no rule can open is not meant, though a wide one seems to say it: port 53, and addresses that
    never leave the workload's own link.
    """

    kind: Kind
    where: str | Network | None
    """A name or a network; None for the host and for everything."""
    services: tuple[Service, ...]
    """Empty for everything."""
    origin: Origin | None
    """The rule that opens it."""
    example: Flow
    """One of the flows."""

    def __str__(self) -> str:
        services = ", ".join(str(service) for service in self.services)
        match self.kind:
            case Kind.NAME | Kind.NETWORK:
                return f"{self.where} {services}"
            case Kind.ANSWER:
                return f"{self.where} {services}, where an allowed name resolves to it"
            case Kind.HOST:
                return f"the host {services}"
            case Kind.EVERYTHING:
                return "everything else: the policy is off"


def at_name(name: str, services: tuple[Service, ...], origin: Origin) -> Opening:
    """Services at a name."""
    first = effective(services)[0]
    return Opening(Kind.NAME, name, services, origin, Flow(first.protocol, first.first or None, name=name))


def at_network(kind: Kind, network: Network, services: tuple[Service, ...], origin: Origin) -> Opening:
    """Services in a network, at least one address of which is outward."""
    first, lowest = effective(services)[0], outward(network).pairs[0][0]
    address = network.network_address + (lowest - int(network.network_address))
    return Opening(kind, network, services, origin, Flow(first.protocol, first.first or None, address=address))


def at_host(services: tuple[Service, ...], origin: Origin) -> Opening:
    """Services of the host."""
    first = effective(services)[0]
    flow = Flow(first.protocol, first.first or None, address=HOST.gateways[0])
    return Opening(Kind.HOST, None, services, origin, flow)
