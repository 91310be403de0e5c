"""Rulesets as sets of flows: told in examples, and counted out flow by flow over small universes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from algebra_worlds import FLOWS, has, numbered, reached, rulesets, without
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import documents, flows, networks

from netpolicy import compile_policy, decide, diff, merge, spans, subset
from netpolicy.addresses import plain
from netpolicy.algebra import HOST, Dead, Opening, dead
from netpolicy.algebra.openings import timestamp
from netpolicy.compile import written
from netpolicy.flow import Flow, Origin
from netpolicy.policy import parse
from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import Service

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


WILD = {"allow": ["*.example.com:443"]}
SOON, LATER = "2027-01-31", "2028-01-31"


def ending(host: str, end: str | None) -> dict[str, Any]:
    rule = {"host": host, "ports": [443]}
    return {"allow": [rule if end is None else {**rule, "expires": end}]}


@pytest.mark.parametrize(
    ("child", "parent", "counterexample"),
    [
        ({"allow": ["a.example.com:443", "*.b.example.com:443"]}, WILD, None),
        (WILD, {"allow": ["a.example.com:443", "www.example.com:443"]}, "www1.example.com:443/tcp"),
        ({"allow": ["example.com:443"]}, WILD, "example.com:443/tcp"),
        (WILD, {"allow": ["*.b.example.com:443"]}, "www.example.com:443/tcp"),
        (WILD, {**WILD, "deny": ["b.example.com"]}, "b.example.com:443/tcp"),
        (WILD, {**WILD, "deny": ["*.b.example.com:443"]}, "www.b.example.com:443/tcp"),
        (WILD, {**WILD, "deny": ["b.example.com:80"]}, None),
        ({**WILD, "deny": ["b.example.com"]}, WILD, None),
        ({**WILD, "deny": ["*.b.example.com"]}, {**WILD, "deny": ["x.b.example.com"]}, None),
        ({**WILD, "deny": ["x.b.example.com"]}, {**WILD, "deny": ["*.b.example.com"]}, "www.b.example.com:443/tcp"),
        ({"allow": ["192.0.2.0/24:443"]}, {"allow": ["192.0.2.0/24:443"], "deny": ["192.0.2.128/25:400-500"]}, "192.0.2.128:443/tcp"),
        ({"allow": ["192.0.2.0/24:443"], "deny": ["192.0.2.128/25"]}, {"allow": ["192.0.2.0/25:443"]}, None),
        ({"allow": ["192.0.2.0/24:443"], "deny": ["192.0.2.0/24:22"]}, {"allow": ["192.0.2.128/25:443"]}, "192.0.2.0:443/tcp"),
        (WILD, {**WILD, "deny": ["192.0.2.0/24"]}, "192.0.2.0:443/tcp"),
        (WILD, {**WILD, "deny": ["192.0.2.0/24:80"]}, None),
        ({**WILD, "deny": ["192.0.2.0/23"]}, {**WILD, "deny": ["192.0.2.0/24"]}, None),
        (WILD, {**WILD, "ipv6": False}, "[2000::]:443/tcp"),
        ({**WILD, "ipv6": False}, WILD, None),
        ({"allow": ["2001:db8::/32:443"]}, {"allow": ["2001:db8::/32:443"], "ipv6": False}, "[2001:db8::]:443/tcp"),
        ({"mode": "observe"}, SMALL, "example.com:443/tcp"),
        ({"mode": "observe"}, {"mode": "off"}, None),
        ({"mode": "observe"}, {"mode": "observe"}, None),
        ({"mode": "off"}, {"mode": "observe"}, "example.com:53/udp"),
        (SMALL, {"mode": "observe"}, None),
        ({"mode": "off"}, {"allow": ["*.example.com:443", "example.com:443", "example.test0:443"]}, "example.test1:443/tcp"),
        (ending("a.example", SOON), ending("a.example", LATER), None),
        (ending("a.example", SOON), ending("a.example", None), None),
        (ending("a.example", LATER), ending("a.example", SOON), "a.example:443/tcp from 2027-02-01T00:00:00Z on"),
        (ending("a.x.example", None), ending("*.x.example", SOON), "a.x.example:443/tcp from 2027-02-01T00:00:00Z on"),
        (ending("192.0.2.0/25", None), ending("192.0.2.0/24", SOON), "192.0.2.0:443/tcp from 2027-02-01T00:00:00Z on"),
        (ending("192.0.2.0/24", LATER), ending("192.0.2.0/25", SOON), "192.0.2.128:443/tcp"),
    ],
)  # fmt: skip
def test_wildcards_denials_families_modes_and_ends(child: Any, parent: Any, counterexample: str | None) -> None:
    small, large = compiled(child), compiled(parent)
    found = subset(small, large)
    assert (None if found is None else str(found)) == counterexample
    if found is not None:
        then = [ruleset if found.since is None else ruleset.at(found.since) for ruleset in (small, large)]
        ranged = found.flow.address is None or decide(then[0], found.flow).allowed
        known = [] if ranged else [Learned("www.example.com", found.flow.address, (Service(6, 443, 443),), 60)]
        assert [decide(ruleset, found.flow, known).allowed for ruleset in then] == [True, False]


def told(found: tuple[Opening, ...]) -> list[str]:
    return [f"{opening} by {opening.origin and opening.origin.key}" for opening in found]


def test_openings_below_a_wildcard_say_what_is_not_meant() -> None:
    new = compiled(
        {"allow": ["*.example.com:80-81", "x.b.example.com:80"], "deny": ["*.b.example.com:81", "c.example.com"]}
    )
    assert told(diff(compiled({}), new).reachable) == [
        "*.example.com 80-81/tcp, apart from *.b.example.com, c.example.com by allow[0]",
        "*.b.example.com 80/tcp by allow[0]",
    ]
    old = compiled({"allow": ["a.example.com:80-81", "*.b.example.com:80"]})
    assert told(diff(old, new).reachable) == [
        "*.example.com 80-81/tcp, apart from *.b.example.com, a.example.com, c.example.com by allow[0]"
    ]
    assert told(diff(new, compiled({"allow": ["*.example.com:80"]})).reachable) == ["c.example.com 80/tcp by allow[0]"]


def test_openings_have_a_beginning_and_an_end() -> None:
    old = compiled(
        {"allow": [*ending("a.example", SOON)["allow"], "192.0.2.0/24:443", *ending("10.1.0.0/16", SOON)["allow"]]}
    )
    new = compiled(
        {
            "allow": [
                *ending("a.example", LATER)["allow"],
                *ending("b.example", SOON)["allow"],
                "192.0.2.0/24:443",
                "10.1.0.0/16:443",
            ]
        }
    )
    assert told(diff(old, new).reachable) == [
        "b.example 443/tcp, until 2027-02-01T00:00:00Z by allow[1]",
        "a.example 443/tcp, from 2027-02-01T00:00:00Z on, until 2028-02-01T00:00:00Z by allow[0]",
        "10.1.0.0/16 443/tcp, from 2027-02-01T00:00:00Z on by allow[3]",
    ]
    assert told(diff(new, old).reachable) == []
    shared = {"allow": ["a.example:22", *ending("10.1.0.0/16", SOON)["allow"]]}
    longer = {"allow": ["a.example:22", *ending("10.1.0.0/16", LATER)["allow"]]}
    assert told(diff(compiled(shared), compiled(longer)).reachable) == [
        "10.1.0.0/16 443/tcp, from 2027-02-01T00:00:00Z on, until 2028-02-01T00:00:00Z by allow[1]",
        "10.1.0.0/16 22/tcp, where an allowed name resolves to it, from 2027-02-01T00:00:00Z on, "
        "until 2028-02-01T00:00:00Z by allow[1]",
    ]
    assert timestamp(1e300).endswith(" seconds after 1970")


HERE = Origin("p.json", "x", "x")


def untidy(names: dict[str, tuple[Service, ...]], *networks: tuple[str, tuple[Service, ...]], **more: Any) -> Ruleset:
    """A ruleset as it was not compiled."""
    return Ruleset(
        "p.json",
        names=tuple(NameRule(name, services, HERE) for name, services in names.items()),
        ranges=tuple(RangeRule(ip_network(network), services, HERE) for network, services in networks),
        **more,
    )


def test_what_no_flow_can_use_is_no_opening() -> None:
    web, dns, pair = (Service(6, 443, 443),), (Service(6, 53, 53),), (Service(6, 443, 444),)
    assert told(diff(untidy({}), untidy({"Odd.example": web, "x.localhost": web, "a.example": dns})).reachable) == []
    assert told(diff(untidy({}), untidy({}, ("127.0.0.0/8", web), ("192.0.2.0/24", dns))).reachable) == []
    on, off = (untidy({"a.example": (*web, *dns)}, ("::/0", web), ipv6=on) for on in (True, False))
    assert told(diff(off, on).reachable) == ["::/0 443/tcp by x"], "whatever resolves to it is open already"
    old = untidy({}, ("192.0.2.0/25", web))
    assert told(diff(old, untidy({}, ("192.0.2.0/24", web), ("198.51.100.0/24", pair))).reachable) == [
        "192.0.2.128/25 443/tcp by x",
        "198.51.100.0/24 443-444/tcp by x",
    ]


def test_regions_inside_what_is_not_meant_are_told_by_themselves() -> None:
    pair, last = (Service(6, 80, 81),), (Service(6, 81, 81),)
    old = untidy({"*.b.example.com": last}, denied_names=(NameRule("x.b.example.com", last, HERE),))
    assert told(diff(old, untidy({"*.example.com": pair})).reachable) == [
        "*.example.com 80-81/tcp, apart from *.b.example.com by x",
        "*.b.example.com 80/tcp by x",
        "x.b.example.com 81/tcp by x",
    ]


def test_switching_ipv6_on_is_one_opening() -> None:
    old, new = (
        compiled({"domains": ["a.example:443"], "allow": ["2001:db8::/32:443"], "ipv6": on}) for on in (False, True)
    )
    assert told(diff(old, new).reachable) == [
        "2001:db8::/32 443/tcp by allow[0]",
        "::/0 443/tcp, where an allowed name resolves to it by None",
    ]


def test_an_observed_policy_is_told_in_its_own_words() -> None:
    on, observed, off = (compiled({**SMALL, "mode": mode}) for mode in ("enforce", "observe", "off"))
    everything = "everything else: the policy is only observed, so that what it refuses passes by None"
    assert told(diff(on, observed).reachable) == [everything]
    assert told(diff(on, observed).blocked) == []
    assert told(diff(observed, on).blocked) == [everything]
    assert told(diff(observed, off).reachable) == ["everything else at 53/tcp, 53/udp: the policy is off by None"]


def test_dead_are_rules_that_denials_take_away_and_denials_of_nothing() -> None:
    rules = written(
        parse(
            {
                "presets": QUIET,
                "allow": ["a.example:443", "*.b.example:443", "x.b.example:443", "192.0.2.0/25:443", "[2001:db8::]:443"],
                "deny": ["a.example", "c.example", "*.b.example:80", "192.0.2.0/26", "192.0.2.64/26:443", "192.0.2.32/27", "203.0.113.0/24:22"],
            },
            source="p.json",
            prefix="",
        )
    )  # fmt: skip
    found = {d.origin.key: ([o.key for o in d.covered_by], [o.key for o in d.denied_by], d.denies) for d in dead(rules)}
    assert found == {
        "allow[0]": ([], ["deny[0]"], False),
        "allow[2]": (["allow[1]"], [], False),
        "allow[3]": ([], ["deny[3]", "deny[4]"], False),
        "deny[1]": ([], [], True),
        "deny[2]": ([], [], True),
        "deny[5]": (["deny[3]"], [], True),
        "deny[6]": ([], [], True),
    }
    assert [d.origin.key for d in dead(replace(rules, ipv6=False))][-5:] == [
        "allow[4]",
        "deny[1]",
        "deny[2]",
        "deny[5]",
        "deny[6]",
    ]


def test_a_denied_range_counts_where_names_may_resolve_to_it() -> None:
    denied = {"deny": ["192.0.2.0/24", "10.0.0.0/8"]}
    assert spare({**denied}) == {"deny[0]": [], "deny[1]": []}
    assert spare({**denied, "allow": ["a.example:443"]}) == {"deny[1]": []}, "no answer holds a private address"
    assert spare({**denied, "allow": ["a.example:443", "10.1.0.0/16:22"]}) == {"allow[1]": []}


def test_what_ends_sooner_covers_nothing_that_lasts() -> None:
    soon, later = ({"host": "a.example", "ports": [443], "expires": end} for end in (SOON, LATER))
    assert spare({"allow": [soon, later]}) == {"allow[0]": ["allow[1]"]}
    assert spare({"allow": [later, soon]}) == {"allow[1]": ["allow[0]"]}
    assert spare({"allow": ["*.x.example:443", {**soon, "host": "a.x.example"}]}) == {"allow[1]": ["allow[0]"]}
    assert spare({"allow": [{**soon, "host": "*.x.example"}, "a.x.example:443"]}) == {}


def test_merging_keeps_every_origin_and_takes_the_strictest() -> None:
    project = compile_policy(
        parse({"presets": QUIET, "allow": ["*.x.example:443", "[::/0]:443"], "mode": "observe"}, source="p.json")
    )
    company = compile_policy(
        parse(
            {"presets": QUIET, "deny": ["no.x.example"], "ipv6": False, "on_drift": "lock", "host_access": [1]},
            source="c.json",
        )
    )
    both = merge([project, company], name="both")
    assert (both.policy, both.mode, both.ipv6, both.on_drift) == ("both", "enforce", False, "lock")
    assert [rule.origin.source for rule in (*both.names, *both.denied_names, *both.host)] == [
        "p.json",
        "c.json",
        "c.json",
    ]
    assert both.ranges == (), "IPv6 is off"
    verdict = decide(both, Flow(6, 443, "no.x.example"))
    assert (verdict.allowed, verdict.rule and verdict.rule.source) == (False, "c.json")
    assert merge([project], name="p.json") == project
    assert merge([project, project], name="p.json") == project
    assert merge([project, replace(project, mode="off")], name="p.json").mode == "observe"
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([], name="none")


@given(st.lists(rulesets(), min_size=1, max_size=3))
@settings(max_examples=60, suppress_health_check=SLOW)
def test_a_merged_ruleset_opens_what_any_opens_and_none_denies(parts: list[Ruleset]) -> None:
    whole = merge([replace(part, mode="enforce") for part in parts], name="all")
    bare = [replace(part, mode="enforce", denied_names=(), denied_ranges=(), ipv6=True) for part in parts]

    def denies(part: Ruleset, flow: Flow) -> bool:
        if flow.address is None:
            rules = part.denials_for(flow.name or "")
            return any(s.covers(flow.protocol, flow.port) for rule in rules for s in rule.services)
        address = plain(flow.address)
        off = address.version == 6 and not part.ipv6
        return off or any(s.covers(flow.protocol, flow.port) for s in part.denied_at(address))

    for flow in FLOWS:
        verdict = decide(whole, flow)
        opened = any(decide(part, flow).allowed for part in bare)
        local = verdict.layer == "local"
        assert verdict.allowed == (opened and (local or not any(denies(part, flow) for part in parts))), str(flow)


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
@settings(max_examples=30, suppress_health_check=SLOW)
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
@settings(max_examples=30, suppress_health_check=SLOW)
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
    needed = without(ruleset, {rule.origin for rule in found if rule.denies})
    for origin in {r.origin for r in (*left.denied_names, *left.denied_ranges)}:
        assert subset(without(needed, {origin}), needed) is not None, (
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
