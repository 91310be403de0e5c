"""What one rule says, in parts, each with the rules that may say the same of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from netpolicy import spans
from netpolicy.algebra.normal import answerable, asked, common, effective, outward, plain
from netpolicy.algebra.overlaps import Overlaps
from netpolicy.algebra.pieces import Piece, without
from netpolicy.algebra.regions import Regions
from netpolicy.ruleset import HostRule, NameRule, Network, RangeRule, Ruleset
from netpolicy.services import Service, merged, subtract

Rule = NameRule | RangeRule | HostRule


def services_of(rule: Rule) -> tuple[Service, ...]:
    """What a rule can open or deny."""
    return effective([rule.service] if isinstance(rule, HostRule) else rule.services)


@dataclass(frozen=True, slots=True)
class NamePart:
    """Services at the names of one region, or at the host."""

    services: tuple[Service, ...]
    opening: Sequence[Rule]
    denying: Sequence[Rule] = ()

    def covered(self, rules: Sequence[Rule]) -> bool:
        """Whether rules out of `opening` or `denying` say all of it."""
        return not subtract(self.services, (s for rule in rules for s in services_of(rule)))


@dataclass(frozen=True, slots=True)
class RangePart:
    """Services at addresses of one family."""

    pieces: Sequence[Piece]
    opening: Sequence[RangeRule]
    denying: Sequence[RangeRule]

    @property
    def services(self) -> tuple[Service, ...]:
        """All of its services."""
        return merged(s for _, services in self.pieces for s in services)

    def covered(self, rules: Sequence[Rule]) -> bool:
        """Whether rules out of `opening` or `denying` say all of it."""
        if not self.pieces:
            return True
        version = self.pieces[0][0].version
        networks: dict[tuple[Service, ...], list[Network]] = {}
        for rule in rules:
            assert isinstance(rule, RangeRule)
            networks.setdefault(services_of(rule), []).append(rule.network)
        return not without(self.pieces, [(spans.of_networks(own, version), s) for s, own in networks.items()])


Part = NamePart | RangePart


class Parts:
    """The parts of a ruleset's rules."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._regions = Regions(ruleset)
        self._opening = Overlaps(ruleset.ranges, ruleset.by_prefix)
        self._denying = Overlaps(ruleset.denied_ranges, ruleset.denied_by_prefix)
        self._reach = {version: list(self._reached(version)) for version in (4, 6)}

    def opened(self, rule: Rule) -> Iterator[Part]:
        """What a rule would open if there were no other."""
        match rule:
            case HostRule():
                yield NamePart(services_of(rule), self._ruleset.host)
            case RangeRule():
                whole = (outward(rule.network), services_of(rule))
                yield self._at(rule.network, [whole] if all(whole) and self._on(rule.network) else [])
            case NameRule():
                for region in self._around(rule.name):
                    yield self._of(region, services_of(rule))
            case _:
                assert_never(rule)

    def denied(self, rule: NameRule | RangeRule) -> Iterator[Part]:
        """What a rule denies of all that is opened."""
        if isinstance(rule, NameRule):
            for region in self._around(rule.name):
                opened = effective(s for own in self._ruleset.rules_for(region) for s in own.services)
                yield self._of(region, common(services_of(rule), opened))
            return
        addresses = outward(rule.network)
        found = (
            (spans.intersect(addresses, reached), common(services_of(rule), services))
            for reached, services in self._reach[rule.network.version]
        )
        yield self._at(rule.network, [piece for piece in found if all(piece)])

    def _around(self, name: str) -> Iterable[str]:
        """The regions that a name or wildcard is for."""
        return (name, *self._regions.inside(name)) if asked(name) else ()

    def _of(self, region: str, services: tuple[Service, ...]) -> Part:
        return NamePart(services, self._ruleset.rules_for(region), self._ruleset.denials_for(region))

    def _at(self, network: Network, pieces: Sequence[Piece]) -> Part:
        return RangePart(pieces, tuple(self._opening.of(network)), tuple(self._denying.of(network)))

    def _on(self, network: Network) -> bool:
        return network.version == 4 or self._ruleset.ipv6

    def _reached(self, version: int) -> Iterator[Piece]:
        """What would open if no range were denied: by ranges, and where names may resolve to."""
        if version == 6 and not self._ruleset.ipv6:
            return
        for group in self._ruleset.groups:
            if group.version == version:
                yield group.spans, effective(group.services)
        names = merged(s for region in self._regions.all for s in plain(self._ruleset.services_of(region)))
        yield answerable(self._ruleset.ranges, version), effective(names)
