"""instance_spawn: make a firewalled instance."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cspace_mcp.results import Instance
from cspace_mcp.service import Spawn
from cspace_mcp.tools.desk import Desk, desk, reporter
from cspace_mcp.tools.frame import tool


class Spawned(Instance):
    """The new instance."""

    next: str
    """What to do with it."""
    for_the_user: str
    """A command that a person can type to look inside."""


async def instance_spawn(
    ctx: Context[Desk, Any],
    name: Annotated[
        str | None,
        Field(description="Lower-case letters, digits and dashes. Default: the next free planet.", max_length=100),
    ] = None,
) -> Spawned:
    """Make an isolated instance: a container with a clone of this repository at its current branch and an egress firewall
    around it. Takes seconds to minutes; uncommitted changes of the checkout are not in the clone."""
    made = await desk(ctx).spawn(Spawn(name=name, new=True), reporter(ctx))
    following = f"Run commands in it with instance_exec(name={made.name!r}, command=...)."
    if made.state == "degraded":
        following += " It is locked down as asked, but its firewall could not be proven: see reasons."
    return Spawned(**made.model_dump(), next=following, for_the_user=f"cspace ssh {made.name}")


TOOL = tool(
    instance_spawn,
    title="Make an instance",
    read_only=False,
    destructive=False,
    idempotent=False,
    open_world=False,
    core=True,
)
