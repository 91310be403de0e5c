"""Rulesets as sets of flows: told in examples, and counted out flow by flow over small universes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from algebra_worlds import FLOWS, has, numbered, reached, rulesets, without
from hypothesis import HealthCheck, given, settings
from policy_strategies import documents, flows, networks

from netpolicy import compile_policy, decide, diff, spans, subset
from netpolicy.addresses import plain
from netpolicy.algebra import HOST, Dead, dead
from netpolicy.compile import written
from netpolicy.flow import Flow
from netpolicy.policy import parse
from netpolicy.ruleset import Ruleset

QUIET = dict.fromkeys(["anthropic", "claude", "github", "npm", "observability", "testing", "vercel"], False)
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def compiled(document: dict[str, Any]) -> Ruleset:
    return compile_policy(parse({"presets": QUIET, **document}, source="p.json", prefix=""))


def spare(document: dict[str, Any]) -> dict[str, list[str]]:
    rules = dead(written(parse({"presets": QUIET, **document}, source="p.json", prefix="")))
    return {rule.origin.key: [origin.key for origin in rule.covered_by] for rule in rules}


SMALL = {"domains": ["a.example", "192.0.2.0/25:443"], "ssh": False}


@pytest.mark.parametrize(
    ("child", "parent", "counterexample"),
    [
        ({}, {}, None),
        ({}, SMALL, None),
        (SMALL, SMALL, None),
        (SMALL, {}, "a.example:80/tcp"),
        (SMALL, {"domains": ["a.example", "192.0.2.0/24"]}, None),
        ({"domains": ["a.example"]}, SMALL, "a.example:22/tcp"),
        ({"domains": ["a.example:80-443"], "ssh": False}, SMALL, "a.example:81/tcp"),
        ({"domains": ["www.a.example:443"]}, SMALL, "www.a.example:443/tcp"),
        ({"allow": ["192.0.2.0/24:443"]}, SMALL, "192.0.2.128:443/tcp"),
        ({"allow": ["192.0.2.0/26:443/udp"]}, SMALL, "192.0.2.0:443/udp"),
        ({"allow": ["192.0.2.0/26:443", "192.0.2.64/26:443"]}, SMALL, None),
        ({"allow": ["192.0.2.0/25:443"]}, {"allow": ["192.0.2.0/26:443", "192.0.2.64/26:443"]}, None),
        ({"allow": ["a.example:52-54", "a.example/icmp"]}, {"allow": ["a.example/icmp", "a.example:54", "a.example:52"]}, None),
        ({"allow": ["0.0.0.0/0:443"]}, {"allow": [f"{n}.0.0.0/8:443" for n in [*range(1, 127), *range(128, 224)]]}, "240.0.0.0:443/tcp"),
        ({"allow": ["::/0:443"]}, {"allow": ["::/1:443"]}, "[8000::]:443/tcp"),
        ({"host_access": [5432]}, {}, "[fe80::1]:5432/tcp"),
        ({"host_access": [5432]}, {"enabled": False}, "[fe80::1]:5432/tcp"),
        ({"host_access": [5432]}, {"host_access": ["5000-6000"]}, None),
        (SMALL, {"enabled": False}, None),
        ({"enabled": False}, SMALL, "example.com:443/tcp"),
        ({"enabled": False}, {"domains": ["example.com"]}, "www.example.com:443/tcp"),
        ({"enabled": False}, {"enabled": False}, None),
    ],
)  # fmt: skip
def test_a_subset_or_a_flow_that_shows_it_is_none(child: Any, parent: Any, counterexample: str | None) -> None:
    found = subset(compiled(child), compiled(parent))
    assert (None if found is None else str(found)) == counterexample
    if found is not None:
        assert decide(compiled(child), found.flow, attachment=HOST).allowed
        assert not decide(compiled(parent), found.flow, attachment=HOST).allowed


def test_names_that_may_resolve_into_a_private_network_are_more_than_the_network_itself() -> None:
    """The wide rule opens the same address as a literal, but would not let a name resolve to it."""
    parent = compiled({"domains": ["git.example:22"], "allow": ["0.0.0.0/0:443"]})
    child = compiled({"domains": ["git.example:22"], "allow": ["10.1.0.0/16:443"]})
    assert str(subset(child, parent)) == "10.1.0.0:22/tcp"
    (opening,) = diff(parent, child).reachable
    assert str(opening) == "10.1.0.0/16 22/tcp, where an allowed name resolves to it"
    assert opening.origin is not None
    assert opening.origin.key == "allow[0]"
    assert subset(compiled({"allow": ["10.1.0.0/16:443"]}), parent) is None, "no name, no answer"
    assert subset(child, compiled({"domains": ["git.example:22"], "allow": ["10.0.0.0/8:443"]})) is None


def test_a_difference_names_flows_and_their_rules() -> None:
    old = compiled({"domains": ["a.example", "b.example"], "allow": ["192.0.2.0/24:443"], "host_access": [5432]})
    new = compiled(
        {"domains": ["a.example:443", "c.example"], "allow": ["192.0.2.0/23:*"], "host_access": ["5430-5440"]}
    )
    found = diff(old, new)
    assert [f"{opening} by {opening.origin and opening.origin.key}" for opening in found.reachable] == [
        "the host 5430-5431/tcp, 5433-5440/tcp by host_access[0]",
        "c.example 22/tcp, 80/tcp, 443/tcp by domains[1]",
        "192.0.2.0/23 1-442/tcp, 444-65535/tcp, */udp by allow[0]",
        "192.0.3.0/24 443/tcp by allow[0]",
    ]
    assert [f"{opening} by {opening.origin and opening.origin.key}" for opening in found.blocked] == [
        "a.example 22/tcp, 80/tcp by domains[0]",
        "b.example 22/tcp, 80/tcp, 443/tcp by domains[1]",
    ]
    assert found.dead == ()
    off = diff(old, compiled({"enabled": False}))
    assert [str(opening) for opening in off.reachable] == ["everything else: the policy is off"]
    assert [str(opening) for opening in off.blocked] == ["the host 5432/tcp"]


def test_dead_rules_name_what_covers_them() -> None:
    assert spare({"domains": ["a.example", "b.example"]}) == {}
    assert spare({"domains": ["a.example", "A.example:443"]}) == {"domains[1]": ["domains[0]"]}
    assert spare({"domains": ["a.example:443", "a.example"]}) == {"domains[0]": ["domains[1]"]}
    assert spare({"domains": ["a.example:1-9", "a.example:5-15", "a.example:10-20"]}) == {
        "domains[1]": ["domains[0]", "domains[2]"]
    }
    assert spare({"domains": ["192.0.2.7:443"], "allow": ["192.0.2.0/24"]}) == {"domains[0]": ["allow[0]"]}
    halves = ["192.0.2.128/25:443", "192.0.2.0/24:443", "192.0.2.0/25:443"]
    assert spare({"allow": halves}) == {"allow[0]": ["allow[1]"], "allow[2]": ["allow[1]"]}
    assert spare({"allow": ["192.0.2.0/24:443", "192.0.2.0/25:443-444", "192.0.2.128/25:443"]}) == {
        "allow[2]": ["allow[0]"]
    }
    assert spare({"allow": ["192.0.2.0/25:443-444", "192.0.2.128/25:442-443", "192.0.2.0/24:443"]}) == {
        "allow[2]": ["allow[0]", "allow[1]"]
    }
    assert spare({"host_access": [53, 5432, "5000-6000"]}) == {
        "host_access[0]": [],
        "host_access[1]": ["host_access[2]"],
    }
    assert spare({"ssh": "any", "allow": ["192.0.2.0/24:22"]}) == {"allow[0]": ["ssh"]}


def test_a_rule_is_dead_only_as_a_whole() -> None:
    """`ssh` opens two families, and of the one the other rule has only one."""
    assert spare({"ssh": "any", "allow": ["0.0.0.0/0:22"]}) == {"allow[0]": ["ssh"]}
    policy = parse({"presets": QUIET, "ssh": "any", "allow": ["0.0.0.0/0:22"]}, source="p.json", prefix="")
    ruleset = written(policy)
    first = replace(ruleset, ranges=(ruleset.ranges[2], *ruleset.ranges[:2]))
    assert [rule.origin.key for rule in dead(first)] == ["allow[0]"], "not `ssh`, which also opens ::/0"


def test_of_a_preset_and_the_policys_own_rule_the_own_one_is_dead() -> None:
    policy = parse({"domains": ["github.com"]}, source="p.json", prefix="")
    found = [rule for rule in dead(written(policy)) if rule.origin.source == "p.json"]
    assert [str(rule.origin) for rule in found] == ["github.com (p.json, domains[0])"]
    assert str(found[0].covered_by[0]) == "github.com (preset:github, names[0])"


def test_a_range_that_lets_names_resolve_into_it_is_missed() -> None:
    assert spare({"allow": ["0.0.0.0/0:443", "10.1.0.0/16:443"]}) == {"allow[1]": ["allow[0]"]}
    assert spare({"domains": ["a.example:22"], "allow": ["0.0.0.0/0:443", "10.1.0.0/16:443"]}) == {}
    assert spare({"domains": ["a.example:443"], "allow": ["0.0.0.0/0:443", "10.1.0.0/16:443"]}) == {
        "allow[1]": ["allow[0]"]
    }


@given(rulesets(), rulesets())
@settings(max_examples=60, suppress_health_check=SLOW)
def test_comparisons_are_right_for_every_flow_in_every_world(old: Ruleset, new: Ruleset) -> None:
    before, after = reached(old), reached(new)
    counterexample = subset(new, old)
    assert (counterexample is None) == (after <= before)
    found = diff(old, new)
    if counterexample is not None:
        examples = [(opening.example, opening.since) for opening in found.reachable]
        assert (counterexample.flow, counterexample.since) in examples
    for gained, openings in ((after - before, found.reachable), (before - after, found.blocked)):
        for moment, world, flow in gained:
            begun = [opening for opening in openings if opening.since is None or opening.since <= (moment or 0)]
            assert any(has(opening, world, _sent(flow)) for opening in begun), (moment, world, str(flow))
        for opening in openings:
            if opening.example in FLOWS:
                there = [moment for moment, _, flow in gained if flow == opening.example]
                assert opening.since in there, str(opening)
        if not gained:
            assert openings == ()


@given(rulesets(), rulesets())
@settings(max_examples=40, suppress_health_check=SLOW)
def test_nothing_is_told_that_did_not_change(old: Ruleset, new: Ruleset) -> None:
    found = diff(old, new)
    before, after = reached(old), reached(new)
    for one, other, openings in ((before, after, found.reachable), (after, before, found.blocked)):
        for opening in openings:
            gained = {flow for moment, world, flow in other - one if moment == opening.since and not world}
            if opening.origin is not None:
                for flow in _OUTWARD - gained:
                    assert not has(opening, "", _sent(flow)), (str(flow), str(opening))


def _sent(flow: Flow) -> Flow:
    return flow if flow.address is None else replace(flow, address=plain(flow.address))


#: What some rule could open.
_OUTWARD = {
    flow
    for flow in FLOWS
    if flow.address not in HOST.gateways
    and flow.port != 53
    and decide(Ruleset("off", mode="off"), flow).layer == "off"
}  # fmt: skip


@given(rulesets(distinct_origins=True) | rulesets())
@settings(max_examples=60, suppress_health_check=SLOW)
def test_dead_rules_are_missed_by_no_flow_and_the_others_are(ruleset: Ruleset) -> None:
    ruleset = replace(ruleset, mode="enforce")
    found = dead(ruleset)
    gone = {rule.origin for rule in found}
    left = without(ruleset, gone)
    assert reached(left) == reached(ruleset)
    for origin in {r.origin for r in (*left.names, *left.ranges, *left.host)}:
        assert subset(left, without(left, {origin})) is not None
    for origin in {r.origin for r in (*left.denied_names, *left.denied_ranges)}:
        assert subset(without(ruleset, {origin}), ruleset) is not None, (
            "a denial that stays denies something that is written"
        )
    for rule in found:
        assert rule.origin not in (*rule.covered_by, *rule.denied_by)
    assert [rule for rule in dead(left) if not rule.denies] == []


@given(documents(), documents(), flows())
@settings(max_examples=30, suppress_health_check=SLOW)
def test_comparisons_of_policies_agree_with_decide(one: dict[str, Any], other: dict[str, Any], flow: Flow) -> None:
    old, new = (compile_policy(parse(document, source="p.json")) for document in (one, other))
    found = diff(old, new)
    allowed = [decide(ruleset, flow).allowed for ruleset in (old, new)]
    if allowed == [False, True]:
        assert any(has(opening, "", _sent(flow)) for opening in found.reachable)
    if allowed == [True, False]:
        assert any(has(opening, "", _sent(flow)) for opening in found.blocked)
    for opening in found.reachable:
        if opening.kind != "answer":
            verdicts = [decide(ruleset, opening.example, attachment=HOST).allowed for ruleset in (old, new)]
            assert verdicts == [False, True], str(opening)


@given(documents())
@settings(max_examples=40, suppress_health_check=SLOW)
def test_what_is_written_means_what_is_compiled(document: dict[str, Any]) -> None:
    policy = parse(document, source="p.json")
    assert written(policy).id == compile_policy(policy).id


@given(networks(), networks(), networks())
def test_spans_are_subtracted_like_sets(one: Any, two: Any, hole: Any) -> None:
    if len({one.version, two.version, hole.version}) == 1:
        some = spans.of_networks([one, two], one.version)
        left = spans.subtract(some, spans.of_networks([hole], one.version))
        edges = {int(e) + d for n in (one, two, hole) for e in (n[0], n[-1]) for d in (-1, 0, 1)}
        for number in edges:
            inside = [n for n in (one, two, hole) if int(n[0]) <= number <= int(n[-1])]
            assert (number in left) == (bool(inside) and hole not in inside)
        assert spans.of_networks(spans.networks(left), one.version) == left


def test_dead_is_a_plain_value() -> None:
    ruleset = numbered(compiled({"host_access": [53]}))
    assert dead(ruleset) == (Dead(ruleset.host[0].origin, ()),)
