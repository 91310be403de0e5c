"""Make an instance of this repository: a container with a clone at the current branch, behind its own firewall.

Without NAME the next free planet is taken. An instance that exists is brought up to date: started if it is stopped, its
policy applied again, verified again; its workspace is left as it is.

On a terminal Claude Code is started in it at the end, unless --no-claude is given; elsewhere, and with --json, the next
commands are only printed.

Exit status 0: the instance is there, ready or degraded (locked, but the proof is incomplete; the reason is printed). With
--strict a degraded one gives 1. On failure, or when interrupted, nothing of a new instance is left.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cspace_mcp.cli import surface, terminal
from cspace_mcp.cli.summary import following, told
from cspace_mcp.service import Spawn
from netpolicy.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    surface.instance_argument(parser, "letters, digits and dashes; default: the next free planet", nargs="?")
    parser.add_argument("--no-claude", action="store_true", help="do not start Claude Code at the end")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when the state is degraded")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="take the firewall policy from here instead")
    surface.json_option(parser)
    surface.quiet_option(parser)


def run(args: argparse.Namespace) -> int:
    """Make one instance."""
    service = surface.service()
    with surface.reporting(args) as report:
        made = service.spawn(Spawn(name=args.name, policy_file=args.policy), report)
    commands = [{"command": command, "what": what} for command, what in following(made)]
    surface.answer(args, {**made.model_dump(mode="json"), "next": commands}, lambda: told(made))
    status = Exit.DENIED if args.strict and made.state == "degraded" else Exit.OK
    if made.state == "failed":
        # It was brought up, but somebody has joined it to a network past its firewall.
        status = Exit.FAILED
    if args.no_claude or args.json or status != Exit.OK or not terminal.interactive():
        return status
    surface.say()
    return terminal.attach(service, made.name, ("claude",))
