"""The stdio MCP server over a real Docker engine, in a lab: commands and their limits, the firewall asked, cancelling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from checkouts import CSPACE, Checkout
from support.claude.raw import RawServer

pytestmark = pytest.mark.docker


@pytest.fixture
def server(checkout: Checkout) -> Iterator[RawServer]:
    with RawServer([*CSPACE, "mcp"], cwd=checkout.root, env=checkout.variables()) as raw:
        raw.initialize()
        yield raw


def spawn(server: RawServer) -> list[str]:
    """Make venus; returns what was reported on the way."""
    params = {"name": "instance_spawn", "arguments": {"name": "venus"}, "_meta": {"progressToken": 1}}
    number, seen = server.send("tools/call", params), []
    while (message := server.receive()).get("id") != number:
        seen.append(message["params"]["message"])
    assert message["result"]["structuredContent"]["state"] == "ready", message
    return seen


def execute(server: RawServer, command: str, **options: int) -> dict[str, object]:
    result = server.call("instance_exec", {"name": "venus", "command": command, **options})
    assert not result["isError"], result
    found: dict[str, object] = result["structuredContent"]
    return found


@pytest.mark.requirement("M2")
@pytest.mark.requirement("M4")
@pytest.mark.requirement("M6")
def test_an_instance_through_its_life(server: RawServer, checkout: Checkout) -> None:
    assert "verifying the firewall" in spawn(server)
    ran = execute(server, "id -un; pwd; git branch --show-current; echo err >&2; exit 3")
    assert (ran["exit_status"], ran["stdout"], ran["stderr"]) == (3, "dev\n/workspace\nmain\n", "err\n")
    assert (ran["timed_out"], ran["truncated"]) == (False, False)

    # Long output: beginning and end here, all of it there.
    ran = execute(server, "seq 1 200000")
    assert ran["truncated"]
    text = str(ran["stdout"])
    assert text.startswith("1\n2\n")
    assert text.endswith("199999\n200000\n")
    assert len(text) < 11_000
    assert (
        execute(server, f"sed -n 100000p {ran['full_output']}; wc -l < {ran['full_output']}")["stdout"]
        == "100000\n200000\n"
    )

    # Past its time it is stopped, with all that it has started.
    ran = execute(server, "echo begun; sleep 1000 & sleep 1000", timeout_seconds=1)
    assert (ran["exit_status"], ran["timed_out"], ran["stdout"]) == (124, True, "begun\n")
    assert execute(server, "pgrep -xf 'sleep 1000'")["exit_status"] == 1

    # Something left in the background holds the output open, and nobody up.
    ran = execute(server, "sleep 1000 & echo started", timeout_seconds=60)
    assert (ran["exit_status"], ran["timed_out"], ran["stdout"]) == (0, False, "started\n")
    assert execute(server, "pkill -xf 'sleep 1000'")["exit_status"] == 0

    # A denial, seen by a packet, and explained.
    ran = execute(server, "curl -sS -m 10 https://pastebin.example/")
    assert ran["exit_status"] == 6
    judged = server.call("firewall_check", {"target": "pastebin.example", "name": "venus"})["structuredContent"]
    assert (judged["allowed"], judged["layer"]) == (False, "dns")
    assert "pastebin.example:443/tcp" in judged["next"]
    assert server.call("firewall_check", {"target": "api.github.com", "name": "venus"})["structuredContent"]["allowed"]
    assert execute(server, "curl -sS -o /dev/null -m 10 -k https://api.github.com/zen")["exit_status"] == 0
    shown = server.call("firewall_show", {"name": "venus"})["structuredContent"]
    assert [(rule["target"], rule["source"]) for rule in shown["rules"]] == [("api.github.com", ".cspace.json")]
    assert shown["firewall"]["state"] == "enforced"
    planned = server.call("firewall_show", {})["structuredContent"]
    assert planned["firewall"]["ruleset"] == shown["firewall"]["ruleset"]

    execute(server, "echo work > notes.md")
    refused = server.call("instance_destroy", {"name": "venus"})
    assert refused["isError"]
    assert "notes.md" in refused["content"][0]["text"]
    assert server.call("instance_destroy", {"name": "venus", "force": True})["structuredContent"]["lost"]["files"] == [
        "notes.md"
    ]
    assert checkout.left() == []


@pytest.mark.requirement("M6")
def test_a_cancelled_command_is_stopped_where_it_runs(server: RawServer) -> None:
    spawn(server)
    execute(server, "mkfifo /tmp/fifo")
    command = "echo > /tmp/fifo; exec sleep 1000"
    number = server.send("tools/call", {"name": "instance_exec", "arguments": {"name": "venus", "command": command}})
    execute(server, "cat /tmp/fifo")
    server.notify("notifications/cancelled", {"requestId": number})
    # Looked for inside, until it is gone; reading a FIFO that nobody writes to is the pause.
    gone = "for i in $(seq 100); do pgrep -xf 'sleep 1000' || exit 0; read -t 0.1 <> /tmp/fifo; done; exit 1"
    assert execute(server, gone)["exit_status"] == 0


@pytest.mark.requirement("M6")
def test_a_cancelled_spawn_leaves_nothing(server: RawServer, checkout: Checkout) -> None:
    params = {"name": "instance_spawn", "arguments": {"name": "venus"}, "_meta": {"progressToken": 1}}
    number = server.send("tools/call", params)
    while "starting the container" not in server.receive()["params"]["message"]:
        pass
    server.notify("notifications/cancelled", {"requestId": number})
    # The same name: the lock of the one that is being undone is waited for by none, so ask until it is free.
    for _ in range(200):
        made = server.call("instance_spawn", {"name": "venus"})
        if not made["isError"]:
            break
        assert "venus" in made["content"][0]["text"]
    assert made["structuredContent"]["state"] == "ready"


def test_a_killed_server_leaves_nothing(checkout: Checkout) -> None:
    with RawServer([*CSPACE, "mcp"], cwd=checkout.root, env=checkout.variables()) as server:
        server.initialize()
        params = {"name": "instance_spawn", "arguments": {"name": "venus"}, "_meta": {"progressToken": 1}}
        server.send("tools/call", params)
        while "starting the container" not in server.receive()["params"]["message"]:
            pass
        server.process.kill()
    # `up` waits for whoever holds the name.
    assert checkout.json("up", "venus")["state"] == "ready"
    assert len(checkout.json("list")["instances"]) == 1


def test_configuration_is_read_anew_and_errors_say_what_to_do(server: RawServer, checkout: Checkout) -> None:
    checkout.configure(firewall={"domain": []})
    broken = server.call("firewall_show", {})
    assert broken["isError"]
    assert "firewall.domain: unknown key; did you mean 'domains'?" in broken["content"][0]["text"]
    checkout.configure(firewall={})
    assert not server.call("firewall_show", {})["isError"]


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("instance_exec", {"name": "nobody", "command": "true"}, "there is no instance nobody"),
        ("instance_destroy", {"name": "nobody"}, "there is no instance nobody"),
        ("firewall_show", {"name": "nobody"}, "there is no instance nobody"),
        ("firewall_check", {"name": "nobody", "target": "a.example"}, "there is no instance nobody"),
        ("firewall_check", {"target": "a b"}, "[bad-target]"),
        ("instance_spawn", {"name": "two words"}, "[bad-name]"),
    ],
)  # fmt: skip
def test_errors(server: RawServer, tool: str, arguments: dict[str, object], expected: str) -> None:
    result = server.call(tool, arguments)
    assert result["isError"]
    assert expected in result["content"][0]["text"]


@pytest.mark.claude
@pytest.mark.requirement("M1")
@pytest.mark.requirement("M2")
@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
def test_the_real_claude_code_does_it_all(checkout: Checkout, era: str) -> None:
    import json

    from support.claude import client
    from support.claude.messages import ScriptedMessages, say, use

    home = checkout.root.parent / "home"
    home.mkdir()
    script = [
        use("instance_spawn", name="venus"),
        use("instance_exec", name="venus", command="git log --format=%s; curl -sS -m 10 https://pastebin.example/"),
        use("firewall_check", target="https://pastebin.example/", name="venus"),
        use("instance_destroy", name="venus"),
        say("done"),
    ]
    with ScriptedMessages(script) as api:
        ended = client.run(
            client.VERSIONS[era], api, [*CSPACE, "mcp"], home=home, cwd=checkout.root,
            env={key: value for key, value in checkout.variables().items() if key in {*checkout.environ, "PYTHONPATH"}},
        )  # fmt: skip
    assert ended.status == 0, ended
    assert [error for error, _ in api.results] == [False] * 4, api.results
    made, ran, judged, gone = (json.loads(text) for _, text in api.results)
    assert (made["state"], made["reasons"]) == ("ready", [])
    assert made["verification"]["state"] == "verified"
    assert ran["exit_status"] == 6
    assert ran["stdout"] == "add README\n"
    assert "Could not resolve host" in ran["stderr"]
    assert (judged["allowed"], judged["suggestion"]) == (False, "pastebin.example:443/tcp")
    assert f"cspace-{checkout.root.name}-venus" in gone["removed"]
    assert checkout.left() == []
