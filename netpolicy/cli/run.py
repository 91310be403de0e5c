"""Run a command behind the firewall, without Docker.

The command runs in a network namespace of its own whose only way out leads through the firewall: what the policy does not allow
is refused, names that it does not list are not resolved. As root the way out is the host's own network; for other users it is
pasta or slirp4netns. The command's input, output, terminal, signals and exit status are its own. At the end a summary of what was
refused is printed on standard error, by name and by destination, each with what to add to the policy. With --mode observe nothing is
refused, and the summary says what would have been.

The policy is FILE, or that of the project around the working directory (.cspace.json with .cspace.local.json over it), or the
built-in defaults; CSPACE_FIREWALL_DOMAINS adds to it. Several count together: what any of them allows is allowed, unless any
denies it. docs/run.md says what this does not hold back.

Exit status: the command's; 128 and the signal's number where a signal ended it; 127 and 126 where it is not there or not
executable; 2, 3 or 5 with an error message where it was not started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO, get_args

from netpolicy.cli import asked
from netpolicy.errors import Exit, UserError
from netpolicy.kernel.backends import BACKENDS
from netpolicy.run.report import Report
from netpolicy.run.session import plan
from netpolicy.run.session import run as run_session
from netpolicy.run.uplink import Kind


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    asked.declare_policies(parser)
    parser.add_argument(
        "--json-report", type=Path, metavar="FILE", help="write what happened there, as one JSON object"
    )
    parser.add_argument(
        "--mode",
        choices=("enforce", "observe"),
        help="observe: refuse nothing, and say at the end what would have been refused (default: what the policy says)",
    )
    asked.declare_role(parser)
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="what enforces the rules (default: auto, found by trying)"
    )
    parser.add_argument("--user", metavar="USER", help="run the command as this user (name or number; needs root)")
    parser.add_argument(
        "--uplink",
        choices=get_args(Kind),
        help="how to reach the outside (root: host; others: pasta, then slirp4netns)",
    )
    parser.add_argument("--quiet", action="store_true", help="no summary at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD...", help="what to run")


def run(args: argparse.Namespace) -> int:
    """Run one command."""
    words = tuple(args.command[1:] if args.command[:1] == ["--"] else args.command)
    if not words:
        raise UserError(
            "usage",
            "netpolicy run: no command",
            hint="For example: netpolicy run -- curl https://example.com",
            exit_status=Exit.BAD_INPUT,
        )
    policies = asked.policies(args)
    # Whatever is missing belongs in the last one, and its resolvers are asked.
    policy, ruleset = policies[-1], asked.merged(policies, args)
    if args.mode is not None:
        ruleset = replace(ruleset, mode=args.mode)
    wanted = plan(policy, ruleset, words, user=args.user, wanted=args.uplink, backend=args.backend)
    with contextlib.nullcontext() if args.json_report is None else _reporting(args.json_report) as file:
        report = run_session(wanted)
        if file is not None:
            file.truncate(0)
            file.write(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    if not args.quiet:
        _tell(report)
    return report.status


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[TextIO]:
    """Open the report before anything is run: one that cannot be written should not cost a run. A run that fails leaves none."""
    existed = path.exists()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            "bad-report", f"the report cannot be written to {path}: {error.strerror}", exit_status=Exit.BAD_INPUT
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        ran = False
        try:
            yield file
            ran = True
        finally:
            if not (ran or existed):
                path.unlink(missing_ok=True)


def _tell(report: Report) -> None:
    for line in report.lines():
        print(f"netpolicy run: {line}", file=sys.stderr)  # noqa: T201
