"""The MCP server: one object for both protocol eras (2025-11-25 and 2026-07-28), built from a service and the tools."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp.server import MCPServer

from cspace_mcp import __version__, tools
from cspace_mcp.tools.desk import Desk

#: Claude Code cuts at 4096 characters, and shows a session the tools' names and this before anything else.
INSTRUCTIONS = """\
cspace makes isolated instances of this git repository. Each is a container with its own clone in /workspace (user dev; git, gh, \
ripgrep, jq, node, python, Claude Code inside) and an egress firewall that stands outside it, where nothing inside can change it.

Typical use: instance_spawn -> instance_exec as often as needed -> instance_destroy.

Firewall: everything is refused unless the policy allows it, by name, port and protocol. A refused TCP connection is reset at \
once and a denied name does not resolve; retrying does not help. When something in an instance cannot be reached, ask \
firewall_check(target, name): it names the rule, or the text to add. You cannot change the policy; the user does, in the \
`firewall` object of .cspace.json. firewall_show lists the rules.

States: "ready" is proven (a blocked target was shown to be unreachable and an allowed one reachable); "degraded" is locked just \
the same, but could not be proven, `reasons` say why (often: the host itself is offline).

The clone holds what is committed in the checkout. Work in an instance exists only there until it is pushed or fetched, and \
instance_destroy refuses to lose it; pass force=true only when the user has agreed.
"""


def build(desk: Desk) -> MCPServer[Desk]:
    """The server around a desk; nothing is started, and nothing but the SDK is imported."""

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Desk]) -> AsyncIterator[Desk]:
        async with desk.open():
            yield desk

    _log()
    return MCPServer(
        "cspace",
        title="cspace: firewalled instances",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=list(tools.ALL),
        lifespan=lifespan,
        subscriptions=False,
        log_level="WARNING",
    )


def _log() -> None:
    """Send every log record to standard error, before the SDK chooses for itself; standard output is the wire."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="cspace mcp: %(levelname)s %(name)s: %(message)s"
    )
