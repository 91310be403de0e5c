"""From a policy to the one ruleset."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_strategies import MOMENTS, NAMES, addresses, policies

from netpolicy import compile_policy, patterns
from netpolicy.addresses import forbidden, plain
from netpolicy.compile import written
from netpolicy.lifted import blocks
from netpolicy.policy import Policy, Rule, parse
from netpolicy.policy.model import ROLES, Role
from netpolicy.presets import Preset
from netpolicy.ruleset import Ruleset
from netpolicy.services import EVERY, Service, merged, subtract

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


@given(policies(), st.randoms(use_true_random=False), st.sampled_from(ROLES))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_order_and_repetition_do_not_change_the_meaning(
    document: dict[str, Any], rng: random.Random, role: Role
) -> None:
    policy = parse(document, source="p.json")
    first = compile_policy(policy, role=role)
    domains, allow, deny = list(policy.domains) * 2, list(policy.allow) * 2, list(policy.deny) * 2
    for rules in (domains, allow, deny):
        rng.shuffle(rules)
    shuffled = replace(policy, domains=tuple(allow), allow=tuple(domains), deny=tuple(deny), active=policy.active[::-1])
    second = compile_policy(shuffled, role=role)
    assert first.id == second.id == written(policy, role=role).id
    assert compile_policy(policy, role=role) == first


@given(policies(), st.sampled_from(ROLES), st.sampled_from(MOMENTS), addresses())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_left_out_is_not_missed_when_something_ends(
    document: dict[str, Any], role: Role, moment: float, address: Any
) -> None:
    policy = parse(document, source="p.json")
    whole, every = compile_policy(policy, role=role).at(moment), written(policy, role=role).at(moment)
    assert whole.id == every.id == compile_policy(policy, role=role, now=moment).id
    assert whole.services_at(address) == every.services_at(address)
    assert merged(whole.denied_at(address)) == every.denied_at(address)
    for name in (*NAMES, "www.api.example.com", "x.example.net", "example.net", "github.com"):
        assert whole.services_of(name) == every.services_of(name)
    kept_out = [forbidden(address, [rule.network for rule in ruleset.ranges]) is not None for ruleset in (whole, every)]
    assert kept_out[0] == kept_out[1]


@given(policies(), addresses(), st.sampled_from(MOMENTS), st.sampled_from(ROLES))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@example({"allow": ["198.51.100.0/24:443"], "ipv6": False}, ip_address("::ffff:198.51.100.7"), 0.0, "dev")
def test_it_opens_what_the_rules_say_one_by_one(
    document: dict[str, Any], address: Any, moment: float, role: Role
) -> None:
    """Against a reading of the policy that joins nothing, remembers nothing and knows no order."""
    policy = parse({**document, "presets": QUIET}, source="p.json")
    ruleset = compile_policy(policy, role=role, now=moment)
    default = {(6, 80), (6, 443)} | (set() if policy.ssh is False else {(6, 22)})

    def applies(rule: Rule) -> bool:
        return (not rule.roles or role in rule.roles) and (rule.until is None or rule.until > moment)

    def has(rule: Rule, where: Any) -> bool:
        host = rule.target.host
        if isinstance(host, str) or isinstance(where, str):
            return isinstance(host, str) and isinstance(where, str) and patterns.covers(host, where)
        return where in host

    for where in (plain(address), "api.example.com", "a.b.example.com", "example.com"):
        for probe in ((6, 22), (6, 80), (6, 443), (17, 443), (1, None), (6, 8000)):
            opened = any(
                any(s.covers(*probe) for s in rule.target.services) or (not rule.target.services and probe in default)
                for rule in (*policy.domains, *policy.allow)
                if applies(rule) and has(rule, where)
            ) or (policy.ssh == "any" and probe == (6, 22) and not isinstance(where, str))
            denied = any(
                not rule.target.services or any(s.covers(*probe) for s in rule.target.services)
                for rule in policy.deny
                if applies(rule) and has(rule, where)
            ) or (not policy.ipv6 and not isinstance(where, str) and where.version == 6)
            found = ruleset.services_of(where) if isinstance(where, str) else ruleset.services_at(address)
            assert any(s.covers(*probe) for s in found) == (opened and not denied), (where, probe)


@given(policies())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_listed_twice(document: dict[str, Any]) -> None:
    """What reading a ruleset relies on: rules that last as long and open the same do not overlap, except to lift something."""
    ruleset = compile_policy(parse(document, source="p.json"))
    for found in (*ruleset.by_name.values(), *ruleset.denied_by_name.values()):
        listed = [service for rule in found for service in rule.services]
        assert sum(s.last - s.first + 1 for s in listed) == sum(s.last - s.first + 1 for s in merged(listed))
    for rule in (*ruleset.ranges, *ruleset.denied_ranges):
        assert rule.services == merged(rule.services)
        assert rule.services
    for rules in (ruleset.ranges, ruleset.denied_ranges):
        for one, other in combinations(rules, 2):
            if one.network.overlaps(other.network) and one.until == other.until:
                inner = max(one, other, key=lambda rule: rule.network.prefixlen)
                assert subtract(one.services, other.services) == one.services or blocks(inner.network)


def test_a_network_keeps_only_what_no_wider_one_has() -> None:
    ruleset = compiled(
        {"ssh": False, "allow": ["10.1.0.0/16", "10.0.0.0/8:443", {"host": "10.1.2.0/24", "ports": ["1-1000"]}]}
    )
    assert [(rule.network, rule.services) for rule in ruleset.ranges] == [
        (ip_network("10.0.0.0/8"), (Service(6, 443, 443),)),
        (ip_network("10.1.0.0/16"), (Service(6, 80, 80),)),
        (ip_network("10.1.2.0/24"), (Service(6, 1, 79), Service(6, 81, 442), Service(6, 444, 1000))),
    ]


def test_a_rule_that_ends_never_stands_in_the_place_of_one_that_lasts() -> None:
    ending = {"expires": "2027-01-31"}
    ruleset = compiled(
        {
            "allow": [
                {"host": "a.example", "ports": [443], **ending},
                {"host": "a.example", "ports": [443, 80]},
                {"host": "a.example", "ports": [22, 80], **ending},
                {"host": "192.0.2.0/24", "ports": [443], **ending},
                {"host": "192.0.2.0/25", "ports": [443]},
                {"host": "192.0.2.0/26", "ports": [443], **ending},
            ]
        }
    )
    assert lines(ruleset) == [
        "a.example 80/tcp, 443/tcp",
        "a.example 22/tcp",
        "192.0.2.0/24 443/tcp",
        "192.0.2.0/25 443/tcp",
    ]
    assert [rule.until for rule in (*ruleset.names, *ruleset.ranges)] == [None, 1801440000.0, 1801440000.0, None]
    assert lines(ruleset.at(1801440000.0)) == ["a.example 80/tcp, 443/tcp", "192.0.2.0/25 443/tcp"]


def test_what_has_ended_is_left_out_and_said() -> None:
    policy = parse(
        {
            "presets": QUIET,
            "allow": [{"host": "a.example", "ports": [443], "expires": "2027-01-31T12:00:00Z"}, "b.example"],
        },
        source="p.json",
    )
    assert len(compile_policy(policy).names) == len(compile_policy(policy, now=1801396799.0).names) == 2
    ended = compile_policy(policy, now=1801396800.0)
    assert [rule.name for rule in ended.names] == ["b.example"]
    assert ended.warnings == (
        "p.json: firewall.allow[0] a.example:443/tcp is left out: it ended on 2027-01-31T12:00:00Z",
    )


def test_rules_are_for_roles() -> None:
    policy = parse(
        {
            "presets": QUIET,
            "allow": [{"host": "a.example", "roles": ["browser"]}, {"host": "b.example", "roles": ["dev", "services"]}],
            "deny": [{"host": "*.b.example", "roles": ["services"]}],
        },
        source="p.json",
    )
    found = {role: compile_policy(policy, role=role) for role in ROLES}
    assert {role: [rule.name for rule in ruleset.names] for role, ruleset in found.items()} == {
        "dev": ["b.example"], "browser": ["a.example"], "services": ["b.example"],
    }  # fmt: skip
    assert {role: len(ruleset.denied_names) for role, ruleset in found.items()} == {
        "dev": 0,
        "browser": 0,
        "services": 1,
    }
    assert compile_policy(policy) == found["dev"]


def test_a_denial_without_ports_is_for_every_service_and_nothing_is_taken_out_of_what_is_allowed() -> None:
    ruleset = compiled(
        {
            "ssh": False,
            "allow": ["*.example.com", "192.0.2.0/24"],
            "deny": ["a.example.com", "b.example.com:443", "192.0.2.128/25", "192.0.2.192/26", "*.com:80"],
        }
    )
    assert lines(ruleset) == ["*.example.com 80/tcp, 443/tcp", "192.0.2.0/24 80/tcp, 443/tcp"]
    assert [(rule.name, rule.services) for rule in ruleset.denied_names] == [
        ("a.example.com", EVERY), ("b.example.com", (Service(6, 443, 443),)), ("*.com", (Service(6, 80, 80),)),
    ]  # fmt: skip
    assert [(str(rule.network), rule.services) for rule in ruleset.denied_ranges] == [("192.0.2.128/25", EVERY)]
    assert ruleset.services_of("a.example.com") == ()
    assert [str(s) for s in ruleset.services_of("b.example.com")] == []
    assert [str(s) for s in ruleset.services_of("c.example.com")] == ["443/tcp"]
    assert ruleset.denied_names[0].origin.key == "firewall.deny[0]"


def test_without_ipv6_its_networks_are_left_out_and_those_of_a_person_are_told() -> None:
    ruleset = compiled({"ipv6": False, "ssh": "any", "presets": {**QUIET, "github": True},
                        "domains": ["2001:db8::/32:443"], "deny": ["2001:db8::1"], "on_drift": "lock"})  # fmt: skip
    assert {rule.network.version for rule in ruleset.ranges} == {4}
    assert (ruleset.ipv6, ruleset.on_drift, ruleset.denied_ranges) == (False, "lock", ())
    assert [w for w in ruleset.warnings if "IPv6" in w] == [
        f"p.json: firewall.{key} is left out: `ipv6` is false, so nothing leaves by IPv6"
        for key in ("domains[0] [2001:db8::/32]:443/tcp", "deny[0] 2001:db8::1")
    ]


@pytest.mark.parametrize(
    ("wide", "private", "inside"),
    [
        ("0.0.0.0/0:443", "10.1.0.0/16:443", "10.1.2.3"),
        ("[::/0]:443", "[fd00::/8]:443", "fd00::1"),
        ("169.254.0.0/16:80", "169.254.169.254:80", "169.254.169.254"),
    ],
)
def test_the_word_for_a_private_block_survives_a_wide_range(wide: str, private: str, inside: str) -> None:
    alone, both = compiled({"allow": [wide]}), compiled({"allow": [wide, private]})
    address = ip_address(inside)
    assert forbidden(address, [rule.network for rule in alone.ranges]) is not None
    assert forbidden(address, [rule.network for rule in both.ranges]) is None
    assert len({alone.id, both.id, compiled({"allow": [private]}).id}) == 3
    # A second word for the same is not needed, and one for half of it says no more.
    assert compiled({"allow": [private, wide, private]}).id == both.id
    assert len(compiled({"allow": [wide, private, private.replace("/16", "/17")]}).ranges) == 2
