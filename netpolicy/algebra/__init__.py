"""Rulesets compared as sets of flows: `subset`, `diff`, `dead`. Pure.

A flow counts as reachable where `decide` allows it, whatever names resolve to: `subset(child, parent)` holds if in every world
(any addresses behind any names) everything that the child's rules let through, the parent's let through as well. The host's own
ports are told as flows to `HOST`'s gateway, so that ``decide(ruleset, flow, attachment=HOST)`` says the same.

What enters here: questions about whole rulesets. Questions about one flow are `netpolicy.decide`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from netpolicy.algebra.beyond import beyond
from netpolicy.algebra.dead import Dead, dead
from netpolicy.algebra.openings import HOST, Kind, Opening
from netpolicy.flow import Flow
from netpolicy.ruleset import Ruleset

__all__ = ["HOST", "Dead", "Difference", "Kind", "Opening", "dead", "diff", "subset"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one ruleset to another."""

    reachable: tuple[Opening, ...]
    """Allowed now, and not before."""
    blocked: tuple[Opening, ...]
    """Allowed before, and not now."""
    dead: tuple[Dead, ...]
    """Rules of the new one that open nothing which its other rules do not open."""


def subset(child: Ruleset, parent: Ruleset) -> Flow | None:
    """Whether everything the child opens is open in the parent too.

    Returns:
        None if so; otherwise a counterexample, a flow that the child allows and the parent does not. (Where the child lets names
        resolve into a private network and the parent does not, it is a flow to an address there, allowed once it is learned.)
    """
    first = next(beyond(child, parent), None)
    return None if first is None else first.example


def diff(old: Ruleset, new: Ruleset) -> Difference:
    """What changes for flows when the new ruleset takes the old one's place, and which of the new rules nobody would miss."""
    return Difference(tuple(beyond(new, old)), tuple(beyond(old, new)), dead(new))
