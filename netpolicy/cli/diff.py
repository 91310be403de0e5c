"""Compare two policies by what they open, not by how they are written.

OLD and NEW are policies: a .cspace.json (or its directory), or a policy as JSON or TOML. Three lists are printed: what is newly
reachable and newly blocked, each with the rule that says so, and the dead rules of NEW, which open nothing that its others do not
open. Rules of the presets that come with the kit are not listed as dead. The environment is not looked at.

  netpolicy diff .cspace.json proposal.json
  git show main:.cspace.json > /tmp/old.json; netpolicy diff /tmp/old.json .cspace.json

Exit status 0: nothing is newly reachable; 1: something is; 2: bad policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netpolicy.algebra import Dead, Difference, Opening, dead, diff
from netpolicy.cli import asked
from netpolicy.compile import compile_policy, written
from netpolicy.errors import Exit
from netpolicy.policy import Policy, load
from netpolicy.ruleset import Ruleset

_MOST_COVERING = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("old", type=Path, metavar="OLD", help="the policy to compare with")
    parser.add_argument("new", type=Path, metavar="NEW", help="the policy that is looked at")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare two policies."""
    policies = load(args.old), load(args.new)
    old, new = (compile_policy(policy) for policy in policies)
    found = diff(old, new)
    spare = own_dead(policies[1])
    text = json.dumps(document(old, new, found, spare)) if args.json else "\n".join(lines(old, new, found, spare))
    print(text)  # noqa: T201
    return Exit.DENIED if found.reachable else Exit.OK


def own_dead(policy: Policy) -> list[Dead]:
    """The dead rules that the policy's author can take away: not those of the kit's presets."""
    ours = {preset.file for preset in policy.active if preset.file.startswith("preset:")}
    return [rule for rule in dead(written(policy)) if rule.origin.source not in ours]


def lines(old: Ruleset, new: Ruleset, found: Difference, spare: list[Dead]) -> list[str]:
    """The difference for people."""
    same = "the same ruleset" if old.id == new.id else f"rulesets {old.id} and {new.id}"
    return [
        f"{old.policy} -> {new.policy}: {same}",
        *_openings("newly reachable", "+", found.reachable),
        *_openings("newly blocked", "-", found.blocked),
        f"dead rules of {new.policy}: {len(spare) or 'none'}",
        *(f"  {asked.place(rule.origin)}: {rule.origin.text}{_because(rule)}" for rule in spare),
        *(f"warning: {warning}" for warning in dict.fromkeys((*old.warnings, *new.warnings))),
    ]


def document(old: Ruleset, new: Ruleset, found: Difference, spare: list[Dead]) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "old": {"policy": old.policy, "ruleset": old.id, "mode": old.mode},
        "new": {"policy": new.policy, "ruleset": new.id, "mode": new.mode},
        "reachable": [_as_json(opening) for opening in found.reachable],
        "blocked": [_as_json(opening) for opening in found.blocked],
        "dead": [asdict(rule) for rule in spare],
        "warnings": list(dict.fromkeys((*old.warnings, *new.warnings))),
    }


def _openings(title: str, sign: str, openings: Iterable[Opening]) -> list[str]:
    rows = [
        (f"{sign} {opening}", "" if opening.origin is None else f"by {asked.place(opening.origin)}")
        for opening in openings
    ]
    return [f"{title}: {len(rows) or 'nothing'}", *asked.columns(rows)]


def _because(rule: Dead) -> str:
    if not rule.covered_by:
        return " (no rule can open it)"
    named = ", ".join(map(str, rule.covered_by[:_MOST_COVERING]))
    more = len(rule.covered_by) - _MOST_COVERING
    return f" (covered by {named}{f' and {more} more' if more > 0 else ''})"


def _as_json(opening: Opening) -> dict[str, Any]:
    return {
        "kind": opening.kind,
        "where": None if opening.where is None else str(opening.where),
        "services": [str(service) for service in opening.services],
        "rule": None if opening.origin is None else asdict(opening.origin),
        "example": str(opening.example),
    }
