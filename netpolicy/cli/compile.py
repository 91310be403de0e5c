"""Print the ruleset that a policy becomes: every name, network and port of the host that is open, with the rule behind it.

With --json it is the ruleset's canonical JSON, sorted and on one line, which a gate's 'apply' takes and which two policies can be
compared by. Rules that open nothing more than others are left out ('netpolicy diff' names them). The policy is FILE, or that of
the project around the working directory, or the built-in defaults; CSPACE_FIREWALL_DOMAINS adds to it.

  netpolicy compile --policy strict.json
  netpolicy compile --json > ruleset.json

Exit status 0: printed; 2: bad policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from netpolicy.cli import asked
from netpolicy.compile import compile_policy
from netpolicy.errors import Exit
from netpolicy.flow import Origin
from netpolicy.ruleset import Ruleset
from netpolicy.services import Service


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    asked.declare(parser)


def run(args: argparse.Namespace) -> int:
    """Print one ruleset."""
    ruleset = compile_policy(asked.policy(args))
    if args.json:
        text = json.dumps(ruleset.to_json(), sort_keys=True, separators=(",", ":"))
    else:
        text = "\n".join(lines(ruleset))
    print(text)  # noqa: T201
    return Exit.OK


def lines(ruleset: Ruleset) -> list[str]:
    """The ruleset for people."""
    off = "  (off: everything passes, whatever is listed here)" if ruleset.mode == "off" else ""
    return [
        f"ruleset {ruleset.id} of {ruleset.policy}{off}",
        *_section("names", [_row(rule.name, rule.services, rule.origin) for rule in ruleset.names]),
        *_section("networks", [_row(str(rule.network), rule.services, rule.origin) for rule in ruleset.ranges]),
        *_section("host", [_row("the host", [rule.service], rule.origin) for rule in ruleset.host]),
        *(f"warning: {warning}" for warning in ruleset.warnings),
    ]


def _row(where: str, services: Sequence[Service], origin: Origin) -> tuple[str, str, str]:
    return where, ", ".join(map(str, services)), asked.place(origin)


def _section(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    return [f"{title} ({len(rows)})", *asked.columns(rows)]
