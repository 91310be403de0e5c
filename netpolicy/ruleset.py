"""The one artefact: an immutable `Ruleset`. `compile` makes it, `decide` reads it, `kernel` and the DNS gate enforce it.

It crosses process borders (command line to gate daemon) as canonical JSON; its `id` is the hash of that JSON without
provenance, so two policies that mean the same have the same id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

from netpolicy import spans
from netpolicy.flow import Address, Origin
from netpolicy.prefixes import Prefixes
from netpolicy.services import Service, elements, merged
from netpolicy.spans import Spans

Network = IPv4Network | IPv6Network
Mode = Literal["enforce", "off"]

#: The wire format's version; a gate refuses another one.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class NameRule:
    """An allowed exact name. Its addresses are learned by the DNS gate when it answers."""

    name: str
    services: tuple[Service, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class RangeRule:
    """An allowed network (a single address is a /32 or /128)."""

    network: Network
    services: tuple[Service, ...]
    origin: Origin


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
    names: tuple[NameRule, ...] = ()
    ranges: tuple[RangeRule, ...] = ()
    host: tuple[HostRule, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What compiling could not do, e.g. a provider list that is only a dated snapshot; makes the state `degraded`."""

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits over the meaning (not the provenance) of the rules."""
        meaning = json.dumps(self._meaning(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(meaning.encode()).hexdigest()[:12]

    @cached_property
    def by_name(self) -> Mapping[str, tuple[NameRule, ...]]:
        """All rules of each allowed name."""
        found: dict[str, tuple[NameRule, ...]] = {}
        for rule in self.names:
            found[rule.name] = (*found.get(rule.name, ()), rule)
        return found

    @cached_property
    def by_prefix(self) -> Prefixes[RangeRule]:
        """The range rules, for finding those around an address."""
        index: Prefixes[RangeRule] = Prefixes()
        for rule in self.ranges:
            index.add(rule.network, rule)
        return index

    def services_of(self, name: str) -> tuple[Service, ...]:
        """The services of an allowed name, merged over its rules, sorted; empty where the name is not allowed."""
        return merged(s for rule in self.by_name.get(name, ()) for s in rule.services)

    def services_at(self, address: Address) -> tuple[Service, ...]:
        """The services of the allowed ranges around an address, merged, sorted; learned addresses are not known here."""
        return merged(s for rule in self.by_prefix.around(address) for s in rule.services)

    def _meaning(self) -> dict[str, Any]:
        """What the rules open, in the one form that all rulesets which open the same have."""
        return {
            "format": FORMAT,
            "mode": self.mode,
            "names": [[name, [_service(s) for s in self.services_of(name)]] for name in sorted(self.by_name)],
            "ranges": self._ranges(),
            "host": [_service(s) for s in merged(r.service for r in self.host)],
        }

    @cached_property
    def by_services(self) -> Mapping[tuple[int, tuple[Service, ...]], Spans]:
        """The allowed addresses of each family by the (merged) services they are allowed with."""
        rows: dict[tuple[int, tuple[Service, ...]], list[Network]] = {}
        for rule in self.ranges:
            rows.setdefault((rule.network.version, rule.services), []).append(rule.network)
        groups: dict[tuple[int, tuple[Service, ...]], list[Network]] = {}
        for (version, services), networks in rows.items():
            if services:
                groups.setdefault((version, merged(services)), []).extend(networks)
        return {key: spans.of_networks(groups[key], key[0]) for key in sorted(groups)}

    def _ranges(self) -> list[Any]:
        """For each family, the longest runs of ports with the same addresses, each with the hash of these."""
        found: list[list[Any]] = []
        for piece in elements(s for _, services in self.by_services for s in services):
            for version in (4, 6):
                groups = (item for item in self.by_services.items() if item[0][0] == version)
                parts = [part for (_, services), part in groups if any(s.contains(piece) for s in services)]
                if parts:
                    found.append([version, piece.protocol, piece.first, piece.last, spans.union(parts).digest])
        runs: list[list[Any]] = []
        for row in sorted(found):
            before = runs[-1] if runs else None
            if before is not None and [*before[:2], before[3] + 1, before[4]] == [*row[:3], row[4]]:
                before[3] = row[3]
            else:
                runs.append(row)
        return runs

    def to_json(self) -> dict[str, Any]:
        """The JSON document that `from_json` reads back as an equal object."""
        return {
            "format": FORMAT,
            "policy": self.policy,
            "mode": self.mode,
            "names": [[r.name, [_service(s) for s in r.services], _origin(r.origin)] for r in self.names],
            "ranges": [[str(r.network), [_service(s) for s in r.services], _origin(r.origin)] for r in self.ranges],
            "host": [[_service(r.service), _origin(r.origin)] for r in self.host],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Ruleset:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the document is of another format version or malformed.
        """
        try:
            return cls._read(document)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is no ruleset: {type(error).__name__}: {error}") from error

    @classmethod
    def _read(cls, document: Mapping[str, Any]) -> Ruleset:
        if document.get("format") != FORMAT:
            raise ValueError(f"ruleset format {document.get('format')!r} is not {FORMAT}")
        mode = document["mode"]
        if mode not in ("enforce", "off"):
            raise ValueError(f"ruleset mode {mode!r} is neither 'enforce' nor 'off'")
        return cls(
            policy=_text(document["policy"]),
            mode=mode,
            names=tuple(NameRule(_text(n), _services(s), Origin(*o)) for n, s, o in document["names"]),
            ranges=tuple(RangeRule(ip_network(_text(n)), _services(s), Origin(*o)) for n, s, o in document["ranges"]),
            host=tuple(HostRule(_services([s])[0], Origin(*o)) for s, o in document["host"]),
            warnings=tuple(_text(w) for w in document.get("warnings", ())),
        )


def _service(service: Service) -> list[int]:
    return [service.protocol, service.first, service.last]


def _services(rows: list[list[int]]) -> tuple[Service, ...]:
    services = tuple(Service(*row) for row in rows)
    for service in services:
        numbers = (service.protocol, service.first, service.last)
        if any(type(n) is not int for n in numbers) or not (
            0 <= service.protocol <= 255 and 0 <= service.first <= service.last <= 65535
        ):
            raise ValueError(f"{numbers} is no service")
    return services


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _origin(origin: Origin) -> list[str | None]:
    return [origin.source, origin.key, origin.text, origin.reason]
