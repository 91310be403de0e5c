"""The MCP server on standard input and output, for Claude Code and other clients.

    claude mcp add cspace -- cspace mcp

The client starts it in your repository; it looks at configuration and Docker only when a tool is called. It ends at
end-of-file, SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from cspace_mcp.cli import surface


def configure(parser: argparse.ArgumentParser) -> None:
    """There are no options: what it may do is the project's configuration."""


def run(_args: argparse.Namespace) -> NoReturn:
    """Serve until the client leaves."""
    if sys.stdin.isatty():
        surface.note(
            "cspace mcp speaks to a program on standard input. Add it to one: claude mcp add cspace -- cspace mcp"
        )
    from cspace_mcp import stdio
    from cspace_mcp.server import build
    from cspace_mcp.tools.desk import Desk

    desk = Desk(surface.service)
    stdio.serve(build(desk), desk)
