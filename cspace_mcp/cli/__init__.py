"""The `cspace` program. One module a verb; `netpolicy.cli.program` is the frame, `cspace_mcp.service` does the work."""

from __future__ import annotations

from collections.abc import Sequence

from cspace_mcp import __version__
from netpolicy.cli.program import Program, Verb

PROGRAM = Program(
    name="cspace",
    summary="isolated, firewalled instances for coding agents",
    version=__version__,
    verbs=(
        Verb("up", "cspace_mcp.cli.up", "make an instance of this repository, or bring one up to date"),
        Verb("list", "cspace_mcp.cli.listing", "which instances there are, and how they are"),
        Verb("exec", "cspace_mcp.cli.exec", "run a command in an instance"),
        Verb("ssh", "cspace_mcp.cli.ssh", "a shell in an instance"),
        Verb("down", "cspace_mcp.cli.down", "remove an instance, unless work would be lost"),
        Verb("doctor", "cspace_mcp.cli.doctor", "what is missing or wrong on this machine"),
        Verb("image", "cspace_mcp.cli.image", "build the images of instances and of the gate"),
        Verb("engine", "cspace_mcp.cli.engine", "find, or install and start, a Docker engine"),
        Verb("mcp", "cspace_mcp.cli.mcp", "the MCP server on standard input and output"),
        Verb("completion", "cspace_mcp.cli.completion", "a completion script for your shell"),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `cspace` program."""
    return PROGRAM.main(argv)
