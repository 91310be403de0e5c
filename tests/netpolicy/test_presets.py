"""The presets that come with the kit: their files, not their services."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from netpolicy import presets
from netpolicy.addresses import forbidden
from netpolicy.compile import written
from netpolicy.errors import UserError
from netpolicy.policy import parse, target

FOLDER = Path(presets.__file__).parent
SEED = {
    "npm": ["registry.npmjs.org"],
    "anthropic": ["api.anthropic.com", "auth.anthropic.com", "statsig.anthropic.com"],
    "claude": ["claude.ai", "context7.com"],
    "observability": ["sentry.io", "us.sentry.io", "mcp.sentry.dev", "statsig.com"],
    "testing": ["playwright.dev"],
    "vercel": ["76.76.21.0/24", "64.29.17.0/24", "216.198.79.0/24"],
}


@pytest.mark.requirement("F4")
@pytest.mark.parametrize("name", presets.names())
def test_every_file_says_what_it_is(name: str) -> None:
    preset = presets.load(name)
    assert json.loads((FOLDER / f"{name}.json").read_text())["name"] == preset.name == name
    assert preset.summary
    assert not preset.summary.endswith(".")
    assert preset.source.startswith("https://")
    assert datetime.date.fromisoformat(preset.date) >= datetime.date(2026, 1, 1)
    assert preset.names or preset.ranges
    assert preset.file == f"preset:{name}"
    hosts = [target.parse(text).host for text in preset.names]
    assert all(isinstance(host, str) for host in hosts)
    written = [str(target.parse(text)).removesuffix("/tcp") for text in preset.names]
    assert written == list(preset.names), "one spelling"
    assert len(set(written)) == len(written)
    for text in preset.ranges:
        network = target.parse(text).host
        assert not isinstance(network, str)
        assert forbidden(network.network_address) is None, "a preset opens public addresses only"
        assert network.prefixlen >= (16 if network.version == 4 else 24), "a preset opens no continent"


@pytest.mark.requirement("F4")
def test_the_seed_is_on_and_the_rest_is_off() -> None:
    on = {name for name in presets.names() if presets.load(name).default}
    assert on == {*SEED, "github"}
    for name, listed in SEED.items():
        assert [*presets.load(name).names, *presets.load(name).ranges] == listed
    off = set(presets.names()) - on
    assert {"pypi", "debian", "crates", "go", "docker-hub", "rubygems", "yarn", "huggingface"} <= off


@pytest.mark.requirement("F4")
@pytest.mark.parametrize("name", presets.names())
def test_each_can_be_switched_on_and_off(name: str) -> None:
    on, off = ({p.name for p in parse({"presets": {name: wanted}}, source="p").active} for wanted in (True, False))
    assert on - off == {name}
    ruleset = written(parse({"presets": {name: True}}, source="p"))
    assert f"preset:{name}" in {rule.origin.source for rule in (*ruleset.names, *ruleset.ranges)}


def test_github_has_its_names_and_a_dated_copy_of_its_ranges() -> None:
    github = presets.load("github")
    assert {
        "github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com", "objects.githubusercontent.com",
        "release-assets.githubusercontent.com", "uploads.github.com",
    } <= set(github.names)  # fmt: skip
    snapshot = json.loads((FOLDER / "snapshots" / "github-meta.json").read_text())
    assert snapshot["source"] == "https://api.github.com/meta"
    datetime.date.fromisoformat(snapshot["date"])
    for key in ("web", "api", "git"):
        networks = [ip_network(text) for text in snapshot[key]]
        assert {network.version for network in networks} == {4, 6}
        assert set(snapshot[key]) <= set(github.ranges)
    assert len(set(github.ranges)) == len(github.ranges)


def test_an_unknown_preset_is_told_the_nearest() -> None:
    with pytest.raises(UserError) as error:
        presets.load("gihtub")
    assert error.value.message == "there is no preset 'gihtub'; did you mean 'github'?"
    with pytest.raises(UserError):
        presets.load("../presets/npm")


def test_presets_are_found_by_the_hosts_they_name() -> None:
    assert presets.naming("pypi.org") == ["pypi"]
    assert presets.naming("ssh.github.com") == ["github"]
    assert presets.naming("unheard-of.example") == []


def test_a_preset_with_a_wildcard_is_found_by_the_names_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = presets._shipped
    wild = replace(shipped("npm"), names=("*.npm.example:443",))
    monkeypatch.setattr(presets, "_shipped", lambda name: wild if name == "npm" else shipped(name))
    assert presets.naming("a.b.npm.example") == ["npm"]
    assert presets.naming("npm.example") == []
