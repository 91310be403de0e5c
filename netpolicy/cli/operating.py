"""What the operator's verbs have in common: which gate is meant, how a policy is read, how results are told."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from netpolicy.errors import Exit, UserError
from netpolicy.operate.homes import DEFAULT_SOCKET, DEFAULT_STATE, VARIABLE, Home, home
from netpolicy.policy.model import Role

if TYPE_CHECKING:
    from netpolicy.operate.applying import Outcome, Wanted


def gate_options(parser: argparse.ArgumentParser) -> None:
    """``--socket``, ``--state`` and ``--json``."""
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help=f"the gate's control socket (${VARIABLE}, or {DEFAULT_SOCKET})"
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help=f"where the gate in the background keeps its own ({DEFAULT_STATE})"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")


def proof_options(parser: argparse.ArgumentParser) -> None:
    """How a policy is verified."""
    parser.add_argument(
        "--from",
        dest="within",
        metavar="NS",
        help="try connections from this namespace behind the firewall: the id of a process in it, a name, or a path",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="deadline of each attempt, in seconds (5)")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 unless everything is proven")


def policy_options(parser: argparse.ArgumentParser) -> None:
    """The policy, and whose rules of it."""
    parser.add_argument(
        "policy", type=Path, nargs="?", metavar="FILE", help="a policy, or a .cspace.json; by default the project's"
    )
    parser.add_argument("--role", choices=get_args(Role), default="dev", help="whose rules: see roles (%(default)s)")


def home_of(args: argparse.Namespace) -> Home:
    """The gate's home."""
    return home(args.socket, args.state)


def wanted(args: argparse.Namespace) -> Wanted:
    """The policy of the command line, of the project around the working directory, or the defaults. Raises UserError."""
    from netpolicy.clock import SystemClock
    from netpolicy.compile import compile_policy
    from netpolicy.operate.applying import Wanted
    from netpolicy.policy import find, load

    policy = load(find(Path.cwd()) if args.policy is None else args.policy, environ=os.environ)
    return Wanted(policy, compile_policy(policy, role=args.role, now=SystemClock().now()))


def seconds(args: argparse.Namespace) -> float:
    """``--seconds``. Raises UserError."""
    value: float = args.seconds
    if not 0 < value <= 60:
        raise UserError("usage", "--seconds must be more than 0, and at most 60", exit_status=Exit.BAD_INPUT)
    return value


def within(args: argparse.Namespace) -> str | None:
    """``--from``, which can be behind the firewall. Raises UserError."""
    from netpolicy.operate import attachable

    text: str | None = args.within
    if text is not None:
        attachable.behind(text)
    return text


def note(text: str) -> None:
    """Something that is not the answer, on standard error."""
    print(f"netpolicy: {text}", file=sys.stderr)  # noqa: T201


def say(lines: Iterable[str]) -> None:
    """The answer, for people."""
    for line in lines:
        print(line)  # noqa: T201


def answer(document: Any) -> None:
    """The answer, for programs."""
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201


def interactive() -> bool:
    """Whether a person sits at both ends of us."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def judged(outcomes: Sequence[Outcome], *, strict: bool) -> int:
    """The exit status for what was verified."""
    return Exit.DENIED if strict and any(done.verdict != "verified" for done in outcomes) else Exit.OK


def breach(outcomes: Sequence[Outcome], *, locked: bool) -> UserError:
    """The error for a policy that does not hold."""
    wrong = [done for done in outcomes if done.breached]
    names = ", ".join(done.state.attachment.name for done in wrong)
    reasons = [reason for done in wrong if done.report for reason in done.report.reasons]
    after = f"{names} is locked again, nothing passes" if locked else f"{names} is as it was"
    return UserError(
        "breached",
        f"the firewall does not hold: {'; '.join(reasons)}",
        hint=f"{after}. Look for other ways out: a second interface, a proxy, rules of other programs.",
        details={"attachments": [done.to_json() for done in outcomes]},
    )
