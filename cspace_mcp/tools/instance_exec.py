"""instance_exec: run a command in an instance."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cspace_mcp.results import Execution
from cspace_mcp.tools.desk import Desk, desk
from cspace_mcp.tools.frame import tool


class Executed(Execution):
    """A command that has ended."""

    next: str | None = None
    """How to get what is not here."""


async def instance_exec(
    ctx: Context[Desk, Any],
    name: Annotated[str, Field(description="The instance.", max_length=100)],
    command: Annotated[
        str, Field(description="For bash, in /workspace, as user dev.", min_length=1, max_length=100_000)
    ],
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120,
) -> Executed:
    """Run a shell command in an instance and return its exit status and output. A connection that fails at once was probably
    refused by the firewall: ask firewall_check why. Long output is cut in the middle and kept whole in a file."""
    done = await desk(ctx).execute(name, ("bash", "-c", command), timeout_seconds)
    following = None
    if done.timed_out:
        following = (
            "It was stopped at timeout_seconds. Give it more, or start it in the background with output to a file."
        )
    elif done.full_output:
        following = f"Read the rest with instance_exec: sed -n '1,200p' {done.full_output}"
    return Executed(**done.model_dump(), next=following)


TOOL = tool(
    instance_exec,
    title="Run a command in an instance",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
    core=True,
)
