"""firewall_check: what would happen to a connection."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cspace_mcp.results import Judgement
from cspace_mcp.tools.desk import Desk, desk
from cspace_mcp.tools.frame import tool


class Judged(Judgement):
    """The verdict."""

    next: str


async def firewall_check(
    ctx: Context[Desk, Any],
    target: Annotated[
        str,
        Field(
            description="HOST[:PORT[/PROTO]], e.g. example.org:22 or 192.0.2.1:53/udp.", min_length=1, max_length=300
        ),
    ],
    name: Annotated[
        str | None, Field(description="The instance. Default: what a new instance would get.", max_length=100)
    ] = None,
) -> Judged:
    """Say whether a connection from an instance would pass the firewall, by which rule, and for a denial what to add.
    Tries nothing: a packet meets the same verdict."""
    verdict = await desk(ctx).quick(lambda service: service.check(target, name))
    if verdict.allowed:
        following = "It passes the firewall; if it still fails, the other end is the cause."
    elif verdict.suggestion:
        following = f"Do without it, or ask the user to add {verdict.suggestion!r} to firewall.allow in .cspace.json."
    else:
        following = "Do without it; no rule can allow it."
    return Judged(**verdict.model_dump(), next=following)


TOOL = tool(
    firewall_check,
    title="Ask the firewall",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
