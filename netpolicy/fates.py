"""What the rules that know a target make of one service there. Pure; the one definition, read at once or from a table.

A target's rules stand in two rows, those that open and those that deny, in the order in which verdicts name them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from netpolicy.flow import Layer
from netpolicy.services import Service, merged, subtract

#: Protocols of queries to port 53, which the gate answers itself.
DNS_PROTOCOLS = (6, 17)
DNS_PORT = 53


class Kind(Enum):
    """Why a flow meets its fate."""

    SELF = auto()
    """It stays on the workload's own machine."""
    LINK = auto()
    """It never leaves the workload's own link."""
    OFF = auto()
    """The policy is switched off."""
    DNS = auto()
    """The gate answers it itself."""
    IPV6 = auto()
    """The policy has IPv6 switched off."""
    DENIED = auto()
    """A rule denies it."""
    OPENED = auto()
    """A rule opens it."""
    CLOSED = auto()
    """Rules open the target, but not with this service."""
    TAKEN = auto()
    """Rules open the target, but all of that is denied."""
    UNKNOWN = auto()
    """No rule opens the target."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a flow, as far as it does not depend on which of equal rules stand at its target."""

    allowed: bool
    layer: Layer
    kind: Kind
    rule: int | None = None
    """Where the rule that is named stands: an index into the opening rules followed by the denying ones."""

    def observed(self) -> Fate:
        """The same where a policy is only observed."""
        return self if self.allowed or self.kind is Kind.DNS else replace(self, allowed=True, layer=Layer.OBSERVE)


#: What happens to a query for any name server.
DNS = Fate(False, Layer.DNS, Kind.DNS)


class Rows:
    """The services of a target's rules, for judging one service."""

    def __init__(
        self, opening: Sequence[tuple[Service, ...]], denying: Sequence[tuple[Service, ...]], *, named: bool
    ) -> None:
        self._opening = opening
        self._denying = denying
        self._named = named
        """Whether the target is a name, so that the gate's DNS is asked first."""
        self.left = subtract((s for row in opening for s in row), (s for row in denying for s in row))
        """What is open at all."""

    def fate(self, protocol: int, port: int | None) -> Fate:
        """Judge one service, queries to port 53 apart."""
        denial = _first(self._denying, protocol, port)
        way = _first(self._opening, protocol, port)
        first_denial = len(self._opening)
        if denial is not None:
            return Fate(False, self._refusing(protocol), Kind.DENIED, first_denial + denial)
        if way is not None:
            return Fate(True, Layer.DNS if self._named else Layer.ADDRESS, Kind.OPENED, way)
        if self.left:
            # The nearest rule is one with the protocol, where there is one.
            same = (n for n, row in enumerate(self._opening) if any(s.protocol == protocol for s in row))
            return Fate(False, self._known(protocol), Kind.CLOSED, next(same, 0))
        layer = Layer.DNS if self._named else Layer.ADDRESS
        if not self._opening:
            return Fate(False, layer, Kind.UNKNOWN)
        opened = merged(s for row in self._opening for s in row)
        taking = (n for n, row in enumerate(self._denying) if subtract(opened, row) != opened)
        return Fate(False, layer, Kind.TAKEN, first_denial + next(taking, 0))

    def _refusing(self, protocol: int) -> Layer:
        """Where a denial takes effect: a denied address is never reached, a name only if nothing of it is left."""
        if not self._named:
            return Layer.ADDRESS
        return self._known(protocol) if self.left else Layer.DNS

    def _known(self, protocol: int) -> Layer:
        return Layer.PORT if any(s.protocol == protocol for s in self.left) else Layer.PROTOCOL


class Table:
    """All fates at a target: what `Rows` says of every service, ready to be looked up."""

    __slots__ = ("_else", "_fates", "known")

    def __init__(self, fates: dict[int, tuple[list[int], list[Fate]]], otherwise: Fate, *, known: bool) -> None:
        self._fates = fates
        self._else = otherwise
        self.known = known
        """Whether rules open the target with any service."""

    @classmethod
    def same(cls, fate: Fate, *, dns: bool) -> Table:
        """One fate for everything, queries to port 53 apart where `dns` is set."""
        port = [0, DNS_PORT, DNS_PORT + 1], [fate, DNS, fate]
        return cls(dict.fromkeys(DNS_PROTOCOLS, port) if dns else {}, fate, known=False)

    @classmethod
    def of(cls, rows: Rows, services: Iterable[Service], *, observed: bool) -> Table:
        """The table of rows with these services."""
        edges: dict[int, set[int]] = {protocol: {DNS_PORT, DNS_PORT + 1} for protocol in DNS_PROTOCOLS}
        for service in services:
            edges.setdefault(service.protocol, set()).update((service.first, service.last + 1))

        def fate(protocol: int, port: int) -> Fate:
            if port == DNS_PORT and protocol in DNS_PROTOCOLS:
                return DNS
            found = rows.fate(protocol, port)
            return found.observed() if observed else found

        fates: dict[int, tuple[list[int], list[Fate]]] = {}
        for protocol, ports in edges.items():
            starts = sorted(ports | {0})
            fates[protocol] = starts, [fate(protocol, port) for port in starts]
        return cls(fates, fate(_NONE, 0), known=bool(rows.left))

    def fate(self, protocol: int, port: int | None) -> Fate:
        """Look one service up."""
        found = self._fates.get(protocol)
        if found is None:
            return self._else
        starts, fates = found
        # Protocols without ports have one entry, so that a port does not matter. Above all ports (and below) nothing is open.
        return fates[bisect_right(starts, port or 0) - 1]


#: No protocol's number.
_NONE = -1


def _first(rows: Sequence[tuple[Service, ...]], protocol: int, port: int | None) -> int | None:
    return next((n for n, row in enumerate(rows) if any(s.covers(protocol, port) for s in row)), None)
