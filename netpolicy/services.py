"""Services: a protocol with a range of destination ports, and the arithmetic of lists of them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from netpolicy.flow import PORTED, PROTOCOLS, protocol_name


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """A protocol with an inclusive range of destination ports; both ports are 0 for protocols without ports."""

    protocol: int
    first: int = 0
    last: int = 0

    def covers(self, protocol: int, port: int | None) -> bool:
        """Whether a flow with this protocol and port is inside. Protocols without ports have port 0, whatever is given."""
        asked = (port or 0) if protocol in PORTED else 0
        return protocol == self.protocol and self.first <= asked <= self.last

    def contains(self, other: Service) -> bool:
        """Whether every flow of the other service is one of this."""
        return self.protocol == other.protocol and self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        """As the policy language writes it: ``443/tcp``, ``8000-8010/udp``, ``*/tcp``; without ports the name alone."""
        name = protocol_name(self.protocol)
        if self.protocol not in PORTED:
            return name
        if (self.first, self.last) == (1, 65535):
            return f"*/{name}"
        return f"{self.first}/{name}" if self.first == self.last else f"{self.first}-{self.last}/{name}"


#: Every flow there is a rule for: what a denial means that names no ports.
EVERY: tuple[Service, ...] = tuple(
    Service(number, 0, 65535 if number in PORTED else 0) for number in sorted(PROTOCOLS.values())
)


def merged(services: Iterable[Service]) -> tuple[Service, ...]:
    """The same services, sorted, with overlapping and adjacent port ranges joined: the one form of each set of services."""
    result: list[Service] = []
    for service in sorted(services):
        last = result[-1] if result else None
        if last is not None and last.protocol == service.protocol and service.first <= last.last + 1:
            result[-1] = Service(last.protocol, last.first, max(last.last, service.last))
        else:
            result.append(service)
    return tuple(result)


def subtract(services: Iterable[Service], taken: Iterable[Service]) -> tuple[Service, ...]:
    """What is in `services` and not in `taken`, in the form of `merged`."""
    left = list(merged(services))
    for hole in taken:
        left = [piece for service in left for piece in _without(service, hole)]
    return tuple(left)


def elements(services: Iterable[Service]) -> list[Service]:
    """The largest pieces of which every one of `services` is made: none of them overlaps a service in part."""
    known = set(services)
    result: list[Service] = []
    for protocol in sorted({s.protocol for s in known}):
        own = [s for s in known if s.protocol == protocol]
        starts = sorted({s.first for s in own} | {s.last + 1 for s in own})
        for first, after in itertools.pairwise(starts):
            piece = Service(protocol, first, after - 1)
            if any(s.contains(piece) for s in own):
                result.append(piece)
    return result


def _without(service: Service, hole: Service) -> Iterable[Service]:
    if hole.protocol != service.protocol or hole.last < service.first or hole.first > service.last:
        yield service
        return
    if service.first < hole.first:
        yield Service(service.protocol, service.first, hole.first - 1)
    if hole.last < service.last:
        yield Service(service.protocol, hole.last + 1, service.last)
