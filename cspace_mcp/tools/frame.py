"""What every tool has in common: strict arguments, all four hints, compact schemas, errors an agent can act on."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import ConfigDict, ValidationError

from netpolicy.errors import UserError

#: Claude Code loads such a tool with the session; others only when they are searched for.
_ALWAYS = {"anthropic/alwaysLoad": True}
#: An error is read by a model; what is longer helps nobody.
_LONGEST_ERROR = 4000

_LOSE = "Commit and hand over the work first, or, only if the user agrees to lose it, call instance_destroy again with force=true."
_FIX = "Fix the named keys in .cspace.json, then call again."
_DOCTOR = "Ask the user to run `cspace doctor` on the host."
#: What an agent does next, by the error's code. Hints of the errors themselves are for a person's command line.
_NEXT = {
    "bad-config": _FIX,
    "bad-policy": _FIX,
    "engine-permission": _DOCTOR,
    "engine-timeout": _DOCTOR,
    "engine-unreachable": "Ask the user to run `cspace doctor` on the host; `cspace engine install` installs an engine.",
    "gate-failed": _DOCTOR,
    "gate-gone": _DOCTOR,
    "gate-stopped": _DOCTOR,
    "image-missing": "Ask the user to run `cspace image build` on the host.",
    "instance-busy": "Wait a little, then call again.",
    "instance-missing": "Call instance_list to see the instances that exist.",
    "instance-stopped": "Ask the user to run `cspace up` with its name on the host, or make another with instance_spawn.",
    "name-taken": "Call instance_spawn with another name, or without one to get the next free name.",
    "unsaved-work": _LOSE,
    "work-unknown": _LOSE,
}


class StrictTool(Tool):
    """A tool that says what is wrong with its arguments in its own words."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """See `Tool.run`. Unknown arguments are refused, where the SDK would drop them in silence."""
        try:
            self.fn_metadata.arg_model.model_validate(self.fn_metadata.pre_parse_json(arguments))
        except ValidationError as error:
            problems = "; ".join(self._explain(entry) for entry in error.errors(include_url=False))
            takes = ", ".join(self.parameters["properties"]) or "no arguments"
            message = f"Error executing tool {self.name}: {problems}. It takes: {takes}."
            raise ToolError(message) from error
        return await super().run(arguments, context, convert_result=convert_result)

    def _explain(self, entry: Any) -> str:
        key = ".".join(str(step) for step in entry["loc"])
        if entry["type"] == "missing":
            return f"{key} is missing"
        if entry["type"] == "extra_forbidden":
            near = get_close_matches(key, self.parameters["properties"], n=1)
            return f"unknown argument {key!r}" + (f", did you mean {near[0]!r}?" if near else "")
        return f"{key}: {entry['msg'].removeprefix('Input ')}"


def tool(
    fn: Callable[..., Awaitable[Any]],
    *,
    title: str,
    read_only: bool,
    destructive: bool,
    idempotent: bool,
    open_world: bool,
    core: bool = False,
) -> Tool:
    """Make an MCP tool of an async function; its name and description are the function's own.

    Args:
        fn: The function; its docstring is what the model reads.
        title: For people.
        read_only: Changes nothing (clients run such calls in parallel).
        destructive: May lose something.
        idempotent: A second call with the same arguments changes nothing more.
        open_world: Reaches things we do not know.
        core: Loaded with every session.
    """
    hints = ToolAnnotations(
        read_only_hint=read_only, destructive_hint=destructive, idempotent_hint=idempotent, open_world_hint=open_world
    )
    made = StrictTool.from_function(
        fn,
        title=title,
        description=" ".join((inspect.getdoc(fn) or "").split()),
        annotations=hints,
        meta=_ALWAYS if core else None,
    )
    loose = made.fn_metadata.arg_model
    made.fn_metadata.arg_model = type(loose.__name__, (loose,), {"model_config": ConfigDict(extra="forbid")})
    made.parameters = _compact(made.fn_metadata.arg_model.model_json_schema(by_alias=True))
    if made.fn_metadata.output_schema is not None:
        made.fn_metadata.output_schema = _compact(made.fn_metadata.output_schema)
    return made


def explain(error: UserError) -> ToolError:
    """A `UserError` in the words of an agent: what, why, and the next call."""
    following = _NEXT.get(error.code, error.hint)
    text = error.message if not following else f"{error.message.rstrip('.')}. {following}"
    text = text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"
    return ToolError(f"{text} [{error.code}]")


def _compact(schema: Any) -> Any:
    """Without the generated titles, and without the docstrings of nested models: bytes that tell a model nothing."""
    if isinstance(schema, list):
        return [_compact(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    kept = {
        key: _compact(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "description" and isinstance(properties, dict))
    }
    if isinstance(properties, dict):
        kept["properties"] = {name: _compact(value) for name, value in properties.items()}
    return kept
