"""`netpolicy check`: what it prints, what it returns, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netpolicy.cli import main

#: Loading one of these would make a question about a policy slow, or need what is not there.
HEAVY = {"pydantic", "pyroute2", "dns", "docker", "mcp", "anyio", "asyncio", "ssl", "socket", "subprocess"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSPACE_FIREWALL_DOMAINS", raising=False)
    (tmp_path / ".git").mkdir()
    return tmp_path


def write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["check", "--json", *words])
    return status, json.loads(capsys.readouterr().out)


def test_an_allowed_name_with_everything_it_opens(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "github.com"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "allowed  github.com:443/tcp",
        "  layer     dns: by name, before any packet is sent",
        "  why       github.com (preset:github, names[0]) allows github.com:443/tcp",
        "  rule      github.com (preset:github, names[0])",
        "  reason    GitHub: web, API, git, raw files and release downloads",
        "  identity  ip: whoever else serves from the same address is reachable too",
    ]
    assert lines[6].startswith("  policy    built-in defaults, ruleset ")
    assert lines[7:] == ["  opened    22/tcp, 80/tcp, 443/tcp"]


def test_a_denial_says_what_to_add_and_where(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "pypi.org"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        '  to allow  add "pypi.org:443/tcp" to firewall.allow in .cspace.json',
        "  or        set firewall.presets.pypi to true in .cspace.json",
    ]
    write(project / "strict.json", {"presets": {"github": False}, "domains": ["a.example:8080"]})
    assert main(["check", "a.example", "--policy", "strict.json"]) == 1
    out = capsys.readouterr().out
    assert "denied  a.example:443/tcp\n  layer     port: the target is known, but not at this port\n" in out
    assert "  nearest   a.example:8080 (strict.json, domains[0])\n" in out
    assert out.endswith('  to allow  add "a.example:443/tcp" to allow in strict.json\n')


def test_the_same_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / ".cspace.json", {"firewall": {"allow": [{"host": "192.0.2.0/24", "reason": "the lab"}]}})
    status, found = answer(capsys, "192.0.2.7:22")
    assert (status, found["allowed"], found["layer"], found["identity"]) == (0, True, "address", "ip")
    assert found["rule"] == {
        "source": ".cspace.json", "key": "firewall.allow[0]", "text": "192.0.2.0/24", "reason": "the lab",
    }  # fmt: skip
    assert found["opened"] == ["22/tcp", "80/tcp", "443/tcp"]
    assert (found["policy"], found["mode"], found["warnings"], found["advice"]) == (".cspace.json", "enforce", [], [])
    status, found = answer(capsys, "files.pythonhosted.org")
    assert (status, found["allowed"], found["suggestion"]) == (1, False, "files.pythonhosted.org:443/tcp")
    assert found["advice"] == [
        {"file": ".cspace.json", "key": "firewall.allow", "add": "files.pythonhosted.org:443/tcp"},
        {"file": ".cspace.json", "key": "firewall.presets.pypi", "add": True},
    ]


def test_the_advice_works_when_it_is_followed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        write(project / ".cspace.json", {"firewall": {}})
        advice = answer(capsys, "pypi.org")[1]["advice"][number]
        _, *path = advice["key"].split(".")
        value = {path[1]: True} if len(path) > 1 else [advice["add"]]
        write(project / advice["file"], {"firewall": {path[0]: value}})
        assert answer(capsys, "pypi.org")[0] == 0


@pytest.mark.requirement("F7")
def test_a_policy_that_is_off_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / ".cspace.json", {"firewall": {"enabled": False}})
    status, found = answer(capsys, "anything.example:25")
    assert (status, found["layer"], found["mode"]) == (0, "off", "off")
    assert main(["check", "anything.example:25"]) == 0
    assert "  layer     off: the firewall is switched off\n" in capsys.readouterr().out


@pytest.mark.requirement("F6")
def test_the_project_is_found_from_below_with_its_local_file_and_the_environment(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / ".cspace.json", {"firewall": {"domains": ["a.example"]}})
    (project / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "er")
    assert answer(capsys, "a.example")[0] == 0
    write(project / ".cspace.local.json", {"firewall": {"domains": ["b.example"]}})
    assert answer(capsys, "a.example")[0] == 1
    assert answer(capsys, "b.example")[0] == 0
    monkeypatch.setenv("CSPACE_FIREWALL_DOMAINS", "c.example")
    status, found = answer(capsys, "c.example")
    assert (status, found["rule"]["source"]) == (0, "env:CSPACE_FIREWALL_DOMAINS")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["a b"], "bad-target"),
        (["*.example.com"], "bad-target"),
        (["example.com", "--policy", "none.json"], "no-policy-file"),
        (["example.com", "--policy", "bad.json"], "bad-policy"),
        (["example.com", "more"], "usage"),
        ([], "usage"),
    ],
)
def test_bad_input_is_one_error_and_status_2(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    write(project / "bad.json", {"domains": [1, 2]})
    status, found = answer(capsys, *words)
    assert (status, found["error"]["code"]) == (2, code)
    assert main(["check", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


def test_warnings_of_the_policy_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from netpolicy.cli import asked
    from netpolicy.policy import Policy
    from netpolicy.presets import Preset

    odd = Preset("odd", "", "", "", True, ("a b",), (), "preset:odd")
    monkeypatch.setattr(asked, "load", lambda *_args, **_more: Policy(active=(odd,)))
    main(["check", "x.example"])
    assert "  warning   preset:odd: names[0] 'a b' is left out: a target has no spaces" in capsys.readouterr().out


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n' + ' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_asking_loads_nothing_heavy(project: Path) -> None:
    write(project / ".cspace.json", {"firewall": {"domains": ["a.example"], "verify": {"blocked": ["b.example"]}}})
    assert not loaded_by("from netpolicy.cli import main; main(['check', 'a.example:444'])") & HEAVY


def test_the_surface_of_the_package_is_small_and_lazy() -> None:
    import netpolicy

    assert netpolicy.__all__ == sorted(netpolicy.__all__, key=lambda n: (n[0].islower(), n))
    assert set(netpolicy.__all__) <= set(dir(netpolicy))
    for name in netpolicy.__all__:
        assert getattr(netpolicy, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="module 'netpolicy' has no attribute 'nothing'"):
        _ = netpolicy.nothing
    script = "import sys, netpolicy; assert 'netpolicy.policy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert not loaded_by("import netpolicy") & HEAVY


def test_denials_ends_and_what_is_only_observed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy: dict[str, Any] = {
        "domains": ["*.example.com:443"],
        "deny": [{"host": "www.example.com", "reason": "ads"}],
        "allow": [{"host": "a.example", "expires": "2020-01-31"}, {"host": "b.example", "roles": ["browser"]}],
    }
    write(project / "p.json", policy)
    assert main(["check", "www.example.com", "--policy", "p.json"]) == 1
    out = capsys.readouterr().out
    assert "  rule      www.example.com (p.json, deny[0])\n  reason    ads\n" in out
    assert "to allow" not in out
    assert "  warning   p.json: allow[0] a.example is left out: it ended on 2020-01-31\n" in out
    assert answer(capsys, "x.example.com", "--policy", "p.json")[0] == 0
    assert answer(capsys, "a.example", "--policy", "p.json")[0] == 1
    assert answer(capsys, "b.example", "--policy", "p.json")[0] == 1
    assert answer(capsys, "b.example", "--policy", "p.json", "--role", "browser")[0] == 0
    write(project / "p.json", {**policy, "mode": "observe"})
    assert main(["check", "x.example.com:22", "--policy", "p.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("observed  x.example.com:22/tcp\n  layer     observe: the firewall only observes;")
    assert "  nearest   *.example.com:443 (p.json, domains[0])\n" in out
    assert '  to allow  add "x.example.com:22/tcp" to allow in p.json\n' in out
    status, found = answer(capsys, "www.example.com", "--policy", "p.json")
    assert (status, found["allowed"], found["layer"], found["mode"]) == (0, True, "observe", "observe")


def test_compile_lists_denials_ends_and_modes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = {
        "mode": "observe", "ipv6": False, "ssh": False, "deny": ["192.0.2.0/25", "*.example.net:80"],
        "allow": [{"host": "*.example.com", "expires": "2999-12-31"}, {"host": "192.0.2.0/24", "roles": ["services"]}],
        "presets": dict.fromkeys(["anthropic", "claude", "github", "npm", "observability", "testing", "vercel"], False),
    }  # fmt: skip
    write(project / "p.json", document)
    assert main(["compile", "--policy", "p.json", "--role", "services"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("of p.json  (observe: what is not listed here passes as well, and is counted)")
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "no IPv6",
        "names (1)",
        "*.example.com 80/tcp, 443/tcp p.json, allow[0], until 2999-12-31",
        "networks (1)",
        "192.0.2.0/24 80/tcp, 443/tcp p.json, allow[1]",
        "host (0)",
        "denied (2)",
        "*.example.net 80/tcp p.json, deny[1]",
        "192.0.2.0/25 everything p.json, deny[0]",
    ]
    assert main(["compile", "--policy", "p.json"]) == 0
    assert "networks (0)" in capsys.readouterr().out


def test_several_policies_count_together_and_each_rule_keeps_its_file(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSPACE_FIREWALL_DOMAINS", "extra.example")
    write(project / "company.json", {"domains": ["a.example", "b.example"], "deny": ["*.bad.example"], "ipv6": False})
    write(project / "team.json", {"domains": ["c.example", "x.bad.example"], "deny": ["b.example"], "mode": "observe"})
    both = ("--policy", "company.json", "--policy", "team.json")
    for target, status, source in (
        ("a.example", 0, "company.json"), ("c.example", 0, "team.json"), ("b.example", 1, "team.json"),
        ("x.bad.example", 1, "company.json"), ("extra.example", 0, "env:CSPACE_FIREWALL_DOMAINS"),
    ):  # fmt: skip
        found = answer(capsys, target, *both)
        assert (found[0], found[1]["rule"]["source"]) == (status, source), target
        assert (found[1]["policy"], found[1]["mode"]) == ("company.json + team.json", "enforce")
    assert answer(capsys, "[2001:db8::1]:443", *both)[0] == 1
    advice = answer(capsys, "d.example", *both)[1]["advice"]
    assert advice == [{"file": "team.json", "key": "allow", "add": "d.example:443/tcp"}]
    assert main(["compile", *both]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].endswith(" of company.json + team.json")
    assert {
        "a.example 22/tcp, 80/tcp, 443/tcp company.json, domains[0]",
        "b.example everything team.json, deny[0]",
    } <= set(lines)
    assert sum(line.startswith("github.com ") for line in lines) == 1
