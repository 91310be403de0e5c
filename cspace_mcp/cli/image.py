"""The images of instances and of the gate.

`build` makes both. Unchanged ones are kept, so a second time takes no time; --no-cache makes them anew from the base.
"""

from __future__ import annotations

import argparse

from cspace_mcp.cli import surface
from cspace_mcp.cli.table import fields
from netpolicy.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    build = words.add_parser("build", help="build what is missing or out of date", allow_abbrev=False)
    build.add_argument("--no-cache", action="store_true", help="build everything anew")
    surface.json_option(build)
    surface.quiet_option(build)


def run(args: argparse.Namespace) -> int:
    """Build."""
    with surface.reporting(args) as report:
        images = surface.service().build_images(no_cache=args.no_cache, report=report)
    document = {"images": [image.model_dump(mode="json") for image in images]}
    rows = [(image.name, f"{image.id[:19]}  {'built' if image.built else 'up to date'}") for image in images]
    surface.answer(args, document, lambda: fields(rows))
    return Exit.OK
