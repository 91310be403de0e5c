"""What the verbs that ask about a policy have in common: which policy is meant, and rows for people."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from netpolicy.clock import SystemClock
from netpolicy.compile import compile_policy
from netpolicy.flow import Origin
from netpolicy.policy import Policy, find, load
from netpolicy.policy.model import ROLES
from netpolicy.ruleset import Ruleset


def declare(parser: argparse.ArgumentParser) -> None:
    """The options `--policy` and `--json`."""
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="a .cspace.json, its directory, or a policy as JSON or TOML"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def declare_role(parser: argparse.ArgumentParser) -> None:
    """The option `--role`."""
    parser.add_argument(
        "--role", choices=ROLES, default="dev", help="the container of an instance that is meant (default: dev)"
    )


def policy(args: argparse.Namespace) -> Policy:
    """The policy of `--policy`, of the project around the working directory, or the defaults; with the environment's names."""
    return load(find(Path.cwd()) if args.policy is None else args.policy, environ=os.environ)


def ruleset(policy: Policy, args: argparse.Namespace) -> Ruleset:
    """What a policy is now, for the container of `--role`."""
    return compile_policy(policy, role=args.role, now=SystemClock().now())


def place(origin: Origin) -> str:
    """Where a rule stands."""
    return f"{origin.source}, {origin.key}"


def columns(rows: Iterable[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows with their cells below each other."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in table
    ]
