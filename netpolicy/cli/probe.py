"""Try a connection for real and report what happened.

TARGET is host, host:port, host:port/proto, host/icmp, http://... or https://...; a bare host means tcp/443.
Exit status 0: all reached; 1: at least one not; 2: bad input.
"""

from __future__ import annotations

import argparse
import json

from netpolicy.errors import Exit, UserError
from netpolicy.probe.attempt import probe_all


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="what to connect to")
    parser.add_argument("--seconds", type=float, default=5.0, help="deadline of each attempt, in seconds (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, one line a target")


def run(args: argparse.Namespace) -> int:
    """Probe all targets at once."""
    if not args.seconds > 0:
        raise UserError("usage", "netpolicy probe: --seconds must be more than 0", exit_status=Exit.BAD_INPUT)
    try:
        results = probe_all(args.targets, args.seconds)
    except ValueError as error:
        raise UserError("bad-target", str(error), exit_status=Exit.BAD_INPUT) from error
    for result in results:
        if args.json:
            print(json.dumps(result._asdict(), ensure_ascii=False))  # noqa: T201
            continue
        where = f" [{result.address}]" if result.address and result.address not in result.target else ""
        detail = f", {result.detail}" if result.detail else ""
        print(f"{result.target}{where}: {result.outcome} after {result.milliseconds:g} ms{detail}")  # noqa: T201
    return Exit.OK if all(r.reached for r in results) else Exit.DENIED
