"""Allowed and denied networks as static, content-addressed sets, and the rules that look into them.

A group whose services are single ports goes, with the others of that kind, into one set of ``network, protocol, port``: one
lookup, however many there are. Other groups have a set of networks and a rule for each service. A set never changes; it is
filled under another name, so that a set with the name is whole.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from netpolicy.flow import PORTED
from netpolicy.kernel.ipset import matching as m
from netpolicy.kernel.ipset import messages
from netpolicy.kernel.ipset.messages import Type
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.netlink import Message
from netpolicy.ruleset import RangeGroup, Ruleset
from netpolicy.services import EVERY, Service, merged
from netpolicy.spans import Spans

#: Up to this many services of a group are written into the set, beside each of its networks.
_FEW: Final = 8
#: The last second that iptables can compare a date with (2038-01-19T03:14:07Z). A later end is left to whoever applies.
_LAST_DATE: Final = (1 << 31) - 1


@dataclass(frozen=True)
class RangeSet:
    """A set that the rules of a ruleset look into."""

    version: int
    parts: tuple[tuple[Spans, tuple[Service, ...]], ...]
    """Addresses with single ports; no services at all in a set of networks."""

    @property
    def kind(self) -> Type:
        """The set's type."""
        return Type.NET_PORT if self.parts[0][1] else Type.NET

    @property
    def with_ports(self) -> bool:
        """Whether its elements have a protocol and a port."""
        return self.kind is Type.NET_PORT

    def name(self, names: Names) -> str:
        """The set's name."""
        letter = "p" if self.with_ports else "r"
        return names.ranges(f"{letter}{self.version}", self._digest)

    @cached_property
    def elements(self) -> list[bytes]:
        """Its elements."""
        found: list[bytes] = []
        for some, services in self.parts:
            keys = [(s.protocol, s.first) for s in services]
            templates = [_templates(self.version, key) for key in keys or (None,)]
            for address, length in networks(some):
                found += [head + address + tails[length] for head, tails in templates]
        return found

    def fill(self, name: str) -> Iterator[Message]:
        """The messages that make it and fill it."""
        yield messages.create(name, self.kind, self.version, limit=max(len(self.elements), 1))
        yield from messages.add(name, self.elements)

    @cached_property
    def _digest(self) -> str:
        rows = (f"{some.digest}{[(s.protocol, s.first) for s in services]}" for some, services in self.parts)
        return hashlib.sha256("".join(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Look:
    """One rule: what a packet must be, and the set its destination must be in."""

    match: str
    into: RangeSet


@dataclass(frozen=True)
class Looks:
    """The rules for the ranges of a ruleset in one family."""

    denied: tuple[Look, ...]
    allowed: tuple[Look, ...]

    @classmethod
    def of(cls, ruleset: Ruleset, version: int) -> Looks:
        """Those of a ruleset; with a policy that is off there are none."""
        if ruleset.mode == "off":
            return cls((), ())
        denied = [group for group in ruleset.denied_groups if group.version == version]
        allowed = [group for group in ruleset.groups if group.version == version]
        return cls(_looks(denied, denied=True), _looks(allowed, denied=False))

    def sets(self) -> Iterator[RangeSet]:
        """The sets they look into."""
        return (look.into for look in (*self.denied, *self.allowed))


def networks(some: Spans) -> Iterator[tuple[bytes, int]]:
    """The fewest networks that have exactly these addresses, packed, each with its prefix length, of which none is 0."""
    bits = 32 if some.version == 4 else 128
    for first, last in some.pairs:
        start = first
        while start <= last:
            size = min(
                (start & -start).bit_length() - 1 if start else bits, (last - start + 1).bit_length() - 1, bits - 1
            )
            yield start.to_bytes(bits // 8, "big"), bits - size
            start += 1 << size


def _looks(groups: Sequence[RangeGroup], *, denied: bool) -> tuple[Look, ...]:
    few = [group for group in groups if group.until is None and group.spans.pairs and _single(group.services)]
    found: list[Look] = []
    if few:
        version = few[0].version
        found.append(Look("", RangeSet(version, tuple((group.spans, group.services) for group in few))))
    for group in groups:
        if group in few or not group.spans.pairs:
            continue
        into = RangeSet(group.version, ((group.spans, ()),))
        until = _until(group.until)
        # A denial of every service is also one of the protocols that no rule can name; what opens every service opens none of these.
        if denied and group.services == merged(EVERY):
            found.append(Look(until, into))
        else:
            found += [Look(f"{m.service(service)} {until}".strip(), into) for service in group.services]
    return tuple(found)


def _templates(version: int, key: tuple[int, int] | None) -> tuple[bytes, list[bytes]]:
    """The bytes of an element before its address, and those after it by prefix length: packed once, not for each element."""
    zero = bytes(4 if version == 4 else 16)
    packed = [messages.element(zero, length=length, service=key) for length in range(len(zero) * 8 + 1)]
    head = messages.ADDRESS_OFFSET
    return packed[0][:head], [one[head + len(zero) :] for one in packed]


def _single(services: Iterable[Service]) -> bool:
    known = tuple(services)
    return len(known) <= _FEW and all(s.protocol in PORTED and s.first == s.last for s in known)


def _until(end: float | None) -> str:
    if end is None or end > _LAST_DATE:
        return ""
    last = max(math.floor(end) - 1, 0)  # the date that is given is the last second that matches
    return f"-m time --datestop {time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(last))}"
