"""`.cspace.json` and `.cspace.local.json`: what they mean, and what is said when they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cspace_mcp.config import load
from netpolicy.errors import Exit, UserError


def write(folder: Path, committed: Any = None, local: Any = None) -> Path:
    for name, document in ((".cspace.json", committed), (".cspace.local.json", local)):
        if document is not None:
            text = document if isinstance(document, str) else json.dumps(document)
            (folder / name).write_text(text)
    return folder


def refusal(folder: Path, **environ: str) -> UserError:
    with pytest.raises(UserError) as caught:
        load(folder, environ=environ)
    return caught.value


def test_without_files_everything_has_its_default(tmp_path: Path) -> None:
    config = load(tmp_path, environ={})
    assert config.files == ()
    assert config.name is None
    assert config.container.environment == {}
    assert (config.container.memory, config.container.cpus, config.container.pids) == (None, None, None)
    assert (config.gate.pool, config.gate.upstream) == (None, None)
    assert config.policy.enabled


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            {
                "project": {"name": "shop"},
                "container": {"environment": {"A": "text", "N": 3, "F": 1.5}, "memory": "4g", "cpus": 1.5, "pids": 500},
                "gate": {"pool": ["10.9.0.0/16", "fd00::/48"], "upstream": ["192.0.2.53:5353"]},
                "firewall": {"domains": ["example.org"], "verify": {"blocked": ["example.net"]}},
            },
        ),
        environ={},
    )
    assert config.name == "shop"
    assert config.container.environment == {"A": "text", "N": "3", "F": "1.5"}
    assert (config.container.memory, config.container.cpus, config.container.pids) == (4 << 30, 1.5, 500)
    assert [str(network) for network in config.gate.pool or ()] == ["10.9.0.0/16", "fd00::/48"]
    assert config.gate.upstream == ("192.0.2.53:5353",)
    assert [str(rule.target) for rule in config.policy.domains] == ["example.org"]
    assert config.policy.verify.blocked == ("example.net",)


def test_objects_merge_lists_and_scalars_replace(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            {
                "container": {"environment": {"A": "1", "B": "2"}, "memory": "1g"},
                "firewall": {"domains": ["a.example"], "allow": ["c.example:1"]},
            },
            {"container": {"environment": {"B": "3"}, "memory": "2g"}, "firewall": {"domains": ["b.example"]}},
        ),
        environ={},
    )
    assert config.files == (".cspace.json", ".cspace.local.json")
    assert config.container.environment == {"A": "1", "B": "3"}
    assert config.container.memory == 2 << 30
    assert [str(rule.target) for rule in config.policy.domains] == ["b.example"]
    assert [str(rule.target) for rule in config.policy.allow] == ["c.example:1/tcp"]
    assert config.policy.source == ".cspace.json"
    assert config.policy.domains[0].origin.source == ".cspace.local.json"
    assert config.policy.allow[0].origin.source == ".cspace.json"


@pytest.mark.requirement("F6")
def test_the_environment_adds_domains(tmp_path: Path) -> None:
    folder = write(tmp_path, {"firewall": {"domains": ["a.example"]}})
    config = load(folder, environ={"CSPACE_FIREWALL_DOMAINS": "b.example c.example"})
    assert [str(rule.target) for rule in config.policy.domains] == ["a.example", "b.example", "c.example"]
    assert "CSPACE_FIREWALL_DOMAINS" in refusal(folder, CSPACE_FIREWALL_DOMAINS="b.example:99999").message


def test_a_policy_file_replaces_the_firewall(tmp_path: Path) -> None:
    folder = write(tmp_path, {"firewall": {"domains": ["a.example"]}})
    (tmp_path / "other.json").write_text('{"domains": ["b.example"]}')
    config = load(folder, environ={}, policy_file=tmp_path / "other.json")
    assert [str(rule.target) for rule in config.policy.domains] == ["b.example"]
    (tmp_path / "other.json").write_text('{"domain": ["b.example"]}')
    with pytest.raises(UserError, match=r"other\.json: domain: unknown key; did you mean 'domains'\?"):
        load(folder, environ={}, policy_file=tmp_path / "other.json")
    with pytest.raises(UserError, match="there is no policy file"):
        load(folder, environ={}, policy_file=tmp_path / "none.json")


BAD = [
    ('{"container": {"memory": "4g",}}', ".cspace.json: line 1, column 3"),
    ('{\n  "container" {}\n}', ".cspace.json: line 2, column 15: "),
    ("", ".cspace.json: line 1, column 1: expected a value"),
    ("[]", ".cspace.json: the whole file must be one JSON object"),
    ('{"gate": {}, "gate": {}}', '.cspace.json: the key "gate" is written twice'),
    ({"containers": {}}, ".cspace.json: containers: unknown key; did you mean 'container'?"),
    ({"container": {"memroy": "4g"}}, ".cspace.json: container.memroy: unknown key; did you mean 'memory'?"),
    ({"zzz": 1}, ".cspace.json: zzz: unknown key; known here: container, firewall, gate, project"),
    ({"container": []}, ".cspace.json: container = []: must be a valid dictionary"),
    ({"container": {"memory": "4 gallons"}}, '.cspace.json: container.memory = "4 gallons": must be a size such as \'4g\''),
    ({"container": {"memory": "1k"}}, '.cspace.json: container.memory = "1k": must be at least 6m'),
    ({"container": {"cpus": 0}}, ".cspace.json: container.cpus = 0: must be greater than 0"),
    ({"container": {"pids": "many"}}, '.cspace.json: container.pids = "many": must be a valid integer'),
    ({"container": {"environment": {"1A": "x"}}}, ".cspace.json: container.environment: '1A' is not a variable's name"),
    ({"container": {"environment": {"A": ["x"]}}}, ".cspace.json: container.environment: the value of A must be a string"),
    ({"gate": {"pool": ["10.0.0.1/16"]}}, "'10.0.0.1/16' is not a network: 10.0.0.1/16 has host bits set"),
    ({"gate": {"pool": ["10.0.0.0/30"]}}, "10.0.0.0/30 is too small"),
    ({"gate": {"pool": ["198.51.100.0/24"]}}, "198.51.100.0/24 is not a private network"),
    ({"gate": {"pool": ["2001:db8::/48"]}}, "2001:db8::/48 is not a private network"),
    ({"gate": {"pool": ["10.0.0.0/16", "10.1.0.0/16"]}}, "holds two networks of one family"),
    ({"gate": {"upstream": ["dns.example"]}}, "each must be a resolver's address"),
    ({"gate": {"upstream": ["192.0.2.1:0"]}}, "port 0 does not exist"),
    ({"project": {"name": "My Shop"}}, '.cspace.json: project.name = "My Shop": must be at most 40'),
    ({"firewall": []}, ".cspace.json: firewall = []: must be an object"),
    ({"firewall": {"domain": []}}, ".cspace.json: firewall.domain: unknown key; did you mean 'domains'?"),
    ({"firewall": {"allow": ["example.org:99999"]}}, '.cspace.json: firewall.allow[0] = "example.org:99999": '),
    ({"firewall": {"allow": ["10.0.0.0/33"]}}, '.cspace.json: firewall.allow[0] = "10.0.0.0/33": '),
    ({"firewall": {"domains": ["two words"]}}, '.cspace.json: firewall.domains[0] = "two words": '),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "expected"), BAD, ids=[expected.removeprefix(".cspace.json: ")[:40] for _, expected in BAD]
)
def test_what_is_wrong_is_named(tmp_path: Path, document: Any, expected: str) -> None:
    error = refusal(write(tmp_path, document))
    assert expected in error.message
    assert error.exit_status == Exit.BAD_INPUT
    assert error.details["problems"][0]["file"] == ".cspace.json"
    assert "\n" not in error.message


def test_everything_wrong_is_said_at_once_with_the_file_it_is_in(tmp_path: Path) -> None:
    error = refusal(
        write(
            tmp_path,
            {"containers": {}, "gate": {"upstream": 3}, "firewall": {"domains": ["ok.example"], "allow": ["a b"]}},
            {"container": {"cpus": -1}, "firewall": {"domains": ["ok.example", "no such"]}},
        )
    )
    where = [(problem["file"], problem["key"]) for problem in error.details["problems"]]
    assert sorted(where) == [
        (".cspace.json", "containers"),
        (".cspace.json", "firewall.allow[0]"),
        (".cspace.json", "gate.upstream"),
        (".cspace.local.json", "container.cpus"),
        (".cspace.local.json", "firewall.domains[1]"),
    ]
    assert error.message.startswith("5 problems in the configuration:\n  ")


def test_a_broken_file_does_not_hide_what_is_wrong_in_the_other(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, {"containers": {}}, "{"))
    assert {problem["file"] for problem in error.details["problems"]} == {".cspace.json", ".cspace.local.json"}


def test_the_values_of_variables_are_never_shown(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, {"container": {"environment": {"TOKEN": ["hunter2"]}}}))
    assert "hunter2" not in json.dumps(error.as_dict())
