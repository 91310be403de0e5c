"""What a client is shown before it calls anything: names, hints, schemas, instructions, and how many bytes they take."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from cspace_mcp import server
from cspace_mcp.tools import frame
from cspace_mcp.tools.desk import Desk

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).with_name("tools_list.json")
#: For all tools, as they cross the wire. A tool that does not fit has too much to say.
BYTES = 16_000
#: What of it a model reads: name, description, input schema.
BYTES_READ = 4_500


async def listed(desk: Desk) -> list[dict[str, Any]]:
    async with Client(server.build(desk)) as client:
        found = (await client.list_tools()).tools
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in found]


@pytest.mark.requirement("M1")
async def test_the_tools_are_the_ones_in_the_golden_file(desk: Desk) -> None:
    found = json.dumps(await listed(desk), indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text(), "the tools changed; look at the difference, then run again with UPDATE_GOLDEN=1"


@pytest.mark.requirement("M6")
async def test_every_tool_gives_all_four_hints_and_takes_only_what_it_names(desk: Desk) -> None:
    for tool in await listed(desk):
        assert set(tool["annotations"]) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}, tool[
            "name"
        ]
        assert tool["inputSchema"]["additionalProperties"] is False
        assert len(tool["inputSchema"]["properties"]) <= 4
        assert tool["outputSchema"]["type"] == "object"
        assert len(tool["description"]) <= 300
        assert tool["title"]


def test_every_code_with_a_next_call_exists() -> None:
    packages = (Path(server.__file__).parents[1] / name for name in ("cspace_mcp", "sidecars", "netpolicy"))
    text = "".join(
        path.read_text() for package in packages for path in package.rglob("*.py") if path.name != "frame.py"
    )
    assert [code for code in frame._NEXT if f'"{code}"' not in text] == []


async def test_the_list_fits_its_budget(desk: Desk) -> None:
    tools = await listed(desk)
    read = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in tools]
    assert len(json.dumps(tools, separators=(",", ":"))) <= BYTES
    assert len(json.dumps(read, separators=(",", ":"))) <= BYTES_READ


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_instructions_arrive_whole(desk: Desk, mode: Any) -> None:
    async with Client(server.build(desk), mode=mode) as client:
        assert client.instructions == server.INSTRUCTIONS
        capabilities = client.server_capabilities
    assert len(server.INSTRUCTIONS) < 4096
    assert capabilities.tools is not None
    assert not capabilities.tools.list_changed
