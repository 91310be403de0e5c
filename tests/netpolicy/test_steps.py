"""The path of a flow through the layers: it ends where `decide` decides."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import documents, flows, learned

from netpolicy import compile_policy, decide, parse_flow
from netpolicy.algebra import HOST
from netpolicy.flow import Flow, Layer, Origin
from netpolicy.policy import parse
from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service
from netpolicy.steps import STEPS, explain

RULES = compile_policy(
    parse(
        {"domains": ["a.example", "a.example:8080"], "allow": ["192.0.2.0/24:443"], "host_access": [5432]},
        source="p.json",
    )
)
A = ip_address("203.0.113.7")


@pytest.mark.parametrize(
    ("text", "last", "outcome"),
    [
        ("localhost:80", "local", "allows"),
        ("224.0.0.251:5353/udp", "local", "denies"),
        ("[fe80::1]:5432", "local", "allows"),
        ("8.8.8.8:53/udp", "dns", "denies"),
        ("a.example:53/udp", "dns", "denies"),
        ("b.example", "name", "denies"),
        ("192.0.3.1", "address", "denies"),
        ("192.0.2.1:80", "port", "denies"),
        ("192.0.2.1:443/udp", "port", "denies"),
        ("192.0.2.1", "port", "allows"),
        ("a.example", "port", "allows"),
        ("a.example/icmp", "port", "denies"),
    ],
)
def test_where_the_path_ends(text: str, last: str, outcome: str) -> None:
    path = explain(RULES, parse_flow(text), attachment=HOST)
    assert (path.steps[-1].name, path.steps[-1].outcome) == (last, outcome)
    assert path.steps[-1].says == path.verdict.explanation


def test_what_the_layers_say() -> None:
    said = {step.name: step.says for step in explain(RULES, parse_flow("A.Example.:8081")).steps}
    assert said["off"] == "the policy p.json is on"
    assert said["name"] == (
        "the gate answers for a.example, named by a.example (p.json, firewall.domains[0]); "
        "a.example:8080 (p.json, firewall.domains[1])"
    )
    assert said["address"] == "what it resolves to opens just before the gate answers"
    entry = Learned("a.example", A, (Service(6, 443, 443),), 60)
    said = {step.name: step.says for step in explain(RULES, Flow(6, 443, "A.Example."), [entry]).steps}
    assert said["address"] == "it resolved to 203.0.113.7"
    said = {step.name: step.says for step in explain(RULES, Flow(6, 80, address=A), [entry]).steps}
    assert said["name"] == "it is asked by address, so that no name is looked up"
    assert said["address"] == "203.0.113.7 is an address of a.example"
    said = {step.name: step.says for step in explain(RULES, parse_flow("::ffff:192.0.2.7")).steps}
    assert said["address"] == "192.0.2.7 lies in 192.0.2.0/24 by 192.0.2.0/24:443 (p.json, firewall.allow[0])"


def named(name: str, *services: Service) -> NameRule:
    return NameRule(name, services, Origin("p.json", f"rule of {name}", name))


def ranged(network: str, *services: Service) -> RangeRule:
    return RangeRule(ip_network(network), services, Origin("p.json", f"rule of {network}", network))


HTTP, HTTPS = Service(6, 80, 80), Service(6, 443, 443)
DENYING = Ruleset(
    "p.json",
    names=(named("*.example", HTTP, HTTPS), named("a.example", HTTPS)),
    ranges=(ranged("192.0.2.0/24", HTTP, HTTPS), ranged("192.0.2.8/32", Service(1))),
    denied_names=(named("a.example", HTTP), named("no.example", *EVERY), named("*.gone.example", HTTP, HTTPS)),
    denied_ranges=(ranged("192.0.2.0/29", HTTP), ranged("192.0.2.16/28", *EVERY)),
    ipv6=False,
)


@pytest.mark.parametrize(
    ("text", "last", "outcome"),
    [
        ("b.example:80", "port", "allows"),
        ("a.example:80", "port", "denies"),
        ("a.example:443", "port", "allows"),
        ("no.example", "name", "denies"),
        ("x.gone.example", "name", "denies"),
        ("x.gone.example:22", "name", "denies"),
        ("192.0.2.1:80", "address", "denies"),
        ("192.0.2.1:443", "port", "allows"),
        ("192.0.2.1:22", "port", "denies"),
        ("192.0.2.17", "address", "denies"),
        ("192.0.2.17:22", "address", "denies"),
        ("2001:db8::1", "address", "denies"),
        ("[2001:db8::1]:53/udp", "dns", "denies"),
        ("224.0.0.251:5353/udp", "local", "denies"),
    ],
)
def test_denials_end_the_path_where_they_take_effect(text: str, last: str, outcome: str) -> None:
    flow = parse_flow(text)
    path = explain(DENYING, flow)
    assert (path.steps[-1].name, path.steps[-1].outcome) == (last, outcome)
    observed = explain(replace(DENYING, mode="observe"), flow)
    kept = outcome == "allows" or last in ("local", "dns")
    assert (observed.steps[-1].name, observed.steps[-1].outcome) == (last, outcome if kept else "observes")
    assert [step.name for step in observed.steps] == [step.name for step in path.steps]
    assert (
        kept or observed.steps[1].says == "the policy p.json is only observed: what it refuses passes, and is counted"
    )


def test_what_is_denied_in_part_is_said_on_the_way() -> None:
    said = {step.name: step.says for step in explain(DENYING, parse_flow("a.example")).steps}
    assert said["name"] == (
        "the gate answers for a.example, named by a.example (p.json, rule of a.example); *.example (p.json, rule of *.example); "
        "but a.example (p.json, rule of a.example) denies 80/tcp"
    )
    assert said["address"] == (
        "what it resolves to by IPv4, denied addresses apart, opens just before the gate answers"
    )
    said = {step.name: step.says for step in explain(DENYING, parse_flow("192.0.2.1")).steps}
    assert said["address"] == (
        "192.0.2.1 lies in 192.0.2.0/24 by 192.0.2.0/24 (p.json, rule of 192.0.2.0/24); "
        "but 192.0.2.0/29 (p.json, rule of 192.0.2.0/29) denies 80/tcp"
    )


def test_a_policy_that_is_off_ends_the_path() -> None:
    path = explain(compile_policy(parse({"enabled": False}, source="p.json")), parse_flow("x.example:25"))
    assert [(step.name, step.outcome) for step in path.steps] == [("local", "passes"), ("off", "allows")]


@given(documents(), flows(), st.lists(learned(), max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_the_path_is_that_of_decide(document: dict[str, Any], flow: Flow, known: list[Learned]) -> None:
    ruleset = compile_policy(parse(document, source="p.json"))
    path = explain(ruleset, flow, known, attachment=HOST)
    assert path.verdict == decide(ruleset, flow, known, attachment=HOST)
    assert tuple(step.name for step in path.steps) == STEPS[: len(path.steps)]
    *before, last = path.steps
    assert {step.outcome for step in before} <= {"passes"}
    allowing = "observes" if path.verdict.layer is Layer.OBSERVE else "allows"
    assert last.outcome == (allowing if path.verdict.allowed else "denies")
    assert all(step.says and not step.says.endswith(" ") for step in path.steps)
