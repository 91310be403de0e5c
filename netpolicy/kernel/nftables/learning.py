"""Learned addresses as elements with a lifetime, and which of them a new ruleset keeps.

Single ports of all names share one hash set per family with the key ``address . protocol . port``: one lookup for any
number of names. A span of ports (``name:8000-8010``, ``name:*``) has a hash set of addresses of its own, looked into by a
rule that compares the ports first; so has a protocol without ports. (An interval set of the whole key would be copied by the kernel for each new element.)
Every element carries the names it was learned for as its comment, so a restarted gate knows them again.
"""

from __future__ import annotations

import math
import re
import struct
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from netpolicy import patterns, services
from netpolicy.flow import PORTED, Address
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables.messages import SetFlag, Table, Type, comment_of, concat, element, userdata
from netpolicy.ruleset import Ruleset
from netpolicy.services import Service

#: More learned addresses than this at once are refused: nobody's resolver may eat the host's memory.
LIMIT = 65536
#: A label that no name has.
_ANYBODY = "\0"


_NAME = re.compile(
    r"(?:n(?P<n>[46])_(?P<single>[a-z0-9]+))|"
    r"(?:w(?P<w>[46])_(?P<spans>[a-z0-9]+)_(?P<protocol>[0-9]{1,3})_(?P<first>[0-9]{1,5})_(?P<last>[0-9]{1,5}))"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a service of a name is looked up: a set of one attachment and family."""

    version: int
    service: Service | None
    """The span of ports (or the protocol without ports) the set is for; None: the set of single ports."""

    def name(self, attachment_id: str) -> str:
        """The set's name, e.g. ``n4_ab12`` or ``w4_ab12_6_8000_8010``."""
        if self.service is None:
            return f"n{self.version}_{attachment_id}"
        s = self.service
        return f"w{self.version}_{attachment_id}_{s.protocol}_{s.first}_{s.last}"

    def add(self, table: Table, attachment_id: str) -> Message:
        """The message that makes the set."""
        address, size = (Type.IPV4, 4) if self.version == 4 else (Type.IPV6, 16)
        if self.service is None:
            key, size = concat(address, Type.PROTOCOL, Type.SERVICE), size + 8
        else:
            key = int(address)
        return table.add_set(self.name(attachment_id), SetFlag.TIMEOUT, key, size, limit=LIMIT)

    @classmethod
    def of(cls, version: int, service: Service) -> Slot:
        """The set in which a service of a name is looked up."""
        return cls(version, None if _single(service) else service)

    @classmethod
    def parse(cls, name: str, attachment_id: str) -> Slot | None:
        """Read a set's name; None where it is not one of this attachment's."""
        found = _NAME.fullmatch(name)
        if found is None or attachment_id not in (found["single"], found["spans"]):
            return None
        if found["n"] is not None:
            return cls(int(found["n"]), None)
        return cls(int(found["w"]), Service(int(found["protocol"]), int(found["first"]), int(found["last"])))


@dataclass(frozen=True, slots=True)
class Entry:
    """One learned element: an address with one service."""

    address: Address
    service: Service

    @property
    def slot(self) -> Slot:
        """The set it is in."""
        return Slot.of(self.address.version, self.service)

    @property
    def key(self) -> bytes:
        """Its key there."""
        if self.slot.service is not None:
            return self.address.packed
        return self.address.packed + struct.pack(">BxxxHxx", self.service.protocol, self.service.first)

    def element(self, seconds: float, names: Iterable[str]) -> bytes:
        """The element, with its lifetime and the names it is for."""
        lifetime = a.be64(4, max(int(seconds * 1000), 1))
        return element(self.key, lifetime, a.attr(6, userdata(" ".join(sorted(names)))))


@dataclass(frozen=True, slots=True)
class Alive:
    """What the kernel says of a learned element."""

    seconds: float
    names: frozenset[str]


def slots(ruleset: Ruleset) -> tuple[Slot, ...]:
    """All sets that the names of a ruleset need, in a stable order; the sets of single ports always exist."""
    spans = sorted(s for s in _services(ruleset) if not _single(s))
    return tuple(Slot(version, service) for version in (4, 6) for service in (None, *spans))


def single_protocols(ruleset: Ruleset) -> tuple[int, ...]:
    """The protocols with which names are allowed at single ports."""
    return tuple(sorted({s.protocol for s in _services(ruleset) if _single(s)}))


def _services(ruleset: Ruleset) -> frozenset[Service]:
    """All services that any name can have. A name that only wildcards stand for has those of any other such name."""
    found = _KNOWN.get(id(ruleset))
    if found is not None and found[0]() is ruleset:
        return found[1]
    known = (*ruleset.by_name, *ruleset.denied_by_name)
    some = (f"{_ANYBODY}.{patterns.suffix(name)}" if patterns.is_wildcard(name) else name for name in known)
    services = frozenset(service for name in some for service in ruleset.services_of(name))
    _KNOWN.clear()  # it is asked several times for one apply, and then for another's
    _KNOWN[id(ruleset)] = weakref.ref(ruleset), services
    return services


_KNOWN: dict[int, tuple[weakref.ref[Ruleset], frozenset[Service]]] = {}


def has_port(service: Service) -> bool:
    """Whether the service's packets carry a port to compare."""
    return service.protocol in PORTED


def _single(service: Service) -> bool:
    return has_port(service) and service.first == service.last


def read(slot: Slot, elements: Iterable[Mapping[int, memoryview]]) -> dict[Entry, Alive]:
    """The entries in a listing of a slot's set."""
    found: dict[Entry, Alive] = {}
    width = 4 if slot.version == 4 else 16
    for one in elements:
        key = bytes(a.table(one[1])[1])
        service = slot.service
        if len(key) != width + (8 if service is None else 0):
            raise a.MalformedError(f"netlink: a key of {len(key)} bytes in a set of learned addresses")
        if service is None:
            protocol, port = struct.unpack_from(">BxxxH", key, width)
            service = Service(protocol, port, port)
        left = a.number(one[5]) if 5 in one else 0
        names = frozenset(comment_of(one.get(6)).split())
        found[Entry(ip_address(key[:width]), service)] = Alive(left / 1000, names)
    return found


def inserted(table: Table, attachment_id: str, entries: Mapping[Entry, Alive]) -> list[Message]:
    """Insert entries into sets that have none of them."""
    return [
        message
        for slot, group in _by_slot(entries).items()
        for message in table.add_elements(slot.name(attachment_id), _packed(group))
    ]


def refreshed(table: Table, attachment_id: str, entries: Mapping[Entry, Alive]) -> list[Message]:
    """Insert entries, or give those that exist a new lifetime and new names.

    Kernels before 6.12 leave the lifetime of an element that is added again; add, delete, add works on all of them.
    """
    messages: list[Message] = []
    for slot, group in _by_slot(entries).items():
        name = slot.name(attachment_id)
        packed = _packed(group)
        messages += table.add_elements(name, packed)
        messages += table.delete_elements(name, [element(entry.key) for entry, _ in group])
        messages += table.add_elements(name, packed)
    return messages


def _by_slot(entries: Mapping[Entry, Alive]) -> dict[Slot, list[tuple[Entry, Alive]]]:
    found: dict[Slot, list[tuple[Entry, Alive]]] = {}
    for entry, alive in entries.items():
        found.setdefault(entry.slot, []).append((entry, alive))
    return found


def _packed(group: Iterable[tuple[Entry, Alive]]) -> list[bytes]:
    return [entry.element(alive.seconds, alive.names) for entry, alive in group]


#: The names an address is known for, each with the seconds it still is.
Known = Mapping[Address, Mapping[str, float]]


def known(alive: Mapping[Entry, Alive]) -> Known:
    """What the entries in force say of their addresses."""
    found: dict[Address, dict[str, float]] = {}
    for entry, state in alive.items():
        lives = found.setdefault(entry.address, {})
        for name in state.names:
            lives[name] = max(state.seconds, lives.get(name, 0.0))
    return found


def opened(ruleset: Ruleset, addresses: Known, moment: float) -> dict[Entry, Alive]:
    """What a ruleset opens while addresses are known for names: for each of them exactly the services its names have.

    Args:
        ruleset: The one in force from now on.
        addresses: What was learned.
        moment: Now, in seconds since 1970: no entry outlives the rules it rests on.
    """
    found: dict[Entry, Alive] = {}
    if ruleset.mode == "off":
        return found
    for address, names in addresses.items():
        # A private address was learned on the word of a range, and goes with it.
        if (address.version == 6 and not ruleset.ipv6) or not ruleset.admits(address):
            continue
        for name, seconds in sorted(names.items()):
            for service in ruleset.services_of(name):
                left = min(seconds, end_of(ruleset, name, service) - moment)
                if left <= 0:
                    continue
                entry = Entry(address, service)
                before = found.get(entry, Alive(0.0, frozenset()))
                found[entry] = Alive(max(left, before.seconds), before.names | {name})
    return found


def end_of(ruleset: Ruleset, name: str, service: Service) -> float:
    """When the first part of a service of the name is no longer allowed, in seconds since 1970; infinity: never."""
    if ruleset.next_end is None:
        return math.inf
    rules = ruleset.rules_for(name)
    pieces = services.elements(s for rule in rules for s in rule.services)
    ends = (
        max(
            math.inf if rule.until is None else rule.until
            for rule in rules
            if any(s.contains(one) for s in rule.services)
        )
        for one in pieces
        if services.subtract((one,), (service,)) != (one,)
    )
    return min(ends, default=math.inf)
