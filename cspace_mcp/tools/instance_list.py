"""instance_list: which instances exist."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cspace_mcp.results import Instance, Result
from cspace_mcp.tools import page
from cspace_mcp.tools.desk import Desk, desk
from cspace_mcp.tools.frame import tool


class Instances(Result):
    """Some of the instances, sorted by project and name."""

    instances: list[Instance]
    total: int
    truncated: bool
    next_cursor: str | None
    """Pass it as `cursor` for the rest."""


async def instance_list(
    ctx: Context[Desk, Any],
    all_projects: Annotated[bool, Field(description="Also those of other repositories.")] = False,
    limit: page.Limit = page.DEFAULT,
    cursor: page.Cursor = None,
) -> Instances:
    """List the instances with their state, branch and firewall. `firewall.state` "off" or "observed" means that
    everything may leave."""
    found = await desk(ctx).quick(lambda service: service.instances(all_projects=all_projects))
    part = page.cut(found, limit, cursor)
    return Instances(
        instances=part.rows, total=len(found), truncated=part.next_cursor is not None, next_cursor=part.next_cursor
    )


TOOL = tool(
    instance_list,
    title="List instances",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
    core=True,
)
