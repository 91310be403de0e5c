"""Run a command in an instance, in /workspace as user dev. Its exit status is ours.

    cspace exec mercury -- npm test
    git diff | cspace exec mercury -- git apply

With a terminal on both sides the command gets one too. Otherwise standard input, output and error are passed through as
they are; end-of-file on ours is end-of-file on the command's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cspace_mcp.cli import surface, terminal
from netpolicy.errors import Exit, UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    surface.instance_argument(parser)
    parser.usage = f"{parser.prog} NAME -- CMD..."
    parser.add_argument(
        "command", metavar="CMD", nargs=argparse.REMAINDER, help="the program and its arguments, as they are"
    )


def run(args: argparse.Namespace) -> int:
    """Run it to its end."""
    command: Sequence[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        hint = f"For example: cspace exec {args.name} -- git status. A shell: cspace ssh {args.name}"
        raise UserError("usage", "cspace exec: there is no command", hint=hint, exit_status=Exit.BAD_INPUT)
    return terminal.attach(surface.service(), args.name, command)
