"""The path of a flow through the layers: it ends where `decide` decides."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import documents, flows, learned

from netpolicy import compile_policy, decide, parse_flow
from netpolicy.algebra import HOST
from netpolicy.flow import Flow
from netpolicy.policy import parse
from netpolicy.ruleset import Learned
from netpolicy.services import Service
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
    assert last.outcome == ("allows" if path.verdict.allowed else "denies")
    assert all(step.says and not step.says.endswith(" ") for step in path.steps)
