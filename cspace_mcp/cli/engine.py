"""A Docker engine for this machine.

`install` finds the engine that DOCKER_HOST, the Docker context or the default socket names. Where there is none, and only as
root on Debian or Ubuntu, it installs the package docker.io and starts the engine, after saying so.
"""

from __future__ import annotations

import argparse

from cspace_mcp.cli import surface
from netpolicy.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    install = words.add_parser("install", help="find an engine, or install and start one", allow_abbrev=False)
    surface.json_option(install)
    surface.quiet_option(install)


def run(args: argparse.Namespace) -> int:
    """Find or install."""
    with surface.reporting(args) as report:
        found = surface.service().install_engine(report)
    done = "".join(f"; {action}" for action in found.actions)
    surface.answer(
        args, found.model_dump(mode="json"), lambda: f"Docker engine {found.version} at {found.address}{done}"
    )
    return Exit.OK
