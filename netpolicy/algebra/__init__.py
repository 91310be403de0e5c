"""Rulesets as sets of flows: `subset`, `diff`, `dead`, `merge`. Pure.

A flow counts as reachable where `decide` allows it, whatever names resolve to: `subset(child, parent)` holds if in every world
(any addresses behind any names), at every moment, everything that the child's rules let through, the parent's let through as well.
Rules that have ended by now are `Ruleset.at`'s to drop first. The host's own ports are told as flows to `HOST`'s gateway, so that
``decide(ruleset, flow, attachment=HOST)`` says the same.

What enters here: questions about whole rulesets. Questions about one flow are `netpolicy.decide`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from netpolicy.algebra.beyond import beyond
from netpolicy.algebra.dead import Dead, dead
from netpolicy.algebra.merging import merge
from netpolicy.algebra.openings import HOST, Counterexample, Kind, Opening
from netpolicy.ruleset import Ruleset

__all__ = ["HOST", "Counterexample", "Dead", "Difference", "Kind", "Opening", "dead", "diff", "merge", "subset"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one ruleset to another."""

    reachable: tuple[Opening, ...]
    """Allowed now, and not before."""
    blocked: tuple[Opening, ...]
    """Allowed before, and not now."""
    dead: tuple[Dead, ...]
    """Rules of the new one that open nothing which its other rules do not open."""


def subset(child: Ruleset, parent: Ruleset) -> Counterexample | None:
    """Whether everything the child opens is open in the parent too, and for as long.

    Returns:
        None if so; otherwise a flow that the child allows and the parent does not, at once or from a moment on at which a rule of
        the parent ends. (Where the child lets names resolve into a network and the parent does not, it is a flow to an address
        there, allowed once it is learned.)
    """
    first = next(beyond(child, parent), None)
    return None if first is None else Counterexample(first.example, first.since)


def diff(old: Ruleset, new: Ruleset) -> Difference:
    """What changes for flows when the new ruleset takes the old one's place, and which of the new rules nobody would miss."""
    return Difference(tuple(beyond(new, old)), tuple(beyond(old, new)), dead(new))
