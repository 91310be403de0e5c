"""Policies in TOML: the same language, and errors as good as those for JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import policies

from netpolicy.cli import main
from netpolicy.errors import UserError
from netpolicy.policy import load, parse

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refusal(path: Path) -> list[str]:
    with pytest.raises(UserError) as error:
        load(path)
    assert error.value.code == "bad-policy"
    json.dumps(error.value.as_dict(), allow_nan=False)
    return [f"{row['key']}: {row['message']}" for row in error.value.details["problems"]]


def toml(value: Any) -> str:
    """A value as TOML writes it inside a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d(T[^ ]*)?\Z", value):
        return value
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def test_the_page_has_one_policy_in_both_forms(project: Path) -> None:
    in_toml, in_json = (
        re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0] for kind in ("toml", "json")
    )
    found = load(write(project / "policy.toml", in_toml))
    assert found == load(write(project / "policy.json", in_json))
    assert (found.source, found.domains[0].origin.key) == ("policy.toml", "domains[0]")


def test_every_way_to_write_it(project: Path) -> None:
    wanted = parse({"allow": [{"host": "a.example", "reason": "r"}], "verify": {"blocked": ["b.example"]}}, source="p")
    for name, text in (
        ("a.toml", '[[allow]]\nhost = "a.example"\nreason = "r"\n[verify]\nblocked = ["b.example"]\n'),
        ("b.TOML", '\ufeffverify.blocked = ["b.example"]\r\nallow = [{host = "a.example", reason = \'r\'}] # why\r\n'),
        (
            "c.toml",
            '[[firewall.allow]]\nhost = "a.example"\nreason = """r"""\n[firewall.verify]\nblocked = ["b.example"]\n',
        ),
    ):
        assert load(write(project / name, text)) == wanted


def test_a_policy_file_may_be_toml(project: Path) -> None:
    write(project / "strict.toml", 'domains = ["a.example"]\n')
    write(project / ".cspace.json", '{"firewall": {"policy_file": "strict.toml"}}')
    policy = load(project)
    assert [str(rule.target) for rule in policy.domains] == ["a.example"]
    assert policy.source == "strict.toml"
    write(project / "strict.toml", "domains = [")
    assert refusal(project) == [
        ": line 1, column 12: expected a value (texts stand in quotes; true and false in lower case)"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "domains = [a.example]",
            "line 1, column 12: expected a value (texts stand in quotes; true and false in lower case)",
        ),
        ("\nssh = True", "line 2, column 7: expected a value (texts stand in quotes"),
        ('domains = ["a.example" "b.example"]', "line 1, column 24: a list is not closed (a comma missing"),
        ('domains = ["a.example"', "line 1, column 23: a list is not closed"),
        ('ssh = true\ndomains = ["a.example\n"]', "line 2, column 22: a quote is not closed on its line"),
        ("ssh = true\nssh = false", "line 2, column 12: this key is written twice in one table"),
        ("[presets]\nnpm = true\n[presets]", "line 3, column 9: the table [presets] is written twice"),
        ("ssh = true,", "line 1, column 11: expected the end of the line"),
        ("{}", "line 1, column 1: invalid statement"),
        ('{"domains": []}', "line 1, column 1: invalid statement"),
        ("ssh", "line 1, column 4: expected = after a key"),
        ("x = " + "[" * 100_000, "is nested too deeply"),
        ("host_access = [" + "9" * 5000 + "]", "cannot be read: Exceeds the limit"),
    ],
)
def test_a_broken_file_says_where(project: Path, text: str, said: str) -> None:
    (found,) = refusal(write(project / "policy.toml", text))
    assert found.startswith(f": {said}")


def test_an_error_without_a_place_is_told_as_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(_text: str) -> Any:
        raise tomllib.TOMLDecodeError("Something new")

    monkeypatch.setattr(tomllib, "loads", odd)
    assert refusal(write(project / "policy.toml", "")) == [": Something new"]


def test_a_file_that_is_no_text_says_where(project: Path) -> None:
    (project / "policy.toml").write_bytes(b'a = "\xff"')
    assert refusal(project / "policy.toml") == [": byte 6 is not UTF-8"]


def test_values_that_json_has_no_word_for_are_refused_like_others(project: Path) -> None:
    text = "ssh = 2026-01-01\ndomains = [2026-01-01T00:00:00Z]\nhost_access = [inf]\n[presets]\nnpm = nan\n[[allow]]\nreason = 01:00:00\n"
    assert [line.partition(": ")[0] for line in refusal(write(project / "policy.toml", text))] == [
        "presets.npm", "domains[0]", "allow[0].reason", "allow[0]", "ssh", "host_access[0]",
    ]  # fmt: skip


def test_ends_are_dates_of_their_own(project: Path) -> None:
    text = """
[[allow]]
host = "a.example"
expires = 2027-01-31
[[allow]]
host = "a.example"
expires = 2027-01-31T18:00:00.5+01:00
[[allow]]
host = "a.example"
expires = "2027-01-31"
"""
    found = load(write(project / "policy.toml", text))
    assert [rule.until for rule in found.allow] == [1801440000.0, 1801414800.0, 1801440000.0]
    assert found.to_json()["allow"][1]["expires"] == "2027-01-31T17:00:00Z"
    for end, said in (
        ("2027-01-31T18:00:00", "has no time zone; write 2027-01-31T18:00:00Z"),
        ("18:00:00", "must be a date"),
    ):
        text = f'[[allow]]\nhost = "a.example"\nexpires = {end}\n'
        (message,) = refusal(write(project / "policy.toml", text))
        assert message.startswith(f"allow[0].expires: {said}")


def test_a_key_that_slipped_into_a_table_is_told_where_it_belongs(project: Path) -> None:
    text = '[presets]\npypi = true\ndomains = ["a.example"]\n'
    assert refusal(write(project / "policy.toml", text)) == [
        "presets.domains: there is no such preset; domains is a key of the policy (in TOML it stands above [presets])"
    ]
    assert refusal(write(project / "policy.toml", 'domains = ["a.example"]\n[firewall]\nssh = true\n')) == [
        "domains: belongs inside `firewall`: [firewall]"
    ]


def test_the_programs_read_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "policy.toml", 'domains = ["a.example"]\n')
    assert main(["check", "a.example", "--policy", "policy.toml"]) == 0
    assert main(["check", "b.example", "--policy", "policy.toml"]) == 1
    assert 'add "b.example:443/tcp" to allow in policy.toml' in capsys.readouterr().out
    write(project / "same.json", '{"domains": ["a.example"]}')
    assert main(["diff", "policy.toml", "same.json"]) == 0


def test_json_policies_do_not_pay_for_it() -> None:
    script = "import sys, netpolicy.cli.check; assert 'tomllib' not in sys.modules and 'netpolicy.algebra' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@given(policies())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_a_policy_means_the_same_in_both_forms(project: Path, document: dict[str, Any]) -> None:
    path = write(project / "policy.toml", "".join(f"{key} = {toml(value)}\n" for key, value in document.items()))
    assert load(path) == parse(document, source="p")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_policy_or_one_error(project: Path, data: bytes) -> None:
    path = project / "policy.toml"
    path.write_bytes(data)
    try:
        load(path)
    except UserError as error:
        assert error.code == "bad-policy"
