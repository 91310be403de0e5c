"""From a policy to the one ruleset."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import documents

from netpolicy import compile_policy
from netpolicy.policy import Policy, parse
from netpolicy.presets import Preset
from netpolicy.ruleset import Ruleset
from netpolicy.services import Service, merged

QUIET = dict.fromkeys(["anthropic", "claude", "github", "npm", "observability", "testing", "vercel"], False)


def compiled(document: dict[str, Any]) -> Ruleset:
    return compile_policy(parse({"presets": QUIET, **document}, source="p.json"))


def lines(ruleset: Ruleset) -> list[str]:
    rows = [(rule.name, rule) for rule in ruleset.names] + [(str(rule.network), rule) for rule in ruleset.ranges]
    return [f"{host} {', '.join(map(str, rule.services))}" for host, rule in rows]


@pytest.mark.requirement("F3")
@pytest.mark.requirement("F6")
def test_a_bare_target_means_web_and_ssh_while_ssh_is_on() -> None:
    rules = {"domains": ["a.example", "192.0.2.0/24", "b.example:7"]}
    assert lines(compiled(rules)) == [
        "a.example 22/tcp, 80/tcp, 443/tcp",
        "b.example 7/tcp",
        "192.0.2.0/24 22/tcp, 80/tcp, 443/tcp",
    ]
    assert lines(compiled({**rules, "ssh": False})) == [
        "a.example 80/tcp, 443/tcp",
        "b.example 7/tcp",
        "192.0.2.0/24 80/tcp, 443/tcp",
    ]


@pytest.mark.requirement("F3")
def test_ssh_any_opens_ssh_everywhere_and_nothing_else() -> None:
    ruleset = compiled({"ssh": "any", "domains": ["192.0.2.0/24"]})
    assert lines(ruleset) == ["0.0.0.0/0 22/tcp", "::/0 22/tcp", "192.0.2.0/24 80/tcp, 443/tcp"]
    assert str(ruleset.ranges[0].origin) == '"any" (p.json, firewall.ssh)'


def test_the_seed_presets_are_open_and_the_others_are_not() -> None:
    ruleset = compile_policy(Policy(active=parse({}, source="p").active))
    opened = {rule.name for rule in ruleset.names} | {str(rule.network) for rule in ruleset.ranges}
    assert {
        "registry.npmjs.org", "api.anthropic.com", "auth.anthropic.com", "statsig.anthropic.com", "claude.ai", "context7.com",
        "sentry.io", "us.sentry.io", "mcp.sentry.dev", "statsig.com", "playwright.dev", "76.76.21.0/24", "64.29.17.0/24",
        "216.198.79.0/24", "github.com", "api.github.com", "140.82.112.0/20", "2606:50c0::/32",
    } <= opened  # fmt: skip
    assert "pypi.org" not in opened
    assert ruleset.warnings == ()
    assert "pypi.org" in compile_policy(parse({"presets": {"pypi": True}}, source="p")).by_name


@pytest.mark.requirement("F8")
def test_duplicates_and_overlaps_merge_and_the_first_rule_keeps_the_credit() -> None:
    ruleset = compiled(
        {
            "domains": [
                "a.example:443",
                "A.EXAMPLE:443",
                "192.0.2.0/25",
                "192.0.2.0/24",
                "192.0.2.7:443",
                "192.0.2.7:5432",
            ],
            "allow": [
                {"host": "a.example", "ports": [443, 444], "reason": "again"},
                "2001:db8::/32",
                "2001:db8:1::/48",
            ],
        }
    )
    assert lines(ruleset) == [
        "a.example 443/tcp",
        "a.example 444/tcp",
        "192.0.2.0/24 22/tcp, 80/tcp, 443/tcp",
        "192.0.2.7/32 5432/tcp",
        "2001:db8::/32 22/tcp, 80/tcp, 443/tcp",
    ]
    assert [rule.origin.key for rule in ruleset.names] == ["firewall.domains[0]", "firewall.allow[0]"]


@pytest.mark.requirement("F8")
def test_one_bad_line_of_a_provider_is_a_warning() -> None:
    data = Preset("cloud", "a cloud", "https://cloud.example", "2026-01-01", True, ("ok.example", "a b", "*.x.example", "*.com"),
                  ("192.0.2.0/24", "192.0.2.1/24", "127.0.0.0/8", "192.0.2.128/25", "2001:db8::/32"), "preset:cloud")  # fmt: skip
    ruleset = compile_policy(Policy(active=(data,), ssh=False))
    assert lines(ruleset) == [
        "ok.example 80/tcp, 443/tcp",
        "*.x.example 80/tcp, 443/tcp",
        "192.0.2.0/24 80/tcp, 443/tcp",
        "2001:db8::/32 80/tcp, 443/tcp",
    ]
    assert [warning.split(" is left out: ")[0] for warning in ruleset.warnings] == [
        "preset:cloud: names[1] 'a b'",
        "preset:cloud: names[3] '*.com'",
        "preset:cloud: ranges[1] '192.0.2.1/24'",
        "preset:cloud: ranges[2] '127.0.0.0/8'",
    ]
    assert (ruleset.names[0].origin.source, ruleset.names[0].origin.reason) == ("preset:cloud", "a cloud")


@pytest.mark.requirement("F13")
def test_host_ports_are_merged() -> None:
    ruleset = compiled({"host_access": [5432, "5432/tcp", "5430-5440", "8125/udp"]})
    assert [str(rule.service) for rule in ruleset.host] == ["5432/tcp", "5430-5431/tcp", "5433-5440/tcp", "8125/udp"]


@pytest.mark.requirement("F7")
def test_a_policy_that_is_off_keeps_its_rules_and_says_off() -> None:
    ruleset = compiled({"enabled": False, "domains": ["a.example"]})
    assert (ruleset.mode, len(ruleset.names)) == ("off", 1)
    assert compiled({}).mode == "enforce"


@given(documents(), st.randoms(use_true_random=False))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_order_and_repetition_do_not_change_the_meaning(document: dict[str, Any], rng: random.Random) -> None:
    policy = parse(document, source="p.json")
    first = compile_policy(policy)
    domains, allow = list(policy.domains) * 2, list(policy.allow) * 2
    rng.shuffle(domains)
    rng.shuffle(allow)
    second = compile_policy(replace(policy, domains=tuple(allow), allow=tuple(domains), active=policy.active[::-1]))
    assert first.id == second.id
    assert compile_policy(policy) == first


@given(documents())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_listed_twice(document: dict[str, Any]) -> None:
    """What the kernel's sets rely on: equal services never come with overlapping networks."""
    ruleset = compile_policy(parse(document, source="p.json"))
    for name in ruleset.by_name:
        listed = [service for rule in ruleset.by_name[name] for service in rule.services]
        assert sum(s.last - s.first + 1 for s in listed) == sum(s.last - s.first + 1 for s in merged(listed))
    for rule in ruleset.ranges:
        assert rule.services == merged(rule.services)
        assert rule.services
    for services in {rule.services for rule in ruleset.ranges}:
        for version in (4, 6):
            same = sorted(r.network for r in ruleset.ranges if r.services == services and r.network.version == version)
            assert all(a.broadcast_address < b.network_address for a, b in pairwise(same))


def test_a_network_keeps_only_what_no_wider_one_has() -> None:
    ruleset = compiled(
        {"ssh": False, "allow": ["10.1.0.0/16", "10.0.0.0/8:443", {"host": "10.1.2.0/24", "ports": ["1-1000"]}]}
    )
    assert [(rule.network, rule.services) for rule in ruleset.ranges] == [
        (ip_network("10.0.0.0/8"), (Service(6, 443, 443),)),
        (ip_network("10.1.0.0/16"), (Service(6, 80, 80),)),
        (ip_network("10.1.2.0/24"), (Service(6, 1, 79), Service(6, 81, 442), Service(6, 444, 1000))),
    ]
