"""Show the way of a connection through the firewall's layers, and what each of them says. Nothing is sent.

TARGET and the choice of the policy are those of 'netpolicy check', and so is the verdict; 'check' is the short answer. The
layers, in order: local (the workload's own machine, link or network, and its host), off (the policy is switched off, or only
observed), dns (queries to port 53), name, address, port. The first one that decides ends the path. It observes where it would deny
by a policy that is only observed: the flow passes, and is counted.

  netpolicy explain registry.npmjs.org:8080

Exit status 0: allowed or only observed; 1: denied; 2: bad target or bad policy.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from netpolicy.cli import asked
from netpolicy.errors import Exit
from netpolicy.policy import parse_flow
from netpolicy.steps import explain


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="TARGET", help="what to connect to, such as github.com or 192.0.2.1:22")
    asked.declare(parser)


def run(args: argparse.Namespace) -> int:
    """Explain one target."""
    flow = parse_flow(args.target)
    ruleset = asked.merged(asked.policies(args), args)
    path = explain(ruleset, flow)
    document = {
        "target": args.target,
        "flow": str(flow),
        "steps": [asdict(step) for step in path.steps],
        **asdict(path.verdict),
        "policy": ruleset.policy,
        "ruleset": ruleset.id,
        "mode": ruleset.mode,
        "warnings": list(ruleset.warnings),
    }
    rows = [(str(number), step.name, step.outcome, step.says) for number, step in enumerate(path.steps, 1)]
    said = {"allows": "allowed", "denies": "denied", "observes": "observed"}
    lines = [
        f"{said[path.steps[-1].outcome]}  {flow}",
        *asked.columns(rows),
        *(f"  warning: {warning}" for warning in ruleset.warnings),
    ]
    print(json.dumps(document) if args.json else "\n".join(lines))  # noqa: T201
    return Exit.OK if path.verdict.allowed else Exit.DENIED
