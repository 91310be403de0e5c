"""`netpolicy explain`, `compile`, `diff` and `presets`: what they print, what they return; docs/review.md is run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from netpolicy import compile_policy
from netpolicy.cli import PROGRAM, main
from netpolicy.policy import load, parse
from netpolicy.ruleset import Ruleset
from netpolicy.steps import STEPS

PAGE = (Path(__file__).parents[2] / "docs" / "review.md").read_text()
BLOCKS = re.findall(r"^```(\w[\w ]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
VERBS = ("explain", "compile", "diff", "presets")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSPACE_FIREWALL_DOMAINS", raising=False)
    (tmp_path / ".git").mkdir()
    for kind, body in BLOCKS:
        if kind.startswith("json "):
            (tmp_path / f"{kind.split()[1]}.json").write_text(body)
    (tmp_path / "watch.json").write_text('{"mode": "observe", "presets": {"github": false}}')
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = main([*words, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return status, json.loads(out)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    status = main(list(words))
    captured = capsys.readouterr()
    return status, (captured.out + captured.err).splitlines()


@pytest.mark.parametrize("body", [body for kind, body in BLOCKS if kind == "console"])
def test_every_command_prints_what_the_page_says(project: Path, capsys: pytest.CaptureFixture[str], body: str) -> None:
    command, _, expected = body.partition("\n")
    _, lines = printed(capsys, *shlex.split(command)[2:])
    wanted = expected.splitlines()
    if wanted[-1] == "  …":
        lines, wanted = lines[: len(wanted) - 1], wanted[:-1]
    assert len(lines) == len(wanted), "\n".join(lines)
    for line, want in zip(lines, wanted, strict=True):
        assert re.fullmatch(re.escape(want).replace("…", ".+"), line), f"{line!r} is not {want!r}"


def test_the_page_has_every_step_and_verb() -> None:
    assert re.findall(r"^\| `(\w+)` \| (?:is|does)", PAGE, re.MULTILINE) == list(STEPS)
    for verb in VERBS:
        assert f"`netpolicy {verb}" in PAGE


@pytest.mark.parametrize("name", VERBS)
def test_help_has_an_example_and_the_exit_statuses(name: str) -> None:
    verb = next(verb for verb in PROGRAM.verbs if verb.name == name)
    text = PROGRAM.parser(verb).format_help()
    assert re.search(rf"^  netpolicy {name} ", text, re.MULTILINE)
    assert "Exit status 0: " in text


def test_explain_agrees_with_check(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("a.example:445", "b.example", "192.0.3.1", "192.0.4.1", "8.8.8.8:53/udp"):
        words = (target, "--policy", "new.json")
        checked, check = answer(capsys, "check", *words)
        status, found = answer(capsys, "explain", *words)
        assert status == checked
        shared = (
            "target",
            "flow",
            "allowed",
            "layer",
            "rule",
            "explanation",
            "identity",
            "policy",
            "ruleset",
            "mode",
            "warnings",
        )
        assert {key: found[key] for key in shared} == {key: check[key] for key in shared}
        assert found["steps"][-1]["outcome"] == ("allows" if found["allowed"] else "denies")


def test_compile_prints_the_canonical_form(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, document = answer(capsys, "compile", "--policy", "new.json")
    assert status == 0
    assert Ruleset.from_json(document) == compile_policy(load(project / "new.json"))
    main(["compile", "--json", "--policy", "new.json"])
    line = capsys.readouterr().out
    assert line == json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def test_compile_shows_every_rule(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".cspace.json").write_text('{"firewall": {"enabled": false, "host_access": [5432]}}')
    monkeypatch.setenv("CSPACE_FIREWALL_DOMAINS", "192.0.2.7:22")
    status, lines = printed(capsys, "compile")
    assert status == 0
    assert lines[0].endswith(" of .cspace.json  (off: everything passes, whatever is listed here)")
    assert any(re.match(r"  192.0.2.7/32 +22/tcp +env:CSPACE_FIREWALL_DOMAINS, ", line) for line in lines)
    assert lines[-2:] == ["host (1)", "  the host  5432/tcp  .cspace.json, firewall.host_access[0]"]


def test_diff_returns_1_only_where_something_opens(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "diff", "old.json", "new.json")[0] == 1
    assert printed(capsys, "diff", "new.json", "old.json")[0] == 1
    (project / "less.json").write_text('{"domains": ["b.example:443"], "presets": {"github": false}}')
    status, lines = printed(capsys, "diff", "old.json", "less.json")
    assert (status, lines[1]) == (0, "newly reachable: nothing")
    status, lines = printed(capsys, "diff", "old.json", "old.json")
    assert (status, lines) == (
        0, ["old.json -> old.json: the same ruleset", "newly reachable: nothing", "newly blocked: nothing", "dead rules of old.json: none"],
    )  # fmt: skip


def test_diff_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "diff", "old.json", "new.json")
    assert status == 1
    assert found["new"] == {
        "policy": "new.json",
        "ruleset": compile_policy(load(project / "new.json")).id,
        "mode": "enforce",
    }
    assert found["reachable"][-1] == {
        "kind": "network", "where": "192.0.3.0/24", "apart": [], "services": ["443/tcp"], "example": "192.0.3.0:443/tcp",
        "since": None, "until": None,
        "rule": {"source": "new.json", "key": "allow[0]", "text": "192.0.2.0/23:443/tcp", "reason": "the lab grows"},
    }  # fmt: skip
    assert [row["example"] for row in found["blocked"]] == [
        "[fe80::1]:5432/tcp",
        "a.example:22/tcp",
        "b.example:22/tcp",
        "192.0.2.128:443/tcp",
        "192.0.2.128:22/tcp",
    ]
    ads = next(row for row in found["reachable"] if row["where"] == "*.cdn.example")
    assert (ads["apart"], ads["example"]) == (["ads.cdn.example"], "www.cdn.example:443/tcp")
    assert next(row["until"] for row in found["reachable"] if row["where"] == "trial.example") == 4102444800.0
    assert [(row["origin"]["key"], [o["key"] for o in row["covered_by"]], row["denies"]) for row in found["dead"]] == [
        ("domains[0]", ["domains[1]"], False),
        ("deny[2]", [], True),
    ]
    (project / "off.json").write_text('{"enabled": false}')
    (everything,) = answer(capsys, "diff", "old.json", "off.json")[1]["reachable"]
    assert (everything["kind"], everything["where"], everything["rule"]) == ("everything", None, None)


def test_diff_says_what_denials_do_to_dead_rules(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {
        "allow": ["192.0.2.0/25:443", "192.0.2.64/26:443-444"],
        "domains": ["x.example"],
        "presets": {"github": False},
    }
    denials = {"deny": ["192.0.2.0/26", "192.0.2.0/27", "*.example"], "presets": {"github": False}}
    (project / "own.json").write_text(json.dumps(own))
    (project / "denials.json").write_text(json.dumps(denials))
    status, lines = printed(capsys, "diff", "own.json", "own.json", "--merge-new", "denials.json")
    assert (status, lines[0][:41]) == (0, "own.json -> own.json + denials.json: rule")
    assert lines[-4:] == [
        "dead rules of own.json + denials.json: 3",
        "  own.json, domains[0]: x.example (denied by *.example (denials.json, deny[2]))",
        "  own.json, allow[0]: 192.0.2.0/25:443 (covered by 192.0.2.64/26:443-444 (own.json, allow[1]); "
        "denied by 192.0.2.0/26 (denials.json, deny[0]))",
        "  denials.json, deny[1]: 192.0.2.0/27 (denied already by 192.0.2.0/26 (denials.json, deny[0]))",
    ]
    status, lines = printed(capsys, "diff", "own.json", "own.json", "--merge-old", "denials.json")
    assert (status, lines[1]) == (1, "newly reachable: 3")


def test_a_container_role_is_compared_and_explained(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = {"github": False}
    rule = {"host": "b.example", "roles": ["browser"]}
    (project / "none.json").write_text(json.dumps({"presets": quiet}))
    (project / "roles.json").write_text(json.dumps({"allow": [rule], "presets": quiet}))
    assert printed(capsys, "diff", "none.json", "roles.json")[0] == 0
    assert printed(capsys, "diff", "none.json", "roles.json", "--role", "browser")[0] == 1
    assert printed(capsys, "explain", "b.example", "--policy", "roles.json")[0] == 1
    assert printed(capsys, "explain", "b.example", "--policy", "roles.json", "--role", "browser")[0] == 0


def test_several_policies_are_explained_together(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "denials.json").write_text(json.dumps({"deny": ["192.0.2.0/24"], "presets": {"github": False}}))
    for order in (["old.json", "denials.json"], ["denials.json", "old.json"]):
        files = [word for file in order for word in ("--policy", file)]
        status, document = answer(capsys, "explain", "192.0.2.9", *files)
        assert (status, document["policy"]) == (1, " + ".join(order))
        assert document["rule"]["key"] == "deny[0]"


def test_diff_counts_what_covers_a_dead_rule(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = [f"192.0.2.{number}/30:443-444" for number in range(0, 32, 4)]
    (project / "many.json").write_text(json.dumps({"allow": [*inner, "192.0.2.0/27:443"], "host_access": [53]}))
    lines = printed(capsys, "diff", "many.json", "many.json")[1]
    assert lines[-2].startswith(
        "  many.json, allow[8]: 192.0.2.0/27:443 (covered by 192.0.2.0/30:443-444 (many.json, allow[0]), "
    )
    assert lines[-2].endswith(" and 5 more)")
    assert lines[-1] == "  many.json, host_access[0]: 53 (no rule can open it)"


def test_diff_does_not_blame_the_kits_presets(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "own.json").write_text('{"domains": ["github.com"], "ssh": "any"}')
    dead = answer(capsys, "diff", "own.json", "own.json")[1]["dead"]
    assert [row["origin"]["key"] for row in dead] == ["domains[0]"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["diff", "old.json", "none.json"], "no-policy-file"),
        (["diff", "old.json"], "usage"),
        (["diff", "old.json", "bad.json"], "bad-policy"),
        (["compile", "--policy", "bad.json"], "bad-policy"),
        (["explain", "a b"], "bad-target"),
        (["presets"], "usage"),
        (["presets", "show", "gihtub"], "no-preset"),
        (["presets", "list", "--policy", "bad.json"], "bad-policy"),
    ],
)
def test_bad_input_is_one_error_and_status_2(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    (project / "bad.json").write_text('{"domains": [1]}')
    status, found = answer(capsys, *words)
    assert (status, found["error"]["code"]) == (2, code)
    status, lines = printed(capsys, *words)
    assert (status, lines[0][:7]) == (2, "error: ")


def test_presets_are_listed_with_source_date_and_counts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "presets", "list")
    rows = {row["name"]: row for row in found["presets"]}
    assert status == 0
    assert list(rows) == sorted(rows)
    for row in rows.values():
        assert row["source"].startswith("https://")
        assert row["names"] + row["ranges"] > 0
        assert "on" not in row
    active = {preset.name for preset in parse({}, source="p").active}
    assert {name for name, row in rows.items() if row["default"]} == active
    assert (rows["github"]["ranges_days"], rows["npm"]["ranges_days"]) == (0, None)
    assert not rows["npm"]["ranges_date"]
    lines = printed(capsys, "presets", "list")[1]
    assert len(lines) == len(rows) + 1
    assert lines[0].split() == ["preset", "default", "names", "networks", "date", "source"]


def test_a_policys_switches_and_a_projects_own_presets_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / ".cspace" / "presets"
    folder.mkdir(parents=True)
    (folder / "mirror.json").write_text('{"names": ["mirror.example:443"], "summary": "Ours"}')
    (project / ".cspace.json").write_text('{"firewall": {"presets": {"mirror": true, "npm": false, "github": true}}}')
    rows = {row["name"]: row for row in answer(capsys, "presets", "list", "--policy", ".")[1]["presets"]}
    assert {name: (row["on"], row["switched"]) for name, row in rows.items() if name in ("mirror", "npm", "github", "claude", "pypi")} == {
        "mirror": (True, True), "npm": (False, True), "github": (True, True), "claude": (True, False), "pypi": (False, False),
    }  # fmt: skip
    lines = printed(capsys, "presets", "list", "--policy", ".cspace.json")[1]
    assert any(re.match(r"npm +on +off, switched +1 +0 ", line) for line in lines)
    assert "mirror" not in {row["name"] for row in answer(capsys, "presets", "list")[1]["presets"]}
    assert printed(capsys, "presets", "show", "mirror", "--policy", ".")[1][:5] == [
        "mirror", "  summary  Ours", "  default  off", "  policy   on, switched in .cspace.json", "  file     .cspace/presets/mirror.json",
    ]  # fmt: skip


def test_a_preset_is_shown_with_all_its_targets(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "presets", "show", "github")
    assert status == 0
    assert {"github.com", "ssh.github.com:22"} <= set(found["names"])
    assert "140.82.112.0/20" in found["ranges"]
    lines = printed(capsys, "presets", "show", "github")[1]
    assert any(line.startswith("  networks  of https://api.github.com/meta, ") for line in lines)
    assert f"networks ({len(found['ranges'])})" in lines
