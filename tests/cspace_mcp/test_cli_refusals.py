"""Bad input to the command line: one clear message each, and nothing made. The engine here only counts what it is asked."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cspace_mcp.cli import main
from netpolicy import command
from netpolicy.errors import Exit


class CountingEngine:
    """Something that listens where a Docker engine would, and breaks off every answer."""

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                line = self.rfile.readline()
                if line:
                    asked.append(line.decode())
                self.close_connection = True

        self.server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingEngine]:
    made = CountingEngine(tmp_path / "engine.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield made
    made.close()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        command.run(["git", "-c", "user.name=Kim", "-c", "user.email=kim@example.com", *words], cwd=root)
    monkeypatch.chdir(root)
    return root


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Run once for programs and once for people; both must say the same."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    error: dict[str, Any] = json.loads(out)["error"]
    assert "Traceback" not in err
    assert main(list(words)) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error: {error['message']}\n" in err
    return status, error, err


CONFIGURATIONS = [
    ('{"firewall": {"domains": ["a.example",]}}', "bad-config", ".cspace.json: line 1, column 3"),
    ('{"firewal": {}}', "bad-config", ".cspace.json: firewal: unknown key; did you mean 'firewall'?"),
    ('{"domains": ["a.example"]}', "bad-config", ".cspace.json: domains: belongs inside `firewall`"),
    ('{"firewall": {"domain": []}}', "bad-policy", ".cspace.json: firewall.domain: unknown key; did you mean 'domains'?"),
    ('{"firewall": {"allow": ["a.example:99999"]}}', "bad-policy", 'firewall.allow[0] = "a.example:99999": '),
    ('{"firewall": {"allow": ["10.0.0.0/33"]}}', "bad-policy", 'firewall.allow[0] = "10.0.0.0/33": '),
    ('{"container": {"memory": "much"}}', "bad-config", '.cspace.json: container.memory = "much": must be a size'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "message"), CONFIGURATIONS, ids=[row[2][-40:] for row in CONFIGURATIONS])
def test_configuration(
    engine: CountingEngine, checkout: Path, capsys: pytest.CaptureFixture[str],
    text: str, code: str, message: str,
) -> None:  # fmt: skip
    (checkout / ".cspace.json").write_text(text)
    status, error, _ = refusal(capsys, "up")
    assert (status, error["code"]) == (Exit.BAD_INPUT, code)
    assert message in error["message"]
    assert engine.asked == []


@pytest.mark.parametrize("words", [["list"], ["exec", "mars", "true"], ["down", "mars"]], ids=" ".join)
def test_only_what_makes_an_instance_needs_all_of_the_configuration(
    engine: CountingEngine, checkout: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (checkout / ".cspace.json").write_text('{"project": {"name": "My Shop"}, "firewall": {"domain": []}}')
    assert main(words) == Exit.BAD_INPUT
    assert capsys.readouterr().err.startswith('error: .cspace.json: project.name = "My Shop": must be')
    assert engine.asked == []
    (checkout / ".cspace.json").write_text('{"project": {"name": "shop"}, "firewall": {"domain": []}}')
    main(words)
    assert engine.asked


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["up", "two words"], "bad-name", "'two words' cannot be an instance's name"),
        (["up", "-x"], "usage", "unrecognized arguments: -x"),
        (["up", "a", "b"], "usage", "unrecognized arguments: b"),
        (["up", "--policy", "none.json"], "no-policy-file", "there is no policy file"),
        (["down"], "usage", "the following arguments are required: NAME"),
        (["image"], "usage", "the following arguments are required: WORD"),
        (["image", "bild"], "usage", "invalid choice: 'bild'"),
        (["frobnicate"], "usage", "unknown verb 'frobnicate'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words(
    engine: CountingEngine, checkout: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], code: str, message: str,
) -> None:  # fmt: skip
    status, error, _ = refusal(capsys, *words)
    assert (status, error["code"]) == (Exit.BAD_INPUT, code)
    assert message in error["message"]
    assert engine.asked == []


@pytest.mark.parametrize("words", [["exec", "mars"], ["exec", "mars", "--"]], ids=" ".join)
def test_a_command_that_is_missing(
    engine: CountingEngine, checkout: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words) == Exit.BAD_INPUT
    assert capsys.readouterr().err.startswith("error: cspace exec: there is no command\n")
    assert engine.asked == []


def test_the_environment(
    engine: CountingEngine, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSPACE_VERIFY_SECONDS", "soon")
    status, error, _ = refusal(capsys, "up")
    assert (status, error["code"]) == (Exit.BAD_INPUT, "bad-environment")
    monkeypatch.delenv("CSPACE_VERIFY_SECONDS")
    monkeypatch.setenv("CSPACE_FIREWALL_DOMAINS", "a.example b.example:0")
    status, error, _ = refusal(capsys, "up")
    assert (status, error["code"]) == (Exit.BAD_INPUT, "bad-policy")
    assert "CSPACE_FIREWALL_DOMAINS" in error["message"]
    assert engine.asked == []


@pytest.mark.parametrize("words", [["up"], ["list"], ["down", "mars"]], ids=" ".join)
def test_not_a_repository(
    engine: CountingEngine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    status, error, _ = refusal(capsys, *words)
    assert (status, error["code"]) == (Exit.BAD_INPUT, "not-a-repository")
    assert "git init" in error["hint"]
    assert engine.asked == []


def test_no_commits(
    engine: CountingEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    command.run(["git", "init", "-q"], cwd=tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    status, error, _ = refusal(capsys, "up")
    assert (status, error["code"]) == (Exit.BAD_INPUT, "no-commits")
    assert engine.asked == []


@pytest.mark.parametrize(
    "words", [["up"], ["list"], ["list", "--all"], ["down", "mars"], ["image", "build"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("host", "code"),
    [("unix:///nonexistent/docker.sock", "engine-unreachable"), ("tcp://127.0.0.1:1", "engine-unreachable")],
    ids=["no Docker", "unreachable"],
)
def test_no_engine(
    checkout: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    code: str,
    words: list[str],
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    status, error, _ = refusal(capsys, *words)
    assert (status, error["code"]) == (Exit.MISSING, code)
    assert host in error["message"]
    assert error["hint"]


def test_a_bad_engine_address(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "docker.example:2375")
    status, error, _ = refusal(capsys, "up")
    assert (status, error["code"]) == (Exit.BAD_INPUT, "bad-engine-address")


def test_an_engine_that_breaks_off(engine: CountingEngine, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, error, _ = refusal(capsys, "up")
    assert status in (Exit.MISSING, Exit.FAILED)
    assert "engine.sock" in error["message"]
    assert all(line.startswith("GET ") for line in engine.asked)


def test_doctor_goes_on_past_what_fails(
    engine: CountingEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / ".cspace.json").write_text("{")
    assert main(["doctor", "--json"]) == Exit.FAILED
    found = json.loads(capsys.readouterr().out)
    assert [(check["name"], check["state"]) for check in found["checks"]] == [
        ("configuration", "failed"), ("repository", "failed"), ("docker engine", "failed"),
    ]  # fmt: skip
    assert main(["doctor"]) == Exit.FAILED
    assert "failed   configuration  .cspace.json: line 1, column 2" in capsys.readouterr().out
