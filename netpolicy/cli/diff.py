"""Compare two policies by what they open, not by how they are written.

OLD and NEW are policies: a .cspace.json (or its directory), or a policy as JSON or TOML. Three lists are printed: what is newly
reachable and newly blocked, each with the rule that says so, and the dead rules of NEW, whose absence would change nothing. Rules of
the presets that come with the kit are not listed as dead. Rules that have ended by now do not count, nor does the environment.
With --merge-old and --merge-new a side is several policies at once: what any allows, unless any denies it.

  netpolicy diff .cspace.json proposal.json
  git show main:.cspace.json > /tmp/old.json; netpolicy diff /tmp/old.json .cspace.json
  netpolicy diff .cspace.json .cspace.json --merge-new company-denials.json

Exit status 0: nothing is newly reachable; 1: something is; 2: bad policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netpolicy.algebra import Dead, Difference, Opening, dead, diff, merge
from netpolicy.cli import asked
from netpolicy.clock import SystemClock
from netpolicy.compile import written
from netpolicy.errors import Exit
from netpolicy.flow import Origin
from netpolicy.policy import Policy, load
from netpolicy.policy.model import Role
from netpolicy.ruleset import Ruleset

_MOST_COVERING = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("old", type=Path, metavar="OLD", help="the policy to compare with")
    parser.add_argument("new", type=Path, metavar="NEW", help="the policy that is looked at")
    for side in ("old", "new"):
        parser.add_argument(
            f"--merge-{side}",
            type=Path,
            metavar="FILE",
            action="append",
            default=[],
            help=f"a policy to merge into {side.upper()} (may be repeated)",
        )
    asked.declare_role(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare two policies."""
    sides = [[load(file) for file in (args.old, *args.merge_old)], [load(file) for file in (args.new, *args.merge_new)]]
    old, new = (_merged(asked.ruleset(policy, args) for policy in side) for side in sides)
    found = diff(old, new)
    spare = own_dead(sides[1], args.role)
    text = json.dumps(document(old, new, found, spare)) if args.json else "\n".join(lines(old, new, found, spare))
    print(text)  # noqa: T201
    return Exit.DENIED if found.reachable else Exit.OK


def _merged(rulesets: Iterable[Ruleset]) -> Ruleset:
    parts = list(rulesets)
    return merge(parts, name=" + ".join(part.policy for part in parts))


def own_dead(policies: Sequence[Policy], role: Role = "dev") -> list[Dead]:
    """The dead rules that the policies' authors can take away: not those of the kit's presets."""
    ours = {preset.file for policy in policies for preset in policy.active if preset.file.startswith("preset:")}
    now = SystemClock().now()
    rules = _merged(written(policy, role=role, now=now) for policy in policies)
    return [rule for rule in dead(rules) if rule.origin.source not in ours]


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
    if rule.denies:
        return f" ({_by('denied already by', rule.covered_by) or 'denies nothing that any rule opens'})"
    causes = [_by("covered by", rule.covered_by), _by("denied by", rule.denied_by)]
    return f" ({'; '.join(filter(None, causes)) or 'no rule can open it'})"


def _by(how: str, rules: Sequence[Origin]) -> str:
    if not rules:
        return ""
    more = len(rules) - _MOST_COVERING
    return f"{how} {', '.join(map(str, rules[:_MOST_COVERING]))}{f' and {more} more' if more > 0 else ''}"


def _as_json(opening: Opening) -> dict[str, Any]:
    return {
        "kind": opening.kind,
        "where": None if opening.where is None else str(opening.where),
        "apart": list(opening.apart),
        "services": [str(service) for service in opening.services],
        "rule": None if opening.origin is None else asdict(opening.origin),
        "example": str(opening.example),
        "since": opening.since,
        "until": opening.until,
    }
