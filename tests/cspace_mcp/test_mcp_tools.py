"""The MCP server in memory, in both protocol eras, over a fake service."""

from __future__ import annotations

import json
import os
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp_types import ElicitResult
from support.claude.fake_service import FakeService, broken

from cspace_mcp import server
from cspace_mcp.results import Unsaved
from cspace_mcp.tools.desk import Desk

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error::mcp.MCPDeprecationWarning")]

LOSS = Unsaved(files=["notes.md"], file_count=1, commits=["abc1234 try it"], commit_count=1)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


def connect(desk: Desk, mode: Any, **options: Any) -> Client:
    return Client(server.build(desk), mode=mode, **options)


def text(result: Any) -> str:
    return "\n".join(block.text for block in result.content)


async def eventually(check: Any, seconds: float = 10) -> None:
    with anyio.fail_after(seconds):
        while not check():
            await anyio.to_thread.run_sync(lambda: None)


@pytest.mark.requirement("M1")
@pytest.mark.requirement("M2")
async def test_an_instance_is_made_used_and_destroyed(desk: Desk, service: FakeService, mode: Any) -> None:
    steps: list[tuple[float, float | None, str | None]] = []

    async def progress(value: float, total: float | None, message: str | None) -> None:
        steps.append((value, total, message))

    async with connect(desk, mode) as client:
        made = await client.call_tool("instance_spawn", {}, progress_callback=progress)
        assert not made.is_error, text(made)
        assert made.structured_content["name"] == "mercury"
        assert made.structured_content["verification"]["state"] == "verified"
        assert "instance_exec(name='mercury'" in made.structured_content["next"]

        listed = (await client.call_tool("instance_list", {})).structured_content
        assert [entry["name"] for entry in listed["instances"]] == ["mercury"]
        assert listed["truncated"] is False

        ran = (
            await client.call_tool("instance_exec", {"name": "mercury", "command": "echo out; echo err >&2; exit 3"})
        ).structured_content
        assert (ran["exit_status"], ran["stdout"], ran["stderr"]) == (3, "out\n", "err\n")

        gone = await client.call_tool("instance_destroy", {"name": "mercury"})
        assert gone.structured_content["removed"] == ["cspace-demo-mercury"]
        assert (await client.call_tool("instance_list", {})).structured_content["instances"] == []
    assert [message for _, _, message in steps] == ["making the network", "verifying the firewall"]
    assert [value for value, _, _ in steps] == sorted({value for value, _, _ in steps})
    assert service.logged == ["spawned mercury", "running mercury", "ran mercury 3", "destroyed mercury"]


@pytest.mark.requirement("M4")
async def test_the_firewall_is_shown_in_parts_and_asked(desk: Desk, mode: Any) -> None:
    async with connect(desk, mode) as client:
        seen: list[str] = []
        cursor = None
        while True:
            page = (await client.call_tool("firewall_show", {"cursor": cursor, "limit": 20})).structured_content
            seen += [rule["target"] for rule in page["rules"]]
            cursor = page["next_cursor"]
            assert page["truncated"] is (cursor is not None)
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == page["total"] == 45
        few = (await client.call_tool("firewall_show", {"contains": "HOST44."})).structured_content
        assert [rule["target"] for rule in few["rules"]] == ["host44.example"]

        denied = (await client.call_tool("firewall_check", {"target": "pastebin.example"})).structured_content
        assert denied["allowed"] is False
        assert "'pastebin.example:443/tcp'" in denied["next"]
        allowed = (await client.call_tool("firewall_check", {"target": "allowed.example"})).structured_content
        assert allowed["allowed"] is True


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("instance_spawn", {"nmae": "x"}, "unknown argument 'nmae', did you mean 'name'?. It takes: name."),
        ("instance_exec", {"name": "mercury"}, "command is missing. It takes: name, command, timeout_seconds."),
        ("instance_exec", {"name": "m", "command": "x", "timeout_seconds": 0}, "timeout_seconds: should be greater than or equal to 1"),
        ("instance_list", {"limit": 500}, "limit: should be less than or equal to 100"),
        ("instance_list", {"cursor": "7"}, "'7' is not a cursor. Pass next_cursor"),
        ("instance_list", {"a": 1, "b": 2}, "unknown argument 'a'; unknown argument 'b'. It takes: all_projects, limit, cursor."),
        ("instance_exec", {"name": "pluto", "command": "true"}, "no instance 'pluto'; there is: none. Call instance_list"),
        ("instance_destroy", {"name": "pluto"}, "no instance 'pluto'; there is: none. Call instance_list"),
        ("firewall_check", {"target": "a b"}, "'a b' is not HOST[:PORT[/PROTO]] [bad-target]"),
        ("instance_spawn", {"name": "two words"}, "[bad-name]"),
    ],
)  # fmt: skip
async def test_an_error_says_what_and_what_next(
    desk: Desk, mode: Any, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    async with connect(desk, mode) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert expected in text(result)
    assert "pydantic.dev" not in text(result)


async def test_a_taken_name_is_refused_and_nothing_changes(desk: Desk, service: FakeService, mode: Any) -> None:
    async with connect(desk, mode) as client:
        await client.call_tool("instance_spawn", {"name": "venus"})
        again = await client.call_tool("instance_spawn", {"name": "venus"})
    assert again.is_error
    assert "there is an instance 'venus' already. Call instance_spawn with another name" in text(again)
    assert service.logged == ["spawned venus"]


async def test_a_defect_shows_the_model_nothing_of_its_inside(service: FakeService, mode: Any) -> None:
    async with connect(Desk(lambda: broken(service.directory)), mode) as client:
        result = await client.call_tool("instance_list", {})
    assert result.is_error
    assert "hunter2" not in text(result)


async def test_a_worker_that_dies_is_an_error(service: FakeService, mode: Any) -> None:
    async with connect(Desk(lambda: service, worker=("false",)), mode) as client:
        result = await client.call_tool("instance_spawn", {})
    assert result.is_error
    assert "Call instance_list" in text(result)


@pytest.mark.requirement("I8")
async def test_unsaved_work_needs_telling_twice(desk: Desk, service: FakeService, mode: Any) -> None:
    (service.directory / "unsaved").write_text(LOSS.model_dump_json())
    async with connect(desk, mode) as client:
        await client.call_tool("instance_spawn", {"name": "venus"})
        refused = await client.call_tool("instance_destroy", {"name": "venus"})
        assert refused.is_error
        assert "1 file with uncommitted changes (notes.md); 1 unpushed commit (abc1234 try it)" in text(refused)
        assert "force=true" in text(refused)
        told = await client.call_tool("instance_destroy", {"name": "venus", "force": True})
    assert told.structured_content["lost"]["files"] == ["notes.md"]


@pytest.mark.parametrize(
    ("answer", "destroyed"),
    [
        (ElicitResult(action="accept", content={"lose_the_work": True}), True),
        (ElicitResult(action="accept", content={"lose_the_work": False}), False),
        (ElicitResult(action="decline"), False),
        (ElicitResult(action="cancel"), False),
    ],
    ids=["yes", "no", "declined", "cancelled"],
)
async def test_a_client_that_can_ask_asks_the_person(
    desk: Desk, service: FakeService, mode: Any, answer: ElicitResult, destroyed: bool
) -> None:
    asked: list[str] = []

    async def ask(_context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return answer

    (service.directory / "unsaved").write_text(LOSS.model_dump_json())
    async with connect(desk, mode, elicitation_callback=ask) as client:
        await client.call_tool("instance_spawn", {"name": "venus"})
        result = await client.call_tool("instance_destroy", {"name": "venus"})
    assert asked == [
        "Destroy the instance venus? This exists nowhere else and would be lost: "
        "1 file with uncommitted changes (notes.md); 1 unpushed commit (abc1234 try it)"
    ]
    assert result.is_error is not destroyed
    if not destroyed:
        assert "notes.md" in text(result)
        assert "[unsaved-work]" in text(result)
    assert ("destroyed venus" in service.logged) is destroyed


async def test_without_unsaved_work_nobody_is_asked(desk: Desk, mode: Any) -> None:
    async def ask(_context: Any, params: Any) -> ElicitResult:
        raise AssertionError(params)

    async with connect(desk, mode, elicitation_callback=ask) as client:
        await client.call_tool("instance_spawn", {"name": "venus"})
        result = await client.call_tool("instance_destroy", {"name": "venus"})
    assert not result.is_error, text(result)


@pytest.mark.requirement("M6")
async def test_a_cancelled_spawn_is_undone(desk: Desk, service: FakeService, mode: Any) -> None:
    os.mkfifo(service.directory / "hold")
    async with connect(desk, mode) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "instance_spawn", {"name": "venus"})
            await eventually(lambda: "holding venus" in service.logged)
            group.cancel_scope.cancel()
        await eventually(lambda: "undone venus" in service.logged)
        assert (await client.call_tool("instance_list", {})).structured_content["total"] == 0


@pytest.mark.requirement("M6")
async def test_a_cancelled_command_is_stopped(desk: Desk, service: FakeService, mode: Any) -> None:
    async with connect(desk, mode) as client:
        await client.call_tool("instance_spawn", {"name": "venus"})
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "instance_exec", {"name": "venus", "command": "exec sleep 1000"})
            await eventually(lambda: "running venus" in service.logged)
            group.cancel_scope.cancel()
        await eventually(lambda: "ran venus -9" in service.logged)


async def test_long_output_is_bounded_and_says_where_the_rest_is(desk: Desk, mode: Any) -> None:
    async with connect(desk, mode) as client:
        await client.call_tool("instance_spawn", {"name": "venus"})
        result = await client.call_tool("instance_exec", {"name": "venus", "command": "seq 100000"})
    assert result.structured_content["truncated"] is True
    assert "sed -n '1,200p' /tmp/cspace/output-1" in result.structured_content["next"]
    assert len(json.dumps(result.structured_content)) < 20_000
