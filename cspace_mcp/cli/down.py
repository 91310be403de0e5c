"""Remove an instance with its containers, volumes and network.

It refuses over work that exists only in the instance (uncommitted changes, commits that are on no remote and not in your
checkout), and says which; --force removes it all the same.
"""

from __future__ import annotations

import argparse

from cspace_mcp.cli import surface
from cspace_mcp.results import Destruction
from netpolicy.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    surface.instance_argument(parser)
    parser.add_argument("-f", "--force", action="store_true", help="lose unsaved work")
    surface.json_option(parser)
    surface.quiet_option(parser)


def run(args: argparse.Namespace) -> int:
    """Remove it."""
    with surface.reporting(args) as report:
        gone = surface.service().destroy(args.name, force=args.force, report=report)
    surface.answer(args, gone.model_dump(mode="json"), lambda: _told(gone))
    return Exit.OK


def _told(gone: Destruction) -> str:
    lines = [f"{gone.name} is gone: {', '.join(dict.fromkeys(gone.removed)) or 'nothing was left of it'}"]
    if gone.lost:
        lines.append(f"lost with it: {gone.lost.sentence()}")
    return "\n".join(lines)
