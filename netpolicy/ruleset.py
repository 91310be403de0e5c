"""The one artefact: an immutable `Ruleset`. `compile` makes it, `decide` reads it, `kernel` and the DNS gate enforce it.

It crosses process borders (command line to gate daemon) as canonical JSON; its `id` is the hash of that JSON without
provenance, so two policies that mean the same have the same id.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal, get_args

from netpolicy import patterns, spans
from netpolicy.addresses import forbidden, plain
from netpolicy.flow import Address, Origin
from netpolicy.places import Places
from netpolicy.prefixes import Prefixes
from netpolicy.services import Service, merged, subtract
from netpolicy.spans import Spans

Network = IPv4Network | IPv6Network
Mode = Literal["enforce", "observe", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)
OnDrift = Literal["repair", "lock"]
ON_DRIFT: tuple[OnDrift, ...] = get_args(OnDrift)

#: The wire format's version; a gate refuses another one.
FORMAT = 2


@dataclass(frozen=True, slots=True)
class NameRule:
    """A name, exact or ``*.suffix`` (`netpolicy.patterns`). Its addresses are learned by the DNS gate when it answers."""

    name: str
    services: tuple[Service, ...]
    origin: Origin
    until: float | None = None
    """When the rule ends, in seconds since 1970 (UTC); None: never. A denial has no end, for its end would open something."""

    @property
    def exact(self) -> bool:
        """Whether it is for one name, which can be resolved before anybody asks."""
        return not patterns.is_wildcard(self.name)


@dataclass(frozen=True, slots=True)
class RangeRule:
    """A network (a single address is a /32 or /128)."""

    network: Network
    services: tuple[Service, ...]
    origin: Origin
    until: float | None = None
    """As with names."""


@dataclass(frozen=True, slots=True)
class RangeGroup:
    """The addresses of one family that ranges open (or deny) with the same services and the same end."""

    version: int
    services: tuple[Service, ...]
    """Merged, never empty."""
    until: float | None
    spans: Spans


@dataclass(frozen=True, slots=True)
class HostRule:
    """A port of the host itself (the gate's side of the bridge) that the workload may reach."""

    service: Service
    origin: Origin


@dataclass(frozen=True, slots=True)
class Learned:
    """An address that the DNS gate has answered for an allowed name."""

    name: str
    address: Address
    services: tuple[Service, ...]
    seconds: float
    """Lifetime in the kernel, in seconds (the answer's TTL, clamped, plus grace)."""


@dataclass(frozen=True)
class Ruleset:
    """What one attachment's workload may reach.

    Raises nothing: whoever builds it has validated (`compile`), whoever reads JSON validates (`from_json`).
    """

    policy: str
    """The policy's name for people, e.g. the file it came from."""
    mode: Mode = "enforce"
    """``enforce``; ``observe``: what would be refused passes, and is counted; ``off``: everything passes."""
    names: tuple[NameRule, ...] = ()
    ranges: tuple[RangeRule, ...] = ()
    host: tuple[HostRule, ...] = ()
    denied_names: tuple[NameRule, ...] = ()
    """They win over every allowing rule: such a name is not answered, or not opened with these services."""
    denied_ranges: tuple[RangeRule, ...] = ()
    """They win over every allowing rule, also for addresses that allowed names resolve to."""
    ipv6: bool = True
    """False: nothing leaves by IPv6, and names have no IPv6 addresses."""
    on_drift: OnDrift = "repair"
    """What the gate does when another program has changed the rules: put them right, or lock the attachment."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What compiling could not do, e.g. a provider list that is only a dated snapshot; makes the state `degraded`."""

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the fields, and none of the indexes made of them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits over the meaning (not the provenance) of the rules."""
        # It reads rulesets, and they are told by it.
        from netpolicy.meaning import meaning

        said = json.dumps(meaning(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    @cached_property
    def by_name(self) -> Mapping[str, tuple[NameRule, ...]]:
        """All allowing rules of each pattern, exact names and wildcards alike."""
        return _by_pattern(self.names)

    @cached_property
    def denied_by_name(self) -> Mapping[str, tuple[NameRule, ...]]:
        """All denying rules of each pattern."""
        return _by_pattern(self.denied_names)

    @cached_property
    def by_prefix(self) -> Prefixes[RangeRule]:
        """The allowing range rules, for finding those around an address."""
        return _by_network(self.ranges)

    @cached_property
    def denied_by_prefix(self) -> Prefixes[RangeRule]:
        """The denying range rules, for finding those around an address."""
        return _by_network(self.denied_ranges)

    @cached_property
    def places(self) -> Places:
        """The index that `decide` reads."""
        return Places(self)

    def rules_for(self, name: str) -> tuple[NameRule, ...]:
        """The allowing rules for a concrete name: its own first, then wildcards, the nearest first."""
        return _matching(self.by_name, name)

    def denials_for(self, name: str) -> tuple[NameRule, ...]:
        """The denying rules for a concrete name, in the same order."""
        return _matching(self.denied_by_name, name)

    def services_of(self, name: str) -> tuple[Service, ...]:
        """The services of a concrete name, less what is denied of them, merged, sorted; empty where the name is not allowed."""
        allowed = [s for rule in self.rules_for(name) for s in rule.services]
        return subtract(allowed, (s for rule in self.denials_for(name) for s in rule.services)) if allowed else ()

    def knows(self, name: str) -> bool:
        """Whether the DNS gate answers for a concrete name."""
        return bool(self.services_of(name))

    @cached_property
    def exact_names(self) -> tuple[str, ...]:
        """The names that can be resolved before anybody asks, sorted."""
        return tuple(sorted({rule.name for rule in self.names if rule.exact and self.knows(rule.name)}))

    def services_at(self, address: Address) -> tuple[Service, ...]:
        """The services of the ranges around an address, less what is denied there, merged, sorted.

        Learned addresses are not known here.
        """
        address = plain(address)
        if address.version == 6 and not self.ipv6:
            return ()
        return subtract((s for rule in self.by_prefix.around(address) for s in rule.services), self.denied_at(address))

    def denied_at(self, address: Address) -> tuple[Service, ...]:
        """The services that are denied at an address, whoever opens them, merged, sorted."""
        return merged(s for rule in self.denied_by_prefix.around(plain(address)) for s in rule.services)

    def admits(self, address: Address) -> bool:
        """Whether a name may have the address: it is a public one, or a range is the owner's word for it."""
        return forbidden(address, (rule.network for rule in self.by_prefix.around(address))) is None

    def at(self, moment: float) -> Ruleset:
        """The ruleset without what has ended by then (seconds since 1970); itself where nothing has.

        Asked again and again, it gives the same object (with its indexes) until another rule ends.
        """
        ended = bisect.bisect_right(self.ends, moment)
        if not ended:
            return self
        known = self._later
        if known.get(ended) is None:
            # Time goes on: what was in force before is not asked for again.
            known.clear()
            known[ended] = replace(
                self,
                names=tuple(rule for rule in self.names if rule.until is None or rule.until > moment),
                ranges=tuple(rule for rule in self.ranges if rule.until is None or rule.until > moment),
            )
        return known[ended]

    @cached_property
    def ends(self) -> tuple[float, ...]:
        """When rules end, in seconds since 1970, in order."""
        rules: list[NameRule | RangeRule] = [*self.names, *self.ranges]
        return tuple(sorted({rule.until for rule in rules if rule.until is not None}))

    @cached_property
    def _later(self) -> dict[int, Ruleset]:
        """The last answer of `at`, by how many ends had passed."""
        return {}

    @property
    def next_end(self) -> float | None:
        """When the first of the rules ends, in seconds since 1970; None where none does."""
        return self.ends[0] if self.ends else None

    @cached_property
    def groups(self) -> tuple[RangeGroup, ...]:
        """The allowed ranges by family, services and end, in a stable order; denied ones are not taken out of them."""
        return _groups(self.ranges)

    @cached_property
    def denied_groups(self) -> tuple[RangeGroup, ...]:
        """The same of the denied ranges."""
        return _groups(self.denied_ranges)

    def to_json(self) -> dict[str, Any]:
        """The JSON document that `from_json` reads back as an equal object."""
        from netpolicy import ruleset_json  # it reads rulesets, and they are written by it

        return ruleset_json.written(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Ruleset:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the document is of another format version or malformed.
        """
        from netpolicy import ruleset_json  # as above

        return ruleset_json.read(document)


def _by_pattern(rules: Iterable[NameRule]) -> Mapping[str, tuple[NameRule, ...]]:
    found: dict[str, tuple[NameRule, ...]] = {}
    for rule in rules:
        found[rule.name] = (*found.get(rule.name, ()), rule)
    return found


def _matching(rules: Mapping[str, tuple[NameRule, ...]], name: str) -> tuple[NameRule, ...]:
    if not rules:
        return ()
    return tuple(rule for pattern in patterns.matching(name) for rule in rules.get(pattern, ()))


def _by_network(rules: Iterable[RangeRule]) -> Prefixes[RangeRule]:
    index: Prefixes[RangeRule] = Prefixes()
    for rule in rules:
        index.add(rule.network, rule)
    return index


def _groups(rules: tuple[RangeRule, ...]) -> tuple[RangeGroup, ...]:
    # Many rules share one tuple of services: its number is a quicker key than its content.
    rows: dict[tuple[int, int, float | None], tuple[tuple[Service, ...], list[Network]]] = {}
    for rule in rules:
        key = rule.network.version, id(rule.services), rule.until
        row = rows.get(key)
        if row is None:
            row = rows[key] = rule.services, []
        row[1].append(rule.network)
    found: dict[tuple[int, tuple[Service, ...], float | None], list[Network]] = {}
    for (version, _number, until), (services, networks) in rows.items():
        if services:
            found.setdefault((version, merged(services), until), []).extend(networks)
    order = sorted(found, key=lambda key: (key[0], key[1], end(key[2])))
    return tuple(RangeGroup(*key, spans.of_networks(found[key], key[0])) for key in order)


def end(until: float | None) -> float:
    """The end of a rule as a number that compares: infinite where it never ends."""
    return math.inf if until is None else float(until)
