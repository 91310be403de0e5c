"""Show the presets: named lists of what a service needs, which a policy switches on and off.

  netpolicy presets list                           every preset, and whether it is on where a policy says nothing
  netpolicy presets list --policy .cspace.json     with the project's own presets, and what that policy makes of them
  netpolicy presets show github                    one preset, with all its names and networks
  netpolicy presets refresh                        fetch the networks that providers publish, such as GitHub's

A fetched list is checked before it is kept: a line that is no network is left out, and a list that is empty, has shrunk to less
than half or has private or very wide networks is refused, and the one before stays in use. It is kept in
$XDG_CACHE_HOME/netpolicy/presets; without one, the dated copy that is shipped with the package is used.

Exit status 0: shown or fetched; 2: no such preset, or bad policy; 5: not fetched, or refused.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netpolicy import presets
from netpolicy.cli import asked
from netpolicy.clock import SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.policy import Policy, load
from netpolicy.policy.available import available
from netpolicy.policy.loading import base_of
from netpolicy.policy.problems import nearest
from netpolicy.presets import Preset, ages

if TYPE_CHECKING:
    from netpolicy.presets.refreshing import Refreshed


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="list|show|refresh")
    every = verbs.add_parser("list", help="every preset, one a line", allow_abbrev=False)
    one = verbs.add_parser("show", help="one preset with all that it names", allow_abbrev=False)
    one.add_argument("name", metavar="NAME", help="a preset, such as github")
    anew = verbs.add_parser("refresh", help="fetch the networks that providers publish", allow_abbrev=False)
    anew.add_argument("name", metavar="NAME", nargs="?", help="one preset; every one with a provider's list without it")
    anew.add_argument("--url", metavar="URL", help="ask there instead of the provider (https://)")
    anew.add_argument("--json", action="store_true", help="one JSON object")
    for verb in (every, one):
        verb.add_argument(
            "--policy",
            type=Path,
            metavar="FILE",
            help="say what this policy makes of it, and know its project's own presets",
        )
        verb.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """List, show or refresh."""
    if args.action == "refresh":
        return _refresh(args)
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


def _refresh(args: argparse.Namespace) -> int:
    # TLS is loaded by whoever fetches.
    from netpolicy.presets.refreshing import refresh

    wanted = presets.provided() if args.name is None else [args.name]
    done = [refresh(name, clock=SystemClock(), url=args.url) for name in wanted]
    rows = [{**asdict(found), "file": str(found.file)} for found in done]
    text = json.dumps({"refreshed": rows}) if args.json else "\n".join(line for found in done for line in _came(found))
    print(text)  # noqa: T201
    return Exit.OK


def _came(found: Refreshed) -> list[str]:
    return [
        f"{found.name}: {found.ranges} networks of {found.source}, kept in {found.file}",
        *(f"  new      {network}" for network in found.added),
        *(f"  gone     {network}" for network in found.removed),
        *(f"  warning  {warning}" for warning in found.warnings),
    ]


def _row(preset: Preset, policy: Policy | None) -> dict[str, Any]:
    """The preset with counts for its lists, and what the policy makes of it."""
    here: dict[str, Any] = {}
    if policy is not None:
        here = {"on": _on(preset, policy), "switched": preset.name in dict(policy.presets)}
    age = ages.days(preset, SystemClock().now())
    return {**asdict(preset), "names": len(preset.names), "ranges": len(preset.ranges), "ranges_days": age, **here}


def _listed(rows: list[Preset], policy: Policy | None) -> list[str]:
    head = ("preset", "default", *(() if policy is None else ("policy",)), "names", "networks", "date", "source")
    return asked.columns([head, *(_cells(preset, policy) for preset in rows)], indent="")


def _cells(preset: Preset, policy: Policy | None) -> tuple[str, ...]:
    here = () if policy is None else (_here(preset, policy),)
    aged = f" ({ages.told(preset, SystemClock().now())})" if preset.ranges_date else ""
    counts = (str(len(preset.names)), f"{len(preset.ranges)}{aged}")
    return (preset.name, _word(preset.default), *here, *counts, preset.date, preset.source)


def _shown(preset: Preset, policy: Policy | None) -> list[str]:
    rows = [("summary", preset.summary), ("default", _word(preset.default))]
    if policy is not None:
        rows.append(("policy", f"{_here(preset, policy)} in {policy.source}"))
    rows += [("file", preset.file), ("source", preset.source), ("date", preset.date)]
    if preset.ranges_date:
        rows.append(("networks", f"of {preset.ranges_source}, {ages.told(preset, SystemClock().now())}"))
        if preset.ranges_from != presets.SHIPPED:
            rows.append(("copy", preset.ranges_from))
    rows += [("warning", note) for note in preset.notes]
    lists = [("names", preset.names), ("networks", preset.ranges)]
    told = [line for title, texts in lists if texts for line in (f"{title} ({len(texts)})", *(f"  {t}" for t in texts))]
    return [preset.name, *asked.columns(rows), *told]


def _on(preset: Preset, policy: Policy) -> bool:
    return preset.name in {active.name for active in policy.active}


def _here(preset: Preset, policy: Policy) -> str:
    return _word(_on(preset, policy)) + (", switched" if preset.name in dict(policy.presets) else "")


def _word(on: bool) -> str:
    return "on" if on else "off"
