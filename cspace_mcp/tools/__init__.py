"""The MCP tools, one module each. `ALL` is what a person's client sees; roles will choose from it.

A tool is an async function with at most four flat parameters, a description of two short sentences (what and when; the trap),
and a pydantic result. `frame.tool` makes it strict; `desk.Desk` does its work.
"""

from __future__ import annotations

from cspace_mcp.tools import (
    firewall_check,
    firewall_show,
    instance_destroy,
    instance_exec,
    instance_list,
    instance_spawn,
)

ALL = (
    instance_spawn.TOOL,
    instance_list.TOOL,
    instance_exec.TOOL,
    instance_destroy.TOOL,
    firewall_show.TOOL,
    firewall_check.TOOL,
)
