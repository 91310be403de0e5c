"""Names in regions: all names of a region mean the same to some rulesets.

A name that a rule spells out is a region; so are the names below a wildcard, without the regions further down. Patterns stand for
regions: the services of a wildcard are those of the names below it that nothing else is said of.
"""

from __future__ import annotations

from netpolicy import patterns
from netpolicy.algebra.normal import asked
from netpolicy.ruleset import Ruleset


class Regions:
    """The regions of all names that rules of some rulesets are for."""

    def __init__(self, *rulesets: Ruleset) -> None:
        known = {name for ruleset in rulesets for name in (*ruleset.by_name, *ruleset.denied_by_name) if asked(name)}
        self.all = tuple(sorted(known, key=lambda name: (patterns.suffix(name).count("."), name)))
        """Wide ones before those inside them."""
        self._known = known
        self._inside: dict[str, list[str]] = {}
        for name in self.all:
            for around in patterns.matching(name):
                if around != name and around in known:
                    self._inside.setdefault(around, []).append(name)

    def inside(self, pattern: str) -> list[str]:
        """The regions within a wildcard, beside its own, wide ones first."""
        return self._inside.get(pattern, [])

    def example(self, pattern: str) -> str:
        """A name of the region."""
        if not patterns.is_wildcard(pattern):
            return pattern
        labels = ("www", *(f"www{number}" for number in range(1, len(self._known) + 1)))
        return next(name for label in labels if (name := f"{label}{pattern[1:]}") not in self._known)
