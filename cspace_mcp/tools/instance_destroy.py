"""instance_destroy: remove an instance, told twice where work would be lost."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel, Field

from cspace_mcp.results import Destruction
from cspace_mcp.tools.desk import Desk, desk, reporter
from cspace_mcp.tools.frame import tool


class Consent(BaseModel):
    """The second telling."""

    lose_the_work: bool = Field(description="Destroy the instance and lose this work for good")


class Destroyed(Destruction):
    """What was removed."""

    next: str


async def consent(ctx: Context[Desk, Any], name: str, force: bool) -> Consent | Elicit[Consent]:
    """Ask the person at the client, where there is unsaved work and the client can ask.

    A convenience for people. It guards nothing: a client may answer by itself, and `force` says the same.
    """
    capabilities = ctx.client_capabilities
    can_ask = capabilities is not None and capabilities.elicitation is not None
    if force or not can_ask:
        return Consent(lose_the_work=force)
    unsaved = await desk(ctx).quick(lambda service: service.unsaved(name))
    if not unsaved:
        return Consent(lose_the_work=False)
    return Elicit(
        f"Destroy the instance {name}? This exists nowhere else and would be lost: {unsaved.sentence()}", Consent
    )


async def instance_destroy(
    ctx: Context[Desk, Any],
    consent: Annotated[ElicitationResult[Consent], Resolve(consent)],
    name: Annotated[str, Field(description="The instance.", max_length=100)],
    force: Annotated[bool, Field(description="Lose unsaved work; only when the user has agreed.")] = False,
) -> Destroyed:
    """Remove an instance with its workspace for good. Refuses over uncommitted or unpushed work and says what would be lost."""
    if not isinstance(consent, AcceptedElicitation):
        unsaved = await desk(ctx).quick(lambda service: service.unsaved(name))
        raise ToolError(
            f"Nobody has agreed to lose the unsaved work of {name!r}, so nothing was removed: {unsaved.sentence()}. "
            "Commit and hand over the work first, or, only if the user agrees to lose it, call instance_destroy again with "
            "force=true. [unsaved-work]"
        )
    removed = await desk(ctx).destroy(name, force=force or consent.data.lose_the_work, report=reporter(ctx))
    return Destroyed(**removed.model_dump(), next=f"{name} is gone; instance_spawn makes another.")


TOOL = tool(
    instance_destroy,
    title="Destroy an instance",
    read_only=False,
    destructive=True,
    idempotent=True,
    open_world=False,
)
