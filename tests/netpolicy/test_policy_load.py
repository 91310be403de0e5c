"""Where a policy comes from: files, a project's own presets, another policy file, nothing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netpolicy.errors import Exit, UserError
from netpolicy.policy import find, load
from netpolicy.policy.files import LARGEST_BYTES


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def refusal(path: Path | None, **more: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        load(path, **more)
    assert error.value.code == "bad-policy"
    return [f"{row['file']}: {row['key']}: {row['message']}" for row in error.value.details["problems"]]


def hosts(path: Path, **more: Any) -> list[str]:
    return [str(rule.target) for rule in load(path, **more).domains]


def test_a_project_file_a_directory_and_a_bare_policy(project: Path) -> None:
    write(project / ".cspace.json", {"firewall": {"domains": ["a.example"]}, "container": {}})
    write(project / "strict.json", {"domains": ["b.example"], "presets": {"npm": False}})
    write(project / "wrapped.json", {"firewall": {"domains": ["c.example"]}})
    write(project / "mine" / ".cspace.json", {"container": {}})
    assert hosts(project / ".cspace.json") == hosts(project) == ["a.example"]
    assert hosts(project / "strict.json") == ["b.example"]
    assert hosts(project / "wrapped.json") == ["c.example"]
    assert hosts(project / "mine") == []
    assert load(project).source == ".cspace.json"
    assert load(project / "mine").source == "mine/.cspace.json"
    origin = load(project / "strict.json").domains[0].origin
    assert (origin.source, origin.key) == ("strict.json", "domains[0]")


def test_the_local_file_lies_over_the_committed_one(project: Path) -> None:
    write(project / ".cspace.json", {"firewall": {"domains": ["a.example"], "ssh": "any", "presets": {"npm": False}}})
    write(project / ".cspace.local.json", {"firewall": {"domains": ["b.example"], "presets": {"pypi": True}}})
    policy = load(project / ".cspace.json")
    assert [rule.origin.source for rule in policy.domains] == [".cspace.local.json"]
    assert hosts(project) == ["b.example"]
    assert (policy.ssh, policy.ssh_origin.source) == ("any", ".cspace.json")
    assert policy.presets == (("npm", False), ("pypi", True))
    (project / ".cspace.json").unlink()
    assert load(project).source == ".cspace.local.json"


def test_a_word_of_one_file_may_contradict_that_of_the_other(project: Path) -> None:
    write(project / ".cspace.json", {"firewall": {"mode": "observe"}})
    write(project / ".cspace.local.json", {"firewall": {"enabled": False}})
    assert refusal(project) == [
        ".cspace.json: firewall.mode: contradicts `enabled`, which is false; leave one of them out"
    ]
    write(project / ".cspace.local.json", {"firewall": {"mode": "off"}})
    assert load(project).mode == "off"


def test_a_missing_file_is_one_clear_message(project: Path) -> None:
    for path in (project / "no.json", project / ".cspace.json", project, Path("nul\0.json"), Path("x" * 5000)):
        with pytest.raises(UserError) as error:
            load(path)
        assert (error.value.code, error.value.exit_status) == ("no-policy-file", Exit.BAD_INPUT)
        assert "there is no policy file" in error.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"domains": [}', "line 1, column 14: expected a value (a comma after the last entry, or nothing at all?)"),
        ('{"domains": [],\n}', "line 2, column 1: expected a key in double quotes"),
        ("{} {}", "line 1, column 4: extra data"),
        ("[]", "the whole file must be one JSON object, {...}"),
        ('{"ssh": true, "ssh": false}', 'the key "ssh" is written twice in one object'),
        ("[" * 100_000, "is nested too deeply"),
        ('{"ssh": ' + "9" * 5000 + "}", "cannot be read: Exceeds the limit"),
        (" " * (LARGEST_BYTES + 1), "is larger than 4 MiB; that is no policy"),
    ],
)
def test_a_broken_file_says_where(project: Path, text: str, said: str) -> None:
    found = refusal(write(project / "policy.json", text))
    assert len(found) == 1
    assert found[0].startswith(f"policy.json: : {said}")


def test_a_file_that_is_no_text_says_where(project: Path) -> None:
    (project / "policy.json").write_bytes(b'{"a": "\xff"}')
    assert refusal(project / "policy.json") == ["policy.json: : byte 8 is not UTF-8"]
    write(project / "bom.json", '\ufeff{"domains": ["a.example"]}')
    assert hosts(project / "bom.json") == ["a.example"]


def test_a_file_that_cannot_be_read_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(project / "policy.json", {})
    honest = Path.open

    def denied(self: Path, *args: Any, **more: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return honest(self, *args, **more)

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(path) == ["policy.json: : cannot be read: Permission denied"]


def test_a_pipe_can_be_a_policy(project: Path) -> None:
    pipe = project / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b'{"domains": ["a.example"]}',), daemon=True)
    writer.start()
    assert hosts(pipe) == ["a.example"]
    writer.join(10)
    write(project / ".cspace.json", {"firewall": {"policy_file": "pipe"}})
    assert "there is no such file" in refusal(project)[0]


def test_a_policy_in_the_wrong_place_is_noticed(project: Path) -> None:
    write(project / ".cspace.json", {"domains": ["a.example"], "verify": {"all": "make test"}})
    message = 'belongs inside `firewall`: {"firewall": {"domains": ...}}'
    assert refusal(project) == [f".cspace.json: domains: {message}"]
    assert refusal(write(project / "x.json", {"firewall": [], "domains": []})) == [
        f"x.json: domains: {message}",
        "x.json: firewall: must be an object, {...}",
    ]


@pytest.mark.requirement("F12")
@pytest.mark.parametrize("section", [{"domains": ["b.example:443"]}, {"firewall": {"domains": ["b.example:443"]}}])
def test_a_policy_file_replaces_the_whole_policy(project: Path, section: Any) -> None:
    write(project / "conf" / "strict.json", section)
    write(
        project / ".cspace.json",
        {"firewall": {"policy_file": "conf/strict.json", "domains": ["a.example"], "ssh": False, "enabled": False}},
    )
    policy = load(project, environ={"CSPACE_FIREWALL_DOMAINS": "c.example"})
    assert [str(rule.target) for rule in policy.domains] == ["b.example:443/tcp", "c.example"]
    assert (policy.enabled, policy.ssh, policy.source) == (True, True, "conf/strict.json")


@pytest.mark.requirement("F12")
def test_a_policy_file_is_checked_like_any_other(project: Path) -> None:
    write(project / "loop.json", {"policy_file": "loop.json"})
    write(project / "bad.json", {"domains": ["a b"]})
    for name, said in (
        ("none.json", f".cspace.json: firewall.policy_file: there is no such file in {project}"),
        ("loop.json", "loop.json: policy_file: a policy file cannot name another one"),
        ("bad.json", "bad.json: domains[0]: a target has no spaces; write each target as an entry of its own"),
        ("\0", f".cspace.json: firewall.policy_file: there is no such file in {project}"),
    ):
        write(project / ".cspace.json", {"firewall": {"policy_file": name}})
        assert refusal(project) == [said]


@pytest.mark.requirement("F12")
def test_a_project_has_presets_of_its_own(project: Path) -> None:
    write(
        project / ".cspace" / "presets" / "mine.json",
        {"names": ["a.example:443", "*.A.example"], "ranges": ["192.0.2.0/24"]},
    )
    write(project / ".cspace" / "presets" / "npm.json", {"summary": "ours", "names": ["npm.example"], "default": True})
    write(project / ".cspace.json", {"firewall": {"presets": {"mine": True}}})
    active = {preset.name: preset for preset in load(project).active}
    assert (active["mine"].names, active["mine"].ranges) == (("a.example:443", "*.A.example"), ("192.0.2.0/24",))
    assert active["mine"].file == ".cspace/presets/mine.json"
    assert (active["npm"].summary, active["npm"].names) == ("ours", ("npm.example",))
    # A policy file in a folder of the project sees them as well.
    write(project / "conf" / "p.json", {"presets": {"mine": True, "npm": False}})
    assert "mine" in {preset.name for preset in load(project / "conf" / "p.json").active}


@pytest.mark.requirement("F12")
def test_a_project_preset_is_checked(project: Path) -> None:
    folder = project / ".cspace" / "presets"
    write(folder / "Bad Name.json", {"names": ["a.example"]})
    write(folder / "broken.json", "{")
    write(folder / "empty.json", {})
    write(folder / "other.json", {"name": "another", "names": ["a.example"]})
    write(
        folder / "wrong.json",
        {"names": ["192.0.2.1", 7, "a b", "*.com"], "ranges": ["a.example"], "colour": 1, "default": 1},
    )
    write(project / ".cspace.json", {})
    assert refusal(project) == [
        ".cspace/presets/Bad Name.json: : a preset's name has lower-case letters, digits and hyphens; rename the file",
        ".cspace/presets/broken.json: : line 1, column 2: expected a key in double quotes "
        "(a comma after the last entry, a comment, or single quotes?)",
        '.cspace/presets/empty.json: : a preset needs `names` or `ranges`, such as {"names": ["example.com"]}',
        ".cspace/presets/other.json: name: must be the file's own name, 'other'",
        ".cspace/presets/wrong.json: colour: unknown key; known here: date, default, name, names, ranges, source, summary",
        ".cspace/presets/wrong.json: default: must be true or false",
        ".cspace/presets/wrong.json: names[0]: names belong in `names`, addresses and networks in `ranges`",
        '.cspace/presets/wrong.json: names[1]: must be a text such as "example.com" or "192.0.2.0/24:443"',
        ".cspace/presets/wrong.json: names[2]: a target has no spaces; write each target as an entry of its own",
        ".cspace/presets/wrong.json: names[3]: com is a public suffix: anybody can have a name below it; write *.yourname.com, or the exact names",
        ".cspace/presets/wrong.json: ranges[0]: names belong in `names`, addresses and networks in `ranges`",
    ]


def test_a_project_is_found_from_below_but_not_beyond_its_repository(project: Path) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    assert find(project) is None or project not in find(project).parents  # type: ignore[union-attr]
    write(project / ".cspace.local.json", {})
    assert find(deep) == project
    write(project / "a" / ".cspace.json", {})
    assert find(deep) == project / "a"
    (deep / ".git").mkdir()
    assert find(deep) is None


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_policy_or_one_error(project: Path, data: bytes) -> None:
    path = project / "policy.json"
    path.write_bytes(data)
    try:
        load(path)
    except UserError as error:
        assert error.code == "bad-policy"
