"""Show the presets: named lists of what a service needs, which a policy switches on and off.

  netpolicy presets list                           every preset, and whether it is on where a policy says nothing
  netpolicy presets list --policy .cspace.json     with the project's own presets, and what that policy makes of them
  netpolicy presets show github                    one preset, with all its names and networks

Exit status 0: shown; 2: no such preset, or bad policy.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netpolicy.cli import asked
from netpolicy.errors import Exit, UserError
from netpolicy.policy import Policy, load
from netpolicy.policy.available import available
from netpolicy.policy.loading import base_of
from netpolicy.policy.problems import nearest
from netpolicy.presets import Preset


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="list|show")
    every = verbs.add_parser("list", help="every preset, one a line", allow_abbrev=False)
    one = verbs.add_parser("show", help="one preset with all that it names", allow_abbrev=False)
    one.add_argument("name", metavar="NAME", help="a preset, such as github")
    for verb in (every, one):
        verb.add_argument(
            "--policy",
            type=Path,
            metavar="FILE",
            help="say what this policy makes of it, and know its project's own presets",
        )
        verb.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """List or show."""
    policy = None if args.policy is None else load(args.policy)
    # The policy was read without problems, and so were the presets.
    found = available(None if policy is None else base_of(args.policy), [])
    if args.action == "show":
        if args.name not in found:
            message = f"there is no preset {args.name!r}; {nearest(args.name, found)}"
            raise UserError("no-preset", message, exit_status=Exit.BAD_INPUT)
        preset = found[args.name]
        body = {**_row(preset, policy), "names": list(preset.names), "ranges": list(preset.ranges)}
        text = json.dumps(body) if args.json else "\n".join(_shown(preset, policy))
    else:
        rows = [found[name] for name in sorted(found)]
        listed = {"presets": [_row(preset, policy) for preset in rows]}
        text = json.dumps(listed) if args.json else "\n".join(_listed(rows, policy))
    print(text)  # noqa: T201
    return Exit.OK


def _row(preset: Preset, policy: Policy | None) -> dict[str, Any]:
    """The preset with counts for its lists, and what the policy makes of it."""
    here: dict[str, Any] = {}
    if policy is not None:
        here = {"on": _on(preset, policy), "switched": preset.name in dict(policy.presets)}
    return {**asdict(preset), "names": len(preset.names), "ranges": len(preset.ranges), **here}


def _listed(rows: list[Preset], policy: Policy | None) -> list[str]:
    head = ("preset", "default", *(() if policy is None else ("policy",)), "names", "networks", "date", "source")
    return asked.columns([head, *(_cells(preset, policy) for preset in rows)], indent="")


def _cells(preset: Preset, policy: Policy | None) -> tuple[str, ...]:
    here = () if policy is None else (_here(preset, policy),)
    counts = (str(len(preset.names)), str(len(preset.ranges)))
    return (preset.name, _word(preset.default), *here, *counts, preset.date, preset.source)


def _shown(preset: Preset, policy: Policy | None) -> list[str]:
    rows = [("summary", preset.summary), ("default", _word(preset.default))]
    if policy is not None:
        rows.append(("policy", f"{_here(preset, policy)} in {policy.source}"))
    rows += [("file", preset.file), ("source", preset.source), ("date", preset.date)]
    if preset.ranges_date:
        rows.append(("networks", f"as the provider listed them on {preset.ranges_date}"))
    lists = [("names", preset.names), ("networks", preset.ranges)]
    told = [line for title, texts in lists if texts for line in (f"{title} ({len(texts)})", *(f"  {t}" for t in texts))]
    return [preset.name, *asked.columns(rows), *told]


def _on(preset: Preset, policy: Policy) -> bool:
    return preset.name in {active.name for active in policy.active}


def _here(preset: Preset, policy: Policy) -> str:
    return _word(_on(preset, policy)) + (", switched" if preset.name in dict(policy.presets) else "")


def _word(on: bool) -> str:
    return "on" if on else "off"
