"""The real Claude Code client against the stdio server, in both protocol eras, over a fake service."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.claude import client
from support.claude.fake_service import FakeService
from support.claude.messages import ScriptedMessages, say, use

from cspace_mcp.results import Unsaved

pytestmark = pytest.mark.claude

FAKE_SERVER = Path(__file__).parent.parent / "support" / "claude" / "fake_server.py"
ERAS = pytest.mark.parametrize("era", sorted(client.VERSIONS))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def converse(api: ScriptedMessages, era: str, tmp_path: Path, home: Path) -> client.Ended:
    server = [sys.executable, FAKE_SERVER, tmp_path]
    return client.run(client.VERSIONS[era], api, server, home=home, cwd=tmp_path)


@pytest.mark.requirement("M1")
@ERAS
def test_it_makes_uses_asks_and_destroys(era: str, tmp_path: Path, home: Path, service: FakeService) -> None:
    script = [
        use("instance_spawn", name="venus"),
        use("instance_exec", name="venus", command="echo hello from $PWD"),
        use("firewall_check", target="pastebin.example", name="venus"),
        use("instance_destroy", name="venus"),
        say("done"),
    ]
    with ScriptedMessages(script) as api:
        ended = converse(api, era, tmp_path, home)
    assert ended.status == 0, ended
    assert ended.result["result"] == "done"
    assert ended.result["permission_denials"] == []
    assert [error for error, _ in api.results] == [False] * 4, api.results
    made, ran, judged, gone = (json.loads(text) for _, text in api.results)
    assert (made["name"], made["state"]) == ("venus", "ready")
    assert ran["stdout"] == f"hello from {tmp_path}\n"
    assert (judged["allowed"], judged["suggestion"]) == (False, "pastebin.example:443/tcp")
    assert gone["removed"] == ["cspace-demo-venus"]
    assert service.logged == ["spawned venus", "running venus", "ran venus 0", "destroyed venus"]
    assert api.paths <= {"GET /", "POST /v1/messages", "POST /v1/messages/count_tokens"}


@pytest.mark.requirement("M1")
@ERAS
def test_the_model_is_told_of_every_tool_and_how_to_use_them(era: str, tmp_path: Path, home: Path) -> None:
    with ScriptedMessages([say("done")]) as api:
        assert converse(api, era, tmp_path, home).status == 0
    for name in ("spawn", "list", "exec", "destroy"):
        assert f"mcp__cspace__instance_{name}" in api.told
    assert "mcp__cspace__firewall_show" in api.told
    assert "mcp__cspace__firewall_check" in api.told
    assert "Typical use: instance_spawn" in api.told
    loaded = {tool["name"] for tool in api.requests[0]["tools"]}
    assert {f"mcp__cspace__instance_{name}" for name in ("spawn", "list", "exec")} <= loaded


@ERAS
def test_an_error_reaches_the_model_whole(era: str, tmp_path: Path, home: Path, service: FakeService) -> None:
    (tmp_path / "unsaved").write_text(Unsaved(files=["notes.md"], file_count=1).model_dump_json())
    script = [
        use("instance_spawn", name="venus"),
        use("instance_destroy", name="venus"),
        use("instance_destroy", name="venus", force=True),
        use("instance_exec", name="venus", command="true"),
        use("instance_spawn", nmae="venus"),
        say("done"),
    ]
    with ScriptedMessages(script) as api:
        assert converse(api, era, tmp_path, home).status == 0
    (_, _), (refused, why), (told, _), (missing, what_next), (unknown, names) = api.results
    assert refused
    assert "notes.md" in why
    assert "force=true" in why
    assert not told
    assert missing
    assert "Call instance_list" in what_next
    assert unknown
    assert "did you mean 'name'?" in names
