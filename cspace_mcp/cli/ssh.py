"""A shell in an instance, in /workspace as user dev. Its exit status is ours.

It goes through the Docker engine, so it needs no key and no open port, and works with a remote engine too.
"""

from __future__ import annotations

import argparse

from cspace_mcp.cli import surface, terminal


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    surface.instance_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Open the shell."""
    return terminal.attach(surface.service(), args.name, ("bash", "-l"))
