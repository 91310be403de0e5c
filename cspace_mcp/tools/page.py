"""Long answers in parts: a limit and an opaque cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

T = TypeVar("T")

DEFAULT = 20
Limit = Annotated[int, Field(ge=1, le=100, description="The most rows to return.")]
Cursor = Annotated[str | None, Field(max_length=40, description="next_cursor of the answer before.")]


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """Some of the rows."""

    rows: list[T]
    next_cursor: str | None
    """None at the end."""


def cut(rows: Sequence[T], limit: int, cursor: str | None) -> Part[T]:
    """The rows after `cursor`, at most `limit`.

    Raises:
        ToolError: the cursor is none of ours.
    """
    if cursor is None:
        start = 0
    elif cursor.startswith("after-") and cursor[6:].isdigit():
        start = int(cursor[6:])
    else:
        raise ToolError(f"{cursor!r} is not a cursor. Pass next_cursor of the answer before, or leave cursor out.")
    end = start + limit
    return Part(list(rows[start:end]), f"after-{end}" if end < len(rows) else None)
