"""A ruleset, indexed for `decide`: every name and address lies in exactly one place, and all of a place share their fates. Pure.

Networks nest or are disjoint, so the places of a family are the runs of addresses between the networks' edges. The names below a
wildcard are one place, without those that rules name exactly and those below a nearer wildcard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Union

from netpolicy import patterns
from netpolicy.addresses import UNROUTABLE
from netpolicy.fates import Fate, Kind, Rows, Table
from netpolicy.flow import Address, Layer, Origin
from netpolicy.services import Service

if TYPE_CHECKING:
    from netpolicy.ruleset import NameRule, RangeRule, Ruleset

Network = IPv4Network | IPv6Network
AnyRule = Union["NameRule", "RangeRule", "OpenedByName"]
_Rows = tuple[tuple[Service, ...], ...]
_Key = tuple[bool, _Rows, _Rows]
#: The upper bits of an IPv6 address that is an IPv4 address.
_MAPPED = 0xFFFF
#: The workload itself. 0.0.0.0 and :: are, because Linux connects them to loopback.
_SELF = tuple(ip_network(n) for n in ("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128"))


@dataclass(frozen=True, slots=True)
class OpenedByName:
    """An address that is open while a name resolves to it."""

    name: str
    services: tuple[Service, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Place:
    """Targets that the same rules are for."""

    table: Table
    rules: tuple[NameRule | RangeRule | OpenedByName, ...] = ()
    """Those that open, then those that deny."""
    opening: int = 0
    """How many of them open."""
    settled: bool = False
    """Whether no rule matters here."""


def _settled(fate: Fate, *, dns: bool = False) -> Place:
    return Place(Table.same(fate, dns=dns), settled=True)


#: On the workload's own machine, and elsewhere on its own link.
SELF = _settled(Fate(True, Layer.LOCAL, Kind.SELF))
LINK = _settled(Fate(False, Layer.LOCAL, Kind.LINK))
_LOCAL = {**dict.fromkeys(UNROUTABLE, LINK), **dict.fromkeys(_SELF, SELF)}
_OFF = _settled(Fate(True, Layer.OFF, Kind.OFF))
_IPV6 = Fate(False, Layer.ADDRESS, Kind.IPV6)


@dataclass(slots=True)
class _Runs:
    """The places of one family, in order: each begins at its edge and ends before the next one."""

    edges: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def begin(self, edge: int, place: Place) -> None:
        """Let another place begin; edges come in order, and of several at once the last one counts."""
        if self.edges and self.edges[-1] == edge:
            self.places[-1] = place
        else:
            self.edges.append(edge)
            self.places.append(place)

    def end(self, around: list[tuple[int, Place]], edge: int) -> None:
        """Leave the networks that end before an edge; where they end, what lies around them goes on."""
        while len(around) > 1 and around[-1][0] <= edge:
            after, _ = around.pop()
            self.begin(after, around[-1][1])


class Places:
    """All places of a ruleset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._observed = ruleset.mode == "observe"
        self._tables: dict[_Key, Table] = {}
        off = ruleset.mode == "off"
        unknown = _OFF if off else self._place((), (), named=False)
        closed = _IPV6.observed() if self._observed else _IPV6
        self._v4 = self._runs(ruleset, 4, unknown)
        self._v6 = self._runs(ruleset, 6, unknown if ruleset.ipv6 or off else _settled(closed, dns=True))
        self._unknown = _OFF if off else self._place((), (), named=True)
        self._exact: dict[str, Place] = {}
        self._below: dict[str, Place] = {}
        if not off:
            for pattern in {*ruleset.by_name, *ruleset.denied_by_name}:
                found = self._place(ruleset.rules_for(pattern), ruleset.denials_for(pattern), named=True)
                if patterns.is_wildcard(pattern):
                    self._below[patterns.suffix(pattern)] = found
                else:
                    self._exact[pattern] = found

    def named(self, name: str) -> Place:
        """The place of a name in canonical spelling."""
        if name.endswith("localhost") and name.rpartition(".")[2] == "localhost":
            return SELF
        found = self._exact.get(name)
        if found is not None:
            return found
        if self._below:
            rest = name.partition(".")[2]
            while rest:
                if rest in self._below:
                    return self._below[rest]
                rest = rest.partition(".")[2]
        return self._unknown

    def holding(self, address: Address) -> Place:
        """The place of an address; one of ::ffff:0:0/96 is the IPv4 address inside."""
        number = int(address)
        runs = self._v4
        if address.version == 6:
            if number >> 32 == _MAPPED:
                number &= 0xFFFFFFFF
            else:
                runs = self._v6
        return runs.places[bisect_right(runs.edges, number) - 1]

    def learned(self, place: Place, ways: Iterable[OpenedByName]) -> Place:
        """A place of addresses, at an address to which names resolve."""
        known = tuple(ways)
        if place.settled or not known:
            return place
        opening = (*place.rules[: place.opening], *known)
        return self._place(opening, place.rules[place.opening :], named=False)

    def _place(self, opening: Sequence[AnyRule], denying: Sequence[AnyRule], *, named: bool) -> Place:
        key = named, tuple(rule.services for rule in opening), tuple(rule.services for rule in denying)
        table = self._tables.get(key)
        if table is None:
            services = [service for row in (*key[1], *key[2]) for service in row]
            table = Table.of(Rows(key[1], key[2], named=named), services, observed=self._observed)
            self._tables[key] = table
        return Place(table, (*opening, *denying), len(opening))

    def _runs(self, ruleset: Ruleset, version: int, outside: Place) -> _Runs:
        """The places of one family, from the widest networks to the narrowest."""
        rows: list[tuple[Network, RangeRule | Place, bool]] = [
            (network, place, False) for network, place in _LOCAL.items()
        ]
        if not outside.settled:
            rows += [(rule.network, rule, False) for rule in ruleset.ranges]
            rows += [(rule.network, rule, True) for rule in ruleset.denied_ranges]
        own = [(int(n.network_address), n.prefixlen, what, denies) for n, what, denies in rows if n.version == version]
        own.sort(key=lambda row: row[:2])
        runs = _Runs()
        runs.begin(0, outside)
        bits = 32 if version == 4 else 128
        around: list[tuple[int, Place]] = [(1 << bits, outside)]
        for first, length, what, denies in own:
            runs.end(around, first)
            place = self._inside(around[-1][1], what, denies)
            around.append((first + (1 << (bits - length)), place))
            runs.begin(first, place)
        runs.end(around, 1 << bits)
        return runs

    def _inside(self, outer: Place, what: RangeRule | Place, denies: bool) -> Place:
        if isinstance(what, Place):
            return what
        if outer.settled:
            return outer
        opening, denying = outer.rules[: outer.opening], outer.rules[outer.opening :]
        if denies:
            return self._place(opening, (*denying, what), named=False)
        return self._place((*opening, what), denying, named=False)
