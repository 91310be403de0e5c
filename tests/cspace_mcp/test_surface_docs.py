"""The pages about the surfaces name everything there is, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from cspace_mcp import tools
from cspace_mcp.cli import PROGRAM
from cspace_mcp.config import Document, HostSettings, load
from netpolicy.errors import Exit

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.parametrize("verb", PROGRAM.verbs, ids=lambda verb: verb.name)
def test_every_verb_and_every_option_is_in_the_page_on_the_command_line(verb: object) -> None:
    verb = next(v for v in PROGRAM.verbs if v == verb)
    text = page("cli.md")
    section = next(
        (s for s in re.split(r"^## ", text, flags=re.MULTILINE) if s.split("\n")[0].split()[0] == verb.name), None
    )
    assert section is not None
    assert f"cspace {verb.name}" in section
    parser = PROGRAM.parser(verb)
    inner = [
        p for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict) for p in a.choices.values()
    ]
    for action in [a for p in (parser, *inner) for a in p._actions]:
        for option in action.option_strings:
            assert option in ("-h", "--help", "-q", "--quiet") or option in section, option


def test_the_page_on_the_configuration_names_every_key() -> None:
    named = set(re.findall(r"^\| `([a-z.]+)` \|", page("config.md"), flags=re.MULTILINE)) - {
        ".cspace.json",
        ".cspace.local.json",
    }
    keys = {"firewall"}
    for model in (Document, HostSettings):
        for section, field in model.model_fields.items():
            assert isinstance(field.annotation, type)
            assert issubclass(field.annotation, BaseModel)
            keys |= {f"{section}.{key}" for key in field.annotation.model_fields}
    assert named == keys


def test_the_example_of_a_configuration_is_right(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", page("config.md"), re.DOTALL)
    assert example is not None
    (tmp_path / ".cspace.json").write_text(example[1])
    assert set(json.loads(example[1])) == {"project", "firewall", "container", "gate"}
    assert load(tmp_path, environ={}).name == "shop"


def test_the_page_on_mcp_names_every_tool_with_its_parameters_and_hints() -> None:
    rows = {
        name: (re.findall(r"`([a-z_]+)`", parameters), hints)
        for name, parameters, hints in re.findall(
            r"^\| `([a-z_]+)` \| (.*?) \| (.*?) \|", page("mcp.md"), flags=re.MULTILINE
        )
    }
    assert set(rows) == {tool.name for tool in tools.ALL}
    for tool in tools.ALL:
        parameters, hints = rows[tool.name]
        assert parameters == list(tool.parameters["properties"])
        assert tool.annotations is not None
        assert ("read-only" in hints) is tool.annotations.read_only_hint
        assert ("destructive" in hints) is tool.annotations.destructive_hint
        assert ("open world" in hints) is tool.annotations.open_world_hint


def test_the_page_on_exit_statuses_names_every_one() -> None:
    named = {int(number) for number in re.findall(r"^\| (\d+) \|", page("exit-codes.md"), flags=re.MULTILINE)}
    known = {value for name, value in vars(Exit).items() if name.isupper()}
    assert named == known - {Exit.INTERRUPTED}
    assert f"{Exit.INTERRUPTED} after Ctrl-C" in page("exit-codes.md")
