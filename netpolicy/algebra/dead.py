"""Rules that nobody would miss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from netpolicy.algebra.beyond import beyond
from netpolicy.algebra.normal import common, lifted
from netpolicy.algebra.parts import Part, Parts, Rule, services_of
from netpolicy.flow import Origin
from netpolicy.ruleset import HostRule, NameRule, RangeRule, Ruleset, end


@dataclass(frozen=True, slots=True)
class Dead:
    """A rule whose absence would change nothing."""

    origin: Origin
    covered_by: tuple[Origin, ...] = ()
    """The rules that open (or deny) the same, as far as it opens (or denies) anything."""
    denied_by: tuple[Origin, ...] = ()
    """The denials that take away what it would open."""
    denies: bool = False
    """Whether it is a denial: of nothing that any rule opens, but for what `covered_by` denies."""


def dead(ruleset: Ruleset) -> tuple[Dead, ...]:
    """The rules that can all be taken away together without changing the fate of any flow, in the order in which they stand.

    A rule is what has one origin. Of rules that open the same the last ones are dead, so `compile.written` puts first what is to
    be kept. Denials are judged by all that is written, so one that takes away a dead rule stays: without it, that rule would
    open. A policy that is off or observed is judged as if it were in force. `compile_policy` leaves out most dead rules.
    """
    rules = _Rules(replace(ruleset, mode="enforce"))
    idle = [found for unit in reversed(rules.denials) if (found := rules.idle(unit)) is not None]
    spare = [found for unit in reversed(rules.allowing) if (found := rules.spare(unit)) is not None]
    return (*reversed(spare), *reversed(idle))


class _Rules:
    """The rules that are left, by where they are written."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._parts = Parts(ruleset)
        self._gone: set[Origin] = set()
        self._idle: set[Origin] = set()
        self.allowing: dict[Origin, list[Rule]] = {}
        rules: list[Rule] = [*ruleset.names, *ruleset.ranges, *ruleset.host]
        for rule in rules:
            self.allowing.setdefault(rule.origin, []).append(rule)
        self.denials: dict[Origin, list[NameRule | RangeRule]] = {}
        denials: list[NameRule | RangeRule] = [*ruleset.denied_names, *ruleset.denied_ranges]
        for denial in denials:
            self.denials.setdefault(denial.origin, []).append(denial)

    def idle(self, unit: Origin) -> Dead | None:
        """Take a denial away if nothing changes; returns what is to be said of it, or None where it stays."""
        covering: dict[Origin, None] = {}
        for rule in self.denials[unit]:
            for part in self._parts.denied(rule):
                others = [other for other in part.denying if other.origin != unit and other.origin not in self._idle]
                if not part.covered(others):
                    return None
                covering |= _touching(part, others)
        self._idle.add(unit)
        return Dead(unit, tuple(covering), denies=True)

    def spare(self, unit: Origin) -> Dead | None:
        """The same of a rule that opens."""
        covering: dict[Origin, None] = {}
        denying: dict[Origin, None] = {}
        for rule in self.allowing[unit]:
            for part in self._parts.opened(rule):
                others = [o for o in part.opening if o.origin != unit and o.origin not in self._gone]
                others = [other for other in others if _end(other) >= _end(rule)]
                denials = [denial for denial in part.denying if denial.origin not in self._idle]
                if part.covered(denials):
                    denying |= _touching(part, denials)
                elif part.covered([*others, *denials]):
                    covering |= _touching(part, others)
                    denying |= {} if part.covered(others) else _touching(part, denials)
                else:
                    return None
        if self._lifts(unit):
            return None
        self._gone.add(unit)
        return Dead(unit, tuple(covering), tuple(denying))

    def _lifts(self, unit: Origin) -> bool:
        """Whether names would no longer resolve to addresses to which they may resolve because of this rule."""
        if not any(isinstance(rule, RangeRule) and lifted(rule).pairs for rule in self.allowing[unit]):
            return False
        left = [rule for rule in self._ruleset.ranges if rule.origin not in self._gone]
        with_it = replace(self._ruleset, ranges=tuple(left))
        without_it = replace(self._ruleset, ranges=tuple(rule for rule in left if rule.origin != unit))
        return next(beyond(with_it, without_it), None) is not None


def _touching(part: Part, rules: Iterable[Rule]) -> dict[Origin, None]:
    """The rules that say something of what a part says."""
    wanted = part.services
    return {rule.origin: None for rule in rules if common(wanted, services_of(rule))}


def _end(rule: Rule) -> float:
    return end(None if isinstance(rule, HostRule) else rule.until)
