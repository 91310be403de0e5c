"""Which instances there are: their state, branch and firewall, and why one is not simply ready."""

from __future__ import annotations

import argparse

from cspace_mcp.cli import surface
from cspace_mcp.cli.summary import listed
from netpolicy.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-a", "--all", action="store_true", help="of all projects; works outside a repository too")
    parser.add_argument("--names", action="store_true", help="only the names, one a line")
    surface.json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    found = surface.service().instances(all_projects=args.all)
    if args.names and not args.json:
        for instance in found:
            surface.say(instance.name)
        return Exit.OK
    document = {"instances": [instance.model_dump(mode="json") for instance in found]}
    surface.answer(args, document, lambda: listed(found, all_projects=args.all))
    return Exit.OK
