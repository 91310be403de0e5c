"""The stdio server as a process: how it starts, what it says on the wire, and how it leaves."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.claude.fake_service import FakeService
from support.claude.raw import PATIENCE, RawServer

from netpolicy import command
from netpolicy.clock import SystemClock

FAKE_SERVER = Path(__file__).parent.parent / "support" / "claude" / "fake_server.py"
#: A client kills a server that takes longer, in seconds.
LEAVE_SECONDS = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RawServer]:
    with RawServer([sys.executable, FAKE_SERVER, tmp_path]) as raw:
        yield raw


def eventually(check: Callable[[], bool]) -> None:
    clock, pause = SystemClock(), threading.Event()
    end = clock.monotonic() + PATIENCE
    while not check():
        assert clock.monotonic() < end
        pause.wait(0.01)


def end_input(server: RawServer) -> None:
    server.end_input()


def interrupt(server: RawServer) -> None:
    server.process.send_signal(signal.SIGINT)


def terminate(server: RawServer) -> None:
    server.process.send_signal(signal.SIGTERM)


def leave_as_claude_code_makes_us(server: RawServer) -> None:
    server.process.send_signal(signal.SIGINT)
    server.process.send_signal(signal.SIGTERM)


ENDINGS = pytest.mark.parametrize("end", [end_input, interrupt, terminate, leave_as_claude_code_makes_us])


@pytest.mark.requirement("M1")
def test_both_eras_are_spoken(tmp_path: Path) -> None:
    with RawServer([sys.executable, FAKE_SERVER, tmp_path]) as legacy:
        assert legacy.initialize()["protocolVersion"] == "2025-11-25"
        assert legacy.call("instance_list", {})["structuredContent"]["total"] == 0
    with RawServer([sys.executable, FAKE_SERVER, tmp_path]) as modern:
        found = modern.answer(modern.send("server/discover", modern=True))["result"]
        assert "2026-07-28" in found["supportedVersions"]
        assert modern.call("instance_list", {}, modern=True)["structuredContent"]["total"] == 0


@ENDINGS
def test_it_leaves_at_once_when_idle(server: RawServer, end: Callable[[RawServer], None]) -> None:
    server.initialize()
    end(server)
    assert server.process.wait(LEAVE_SECONDS) == 0
    assert server.rest() == []


@pytest.mark.parametrize("end", [end_input, interrupt, terminate])
def test_it_leaves_at_once_before_the_handshake(server: RawServer, end: Callable[[RawServer], None]) -> None:
    # An answer to anything shows that it has started.
    server.send_line(b"this is not JSON")
    server.initialize()
    end(server)
    assert server.process.wait(LEAVE_SECONDS) == 0


@pytest.mark.requirement("M6")
@ENDINGS
def test_it_leaves_at_once_in_the_middle_of_a_spawn_which_is_undone(
    server: RawServer, tmp_path: Path, end: Callable[[RawServer], None]
) -> None:
    service = FakeService(tmp_path)
    os.mkfifo(tmp_path / "hold")
    server.initialize()
    server.send("tools/call", {"name": "instance_spawn", "arguments": {"name": "venus"}})
    eventually(lambda: "holding venus" in service.logged)
    end(server)
    assert server.process.wait(LEAVE_SECONDS) == 0
    eventually(lambda: "undone venus" in service.logged)
    assert service.instances(all_projects=False) == []


@ENDINGS
def test_it_leaves_at_once_while_a_call_is_stuck(
    server: RawServer, tmp_path: Path, end: Callable[[RawServer], None]
) -> None:
    server.initialize()
    server.send("tools/call", {"name": "firewall_check", "arguments": {"target": "stuck.example"}})
    eventually(lambda: "stuck" in FakeService(tmp_path).logged)
    end(server)
    assert server.process.wait(LEAVE_SECONDS) == 0


def test_a_spawn_is_undone_when_the_whole_process_group_is_ended(server: RawServer, tmp_path: Path) -> None:
    service = FakeService(tmp_path)
    os.mkfifo(tmp_path / "hold")
    server.initialize()
    server.send("tools/call", {"name": "instance_spawn", "arguments": {"name": "venus"}})
    eventually(lambda: "holding venus" in service.logged)
    os.killpg(server.process.pid, signal.SIGTERM)
    assert server.process.wait(LEAVE_SECONDS) == 0
    eventually(lambda: "undone venus" in service.logged)


def test_a_spawn_is_undone_even_when_the_server_is_killed(server: RawServer, tmp_path: Path) -> None:
    service = FakeService(tmp_path)
    os.mkfifo(tmp_path / "hold")
    server.initialize()
    server.send("tools/call", {"name": "instance_spawn", "arguments": {"name": "venus"}})
    eventually(lambda: "holding venus" in service.logged)
    server.process.kill()
    eventually(lambda: "undone venus" in service.logged)


@ENDINGS
def test_it_leaves_at_once_while_a_command_runs(
    server: RawServer, tmp_path: Path, end: Callable[[RawServer], None]
) -> None:
    service = FakeService(tmp_path)
    server.initialize()
    server.call("instance_spawn", {"name": "venus"})
    server.send("tools/call", {"name": "instance_exec", "arguments": {"name": "venus", "command": "exec sleep 1000"}})
    eventually(lambda: "running venus" in service.logged)
    end(server)
    assert server.process.wait(LEAVE_SECONDS) == 0


@pytest.mark.requirement("M6")
@pytest.mark.parametrize("modern", [False, True], ids=["2025", "2026"])
def test_a_cancelled_spawn_is_undone_and_the_server_goes_on(server: RawServer, tmp_path: Path, modern: bool) -> None:
    service = FakeService(tmp_path)
    os.mkfifo(tmp_path / "hold")
    if not modern:
        server.initialize()
    number = server.send("tools/call", {"name": "instance_spawn", "arguments": {"name": "venus"}}, modern=modern)
    eventually(lambda: "holding venus" in service.logged)
    server.notify("notifications/cancelled", {"requestId": number})
    eventually(lambda: "undone venus" in service.logged)
    (tmp_path / "hold").unlink()
    assert server.call("instance_spawn", {"name": "venus"}, modern=modern)["structuredContent"]["state"] == "ready"


def test_progress_is_sent_to_who_asks(server: RawServer) -> None:
    server.initialize()
    number = server.send("tools/call", {"name": "instance_spawn", "arguments": {}, "_meta": {"progressToken": "p1"}})
    seen = []
    while (message := server.receive()).get("id") != number:
        seen.append((message["method"], message["params"]["progressToken"], message["params"]["message"]))
    assert seen == [
        ("notifications/progress", "p1", "making the network"),
        ("notifications/progress", "p1", "verifying the firewall"),
    ]


def test_the_wire_carries_nothing_but_messages(server: RawServer) -> None:
    server.initialize()
    server.call("instance_spawn", {"name": "venus"})
    server.call("instance_exec", {"name": "nobody", "command": "true"})
    server.call("instance_exec", {"unknown": 1})
    server.end_input()
    assert server.process.wait(PATIENCE) == 0
    assert server.rest() == []
    assert server.stderr == b""


def test_a_start_imports_neither_docker_nor_the_firewall() -> None:
    code = (
        "import sys; import cspace_mcp.cli.mcp, cspace_mcp.stdio, cspace_mcp.server\n"
        "print(*sorted({'docker', 'sqlite3', 'pyroute2', 'dns', 'sidecars.instance', 'netpolicy.policy'} & set(sys.modules)))"
    )
    assert command.run([sys.executable, "-c", code]).text == ""
