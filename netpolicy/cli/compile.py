"""Print the ruleset that a policy becomes: every name, network and port of the host that is open, with the rule behind it.

With --json it is the ruleset's canonical JSON, sorted and on one line, which a gate's 'apply' takes and which two policies can be
compared by. Rules that open nothing more than others are left out ('netpolicy diff' names them). The policy is FILE, or that of
the project around the working directory, or the built-in defaults; CSPACE_FIREWALL_DOMAINS adds to it.

What has ended by now is left out; what will end says when. --role is for rules that are meant for some containers of an instance.

Several policies make one ruleset: what any of them allows is allowed, unless any denies it.

  netpolicy compile --policy strict.json
  netpolicy compile --policy company.toml --policy .cspace.json
  netpolicy compile --json > ruleset.json

Exit status 0: printed; 2: bad policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence

from netpolicy.cli import asked
from netpolicy.errors import Exit
from netpolicy.flow import Origin
from netpolicy.policy import ends
from netpolicy.ruleset import Mode, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service

_MODES: dict[Mode, str] = {
    "enforce": "",
    "observe": "  (observe: what is not listed here passes as well, and is counted)",
    "off": "  (off: everything passes, whatever is listed here)",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    asked.declare(parser)


def run(args: argparse.Namespace) -> int:
    """Print one ruleset."""
    ruleset = asked.merged(asked.policies(args), args)
    if args.json:
        text = json.dumps(ruleset.to_json(), sort_keys=True, separators=(",", ":"))
    else:
        text = "\n".join(lines(ruleset))
    print(text)  # noqa: T201
    return Exit.OK


def lines(ruleset: Ruleset) -> list[str]:
    """The ruleset for people."""
    denied = [*_rows(ruleset.denied_names), *_rows(ruleset.denied_ranges)]
    return [
        f"ruleset {ruleset.id} of {ruleset.policy}{_MODES[ruleset.mode]}",
        *([] if ruleset.ipv6 else ["no IPv6"]),
        *_section("names", _rows(ruleset.names)),
        *_section("networks", _rows(ruleset.ranges)),
        *_section("host", [_row("the host", [rule.service], rule.origin) for rule in ruleset.host]),
        *(_section("denied", denied) if denied else []),
        *(f"warning: {warning}" for warning in ruleset.warnings),
    ]


def _rows(rules: Iterable[NameRule | RangeRule]) -> list[tuple[str, str, str]]:
    return [
        _row(rule.name if isinstance(rule, NameRule) else str(rule.network), rule.services, rule.origin, rule.until)
        for rule in rules
    ]


def _row(where: str, services: Sequence[Service], origin: Origin, until: float | None = None) -> tuple[str, str, str]:
    what = "everything" if tuple(services) == EVERY else ", ".join(map(str, services))
    return where, what, asked.place(origin) + ("" if until is None else f", until {ends.written(until)}")


def _section(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    return [f"{title} ({len(rows)})", *asked.columns(rows)]
