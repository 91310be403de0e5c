"""The pages name every verb and option of `netpolicy`, and the unit that they show is one."""

from __future__ import annotations

import argparse
import configparser
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpolicy import command
from netpolicy.cli import PROGRAM
from netpolicy.operate.homes import DEFAULT_SOCKET, DEFAULT_STATE, home
from netpolicy.policy import load

ROOT = Path(__file__).parents[3]
ATTACH = (ROOT / "docs/attach.md").read_text()


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from options(inner)
        else:
            yield from (option for option in action.option_strings if option not in ("-h", "--help"))


@pytest.mark.requirement("F14")
@pytest.mark.parametrize("verb", PROGRAM.verbs, ids=lambda verb: verb.name)
def test_the_page_on_the_command_line_names_every_option(verb: object) -> None:
    verb = next(v for v in PROGRAM.verbs if v == verb)
    page = (ROOT / "docs/cli.md").read_text().partition("## netpolicy\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    usages = [usage for block in blocks for usage in re.split(r"^(?=netpolicy )", block, flags=re.MULTILINE)]
    own = "\n".join(usage for usage in usages if usage.startswith(f"netpolicy {verb.name}"))
    assert own
    written = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", own)) - {"-y"}
    assert written == set(options(PROGRAM.parser(verb))) - {"-y"}


def test_the_unit_is_one_and_agrees_with_the_verbs(tmp_path: Path) -> None:
    text = re.search(r"```ini\n(.*?)```", ATTACH, re.DOTALL)
    assert text is not None
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text[1])
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}
    program, verb, *words = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/netpolicy")
    args = PROGRAM.parser(next(v for v in PROGRAM.verbs if v.name == verb)).parse_args(words)
    usual = home(None, None, {})
    assert (args.socket, args.state, args.table) == (str(DEFAULT_SOCKET), str(DEFAULT_STATE), usual.table)
    assert args.no_prefix
    if shutil.which("systemd-analyze"):
        # Programs that are not installed here, and other services, are not what is asked.
        for name in ("docker.service",):
            (tmp_path / name).write_text("[Service]\nExecStart=/bin/true\n")
        path = tmp_path / "netpolicy.service"
        path.write_text(text[1].replace(program, "/bin/true"))
        done = command.run(["systemd-analyze", "verify", "--man=no", str(path)], ok=range(256))
        assert [line for line in done.stderr.decode().splitlines() if "netpolicy.service" in line] == []


def test_the_policy_of_the_first_session_is_right(tmp_path: Path) -> None:
    text = (ROOT / "netpolicy/README.md").read_text()
    example = re.search(r"\$ cat policy.json\n(\{.*?\n\})", text, re.DOTALL)
    assert example is not None
    path = tmp_path / "policy.json"
    path.write_text(example[1])
    assert load(path).active == ()
    assert json.loads(example[1])["domains"] == ["registry.npmjs.org"]


@pytest.mark.parametrize("page", ["netpolicy/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)", path.read_text())
    assert links
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("verb", ["attach", "apply", "confirm", "verify", "status", "detach"])
def test_help_has_an_example(verb: str) -> None:
    text = PROGRAM.parser(next(v for v in PROGRAM.verbs if v.name == verb)).format_help()
    assert f"  netpolicy {verb} " in text.partition("options:")[0]
    assert "Exit status" in text
