"""Rules that nobody would miss."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from netpolicy import spans
from netpolicy.algebra.beyond import beyond
from netpolicy.algebra.normal import asked, effective, lifted, outward
from netpolicy.flow import Origin
from netpolicy.ruleset import HostRule, NameRule, RangeRule, Ruleset
from netpolicy.services import Service, elements, subtract

_Rule = NameRule | RangeRule | HostRule


@dataclass(frozen=True, slots=True)
class Dead:
    """A rule that opens nothing which the others do not open."""

    origin: Origin
    covered_by: tuple[Origin, ...]
    """The rules that open the same, as far as it opens anything."""


def dead(ruleset: Ruleset) -> tuple[Dead, ...]:
    """The rules that can all be taken away together without changing the fate of any flow, in the order in which they stand.

    A rule is what has one origin. Of rules that open the same the last ones are dead, so `compile.written` puts first what is to
    be kept. A policy that is off is judged as if it were on. `compile_policy` leaves dead rules out, so its rulesets have few.
    """
    written = _Written(replace(ruleset, mode="enforce"))
    found = [Dead(unit, by) for unit in reversed(written.units) if (by := written.spare(unit)) is not None]
    return tuple(reversed(found))


class _Written:
    """The rules that are left, by what they are for."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._gone: set[Origin] = set()
        self._rules: dict[Origin, list[_Rule]] = {}
        rules: list[_Rule] = [*ruleset.names, *ruleset.ranges, *ruleset.host]
        for rule in rules:
            self._rules.setdefault(rule.origin, []).append(rule)
        self.units = list(self._rules)
        self._by_address = sorted((_key(rule), index) for index, rule in enumerate(ruleset.ranges))

    def spare(self, unit: Origin) -> tuple[Origin, ...] | None:
        """Take the rule away if nothing changes; returns what covers it, or None where it stays."""
        covering: dict[Origin, None] = {}
        for rule in self._rules[unit]:
            others = [other for other in self._around(rule) if other.origin != unit and other.origin not in self._gone]
            if not _covered(rule, others):
                return None
            wanted = _services(rule)
            covering |= {o.origin: None for o in others if subtract(wanted, _services(o)) != wanted}
        if self._lifts(unit):
            return None
        self._gone.add(unit)
        return tuple(covering)

    def _around(self, rule: _Rule) -> Iterable[_Rule]:
        """The rules that may open something of what this one opens, itself among them."""
        match rule:
            case NameRule():
                return self._ruleset.by_name[rule.name]
            case HostRule():
                return self._ruleset.host
            case RangeRule():
                return self._overlapping(rule)

    def _overlapping(self, rule: RangeRule) -> Iterator[RangeRule]:
        yield from self._ruleset.by_prefix.around(rule.network)
        version, first, length = _key(rule)
        last = int(rule.network.broadcast_address)
        begin = bisect.bisect_left(self._by_address, ((version, first, length + 1), -1))
        end = bisect.bisect_right(self._by_address, ((version, last, 129), -1))
        yield from (self._ruleset.ranges[index] for _key, index in self._by_address[begin:end])

    def _lifts(self, unit: Origin) -> bool:
        """Whether names would no longer resolve to addresses to which they may resolve because of this rule."""
        if not any(isinstance(rule, RangeRule) and lifted(rule).pairs for rule in self._rules[unit]):
            return False
        left = [rule for rule in self._ruleset.ranges if rule.origin not in self._gone]
        with_it = replace(self._ruleset, ranges=tuple(left))
        without = replace(self._ruleset, ranges=tuple(rule for rule in left if rule.origin != unit))
        return next(beyond(with_it, without), None) is not None


def _key(rule: RangeRule) -> tuple[int, int, int]:
    return (rule.network.version, int(rule.network.network_address), rule.network.prefixlen)


def _services(rule: _Rule) -> tuple[Service, ...]:
    return effective([rule.service] if isinstance(rule, HostRule) else rule.services)


def _covered(rule: _Rule, others: list[_Rule]) -> bool:
    if isinstance(rule, NameRule) and not asked(rule.name):
        return True
    if not isinstance(rule, RangeRule):
        return not subtract(_services(rule), (s for other in others for s in _services(other)))
    return _range_covered(rule, [other for other in others if isinstance(other, RangeRule)])


def _range_covered(rule: RangeRule, others: list[RangeRule]) -> bool:
    """By the networks around it, or for what is left by those inside it, together."""
    wide = [other for other in others if other.network.prefixlen <= rule.network.prefixlen]
    left = subtract(_services(rule), (s for other in wide for s in _services(other)))
    own = outward(rule.network)
    if not left or not own.pairs:
        return True
    inner = [(other.network, _services(other)) for other in others if other.network.prefixlen > rule.network.prefixlen]
    if not inner:
        return False
    for piece in elements([*left, *(s for _, services in inner for s in services)]):
        if any(s.contains(piece) for s in left):
            having = [network for network, services in inner if any(s.contains(piece) for s in services)]
            if spans.subtract(own, spans.of_networks(having, rule.network.version)).pairs:
                return False
    return True
