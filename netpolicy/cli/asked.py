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
    """The options `--policy`, which may be repeated, `--role` and `--json`."""
    declare_policies(parser)
    declare_role(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def declare_policies(parser: argparse.ArgumentParser) -> None:
    """The option `--policy`, which may be repeated."""
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        action="append",
        help="a .cspace.json, its directory, or a policy as JSON or TOML; several are merged: what any allows, unless any denies it",
    )


def declare_role(parser: argparse.ArgumentParser) -> None:
    """The option `--role`."""
    parser.add_argument(
        "--role", choices=ROLES, default="dev", help="the container of an instance that is meant (default: dev)"
    )


def ruleset(policy: Policy, args: argparse.Namespace) -> Ruleset:
    """What a policy is now, for the container of `--role`."""
    return compile_policy(policy, role=args.role, now=SystemClock().now())


def policies(args: argparse.Namespace) -> list[Policy]:
    """Those of every `--policy`, or without it that of the project around the working directory, or the defaults."""
    files: list[Path | None] = args.policy or [find(Path.cwd())]
    # The environment adds to the last one, which stands for the project.
    return [load(file, environ=os.environ if file is files[-1] else None) for file in files]


def merged(policies: Sequence[Policy], args: argparse.Namespace) -> Ruleset:
    """What several policies are together, now, for the container of `--role`."""
    rulesets = [ruleset(policy, args) for policy in policies]
    if len(rulesets) == 1:
        return rulesets[0]
    # One policy is the rule, and asking about it is to be quick.
    from netpolicy.algebra import merge

    return merge(rulesets, name=" + ".join(found.policy for found in rulesets))


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
