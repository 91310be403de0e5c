"""The judgement of probes is pure, so every combination can be listed."""

from __future__ import annotations

import json
from itertools import product

import pytest

from netpolicy.flow import Flow
from netpolicy.probe import Plan, ProbeResult, VerificationReport, flow_of, judge, plan

BLOCKED = "blocked.example"
ALLOWED = "https://allowed.example/zen"
BOTH = Plan((BLOCKED,), (ALLOWED,))
OUTCOMES = ("reached", "broken", "refused", "timeout", "unreachable", "dns-denied", "dns-failed", "not-permitted", None)


def results(blocked: str | None, allowed: str | None) -> dict[str, ProbeResult]:
    found = {BLOCKED: blocked, ALLOWED: allowed}
    return {t: ProbeResult(t, outcome, 1.0, detail="said so") for t, outcome in found.items() if outcome}


@pytest.mark.requirement("F10")
def test_refused_inside_and_reachable_outside_is_the_proof() -> None:
    report = judge(BOTH, results("reached", "reached"), results("refused", "reached"))
    assert (report.state, report.reasons) == ("verified", ())
    assert [p.state for p in (*report.blocked, *report.allowed)] == ["proven", "proven"]


@pytest.mark.requirement("F10")
@pytest.mark.parametrize("answer", ["reached", "broken"])
def test_a_blocked_target_that_answers_inside_is_a_breach_whatever_else_holds(answer: str) -> None:
    for control, allowed in product(OUTCOMES, OUTCOMES):
        report = judge(BOTH, results(control, allowed), results(answer, allowed))
        assert report.state == "breached"
        assert f"{BLOCKED} must be blocked, but it answered inside" in report.reasons


@pytest.mark.requirement("F10")
def test_without_a_positive_control_nothing_is_claimed() -> None:
    report = judge(BOTH, results("timeout", "timeout"), results("refused", "dns-failed"))
    assert report.state == "degraded"
    assert report.reasons == (
        f"cannot be proven: the host itself cannot reach {BLOCKED}",
        f"the host itself cannot reach {ALLOWED}",
    )


@pytest.mark.requirement("F10")
def test_an_allowed_target_that_only_the_host_reaches_points_at_us() -> None:
    report = judge(BOTH, results("reached", "reached"), results("refused", "refused"))
    assert report.state == "degraded"
    assert report.reasons == (f"blocked by us? The host reaches {ALLOWED}, the inside does not (refused: said so)",)


@pytest.mark.requirement("F10")
def test_what_breaks_off_for_the_host_too_is_not_our_doing() -> None:
    report = judge(BOTH, results("reached", "broken"), results("refused", "broken"))
    assert report.state == "degraded"
    assert report.reasons == (f"{ALLOWED} lets nobody finish, the host neither (broken: said so)",)
    assert [proof.state for proof in report.allowed] == ["unproven"]
    only_us = judge(BOTH, results("reached", "reached"), results("refused", "broken"))
    assert "blocked by us?" in only_us.reasons[0]


def test_every_combination_has_a_state_and_only_verified_has_no_reasons() -> None:
    for control_b, control_a, inside_b, inside_a in product(OUTCOMES, repeat=4):
        report = judge(BOTH, results(control_b, control_a), results(inside_b, inside_a))
        assert (report.state == "verified") == (not report.reasons)
        assert (report.state == "breached") == (inside_b in ("reached", "broken"))
        if report.state == "verified":
            assert control_b in ("reached", "broken")
            assert inside_a == "reached"
        assert VerificationReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_plan_leaves_out_what_the_policy_contradicts_and_says_so() -> None:
    made = plan(BOTH, lambda flow: flow.name == BLOCKED)
    assert made == Plan(
        (),
        (),
        (
            f"{BLOCKED} cannot prove a block: the policy allows it",
            f"{ALLOWED} cannot prove a permission: the policy denies it",
        ),
    )
    report = judge(made, {}, {})
    assert report.state == "degraded"
    assert report.reasons == ("no target is left that could prove that anything is blocked",)
    assert report.skipped == made.skipped


def test_the_flow_of_a_target() -> None:
    assert flow_of("example.com") == Flow(6, 443, name="example.com")
    assert flow_of("https://API.example.com./zen") == Flow(6, 443, name="api.example.com")
    assert str(flow_of("[2001:db8::1]:53/udp")) == "[2001:db8::1]:53/udp"
    assert flow_of("2001:db8::1/icmp").protocol == 58
    assert flow_of("192.0.2.1/icmp") == Flow(1, None, None, flow_of("192.0.2.1").address)
