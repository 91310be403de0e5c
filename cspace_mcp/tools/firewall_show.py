"""firewall_show: the policy around an instance."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cspace_mcp.results import FirewallView
from cspace_mcp.tools import page
from cspace_mcp.tools.desk import Desk, desk
from cspace_mcp.tools.frame import tool


class Shown(FirewallView):
    """A policy, its rules in parts."""

    total: int
    truncated: bool
    next_cursor: str | None


async def firewall_show(
    ctx: Context[Desk, Any],
    name: Annotated[
        str | None, Field(description="The instance. Default: what a new instance would get.", max_length=100)
    ] = None,
    contains: Annotated[str | None, Field(description="Only rules with this text in them.", max_length=200)] = None,
    limit: page.Limit = page.DEFAULT,
    cursor: page.Cursor = None,
) -> Shown:
    """Show what may leave an instance: every rule with the file and key it comes from, and how much was refused. Everything
    without a rule is refused, unless `firewall.state` is "off" or "observed"."""
    view = await desk(ctx).quick(lambda service: service.firewall(name))
    rules = [rule for rule in view.rules if contains is None or contains.lower() in rule.model_dump_json().lower()]
    part = page.cut(rules, limit, cursor)
    return Shown(
        **{**view.model_dump(), "rules": part.rows},
        total=len(rules),
        truncated=part.next_cursor is not None,
        next_cursor=part.next_cursor,
    )


TOOL = tool(
    firewall_show,
    title="Show a firewall",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
