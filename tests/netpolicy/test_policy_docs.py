"""docs/policy.md is run: its policies are read, its commands print what it says, its tables are complete."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from netpolicy import compile_policy, presets
from netpolicy.cli import main
from netpolicy.flow import Layer
from netpolicy.policy import load, parse, target
from netpolicy.policy.parsing import KEYS
from netpolicy.presets import refreshing

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
BLOCKS = [(kind, body) for kind, body in re.findall(r"^```(\w[\w ]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
BROKEN = {"domain": [], "presets": {"gihtub": True}, "allow": ["https://example.com/"]}


def bodies(kind: str) -> list[str]:
    return [body for found, body in BLOCKS if found == kind]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the page's first policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSPACE_FIREWALL_DOMAINS", raising=False)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".cspace.json").write_text(bodies("json")[0])
    (tmp_path / "broken.json").write_text(json.dumps(BROKEN))
    return tmp_path


@pytest.mark.parametrize("body", bodies("json"))
def test_every_policy_on_the_page_is_read(project: Path, body: str) -> None:
    (project / "ci").mkdir()
    (project / "ci" / "strict.json").write_text("{}")
    path = project / "example.json"
    path.write_text(body)
    assert compile_policy(load(path)).warnings == ()


def test_the_presets_on_the_page_are_read(project: Path) -> None:
    folder = project / ".cspace" / "presets"
    folder.mkdir(parents=True)
    (body,) = bodies("json preset")
    (folder / "mirror.json").write_text(body)
    policy = parse({"presets": {"mirror": True}}, source="p", base=project)
    assert compile_policy(policy).by_name["mirror.example.com"]


@pytest.mark.parametrize("body", bodies("console"))
def test_every_command_prints_what_the_page_says(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    command, _, expected = body.partition("\n")
    # The provider is not asked by tests; tests/netpolicy/test_presets_refresh.py has one of its own.
    monkeypatch.setattr(refreshing, "fetch", lambda *_words, **_more: json.dumps(presets.current("github").lists))
    words = shlex.split(command)
    assert words[:2] == ["$", "netpolicy"]
    main(words[2:])
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    wanted = expected.splitlines()
    assert len(lines) == len(wanted), "\n".join(lines)
    for line, want in zip(lines, wanted, strict=True):
        assert line.startswith(want[:-1]) if want.endswith("…") else line == want


def test_every_target_on_the_page_is_one() -> None:
    table = PAGE.split("## Targets")[1].split("- **Names")[0]
    texts = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(texts) == 12
    for text in texts:
        assert target.parse(text)


def test_every_key_layer_and_preset_is_on_the_page() -> None:
    assert set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == set(KEYS)
    verdicts = PAGE.split("## Verdicts")[1]
    assert re.findall(r"^\| `(\w+)` \|", verdicts, re.MULTILINE) == [layer.value for layer in Layer]
    off = PAGE.split("<!-- presets:off -->")[1].split("<!-- /presets -->")[0]
    every = {name: presets.load(name).default for name in presets.names()}
    assert set(re.findall(r"`([\w-]+)`", off)) == {name for name, on in every.items() if not on}
    on_line = PAGE.split("On by default: ")[1].split("Off by default")[0]
    assert set(re.findall(r"`([\w-]+)`", on_line)) == {name for name, on in every.items() if on}
