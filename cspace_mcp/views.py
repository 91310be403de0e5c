"""From the objects of `sidecars` and `netpolicy` to the answers of the service. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cspace_mcp.results import (
    MOST,
    Destruction,
    Firewall,
    FirewallView,
    Instance,
    Judgement,
    Probe,
    Rule,
    Unsaved,
    Verification,
)
from netpolicy.flow import Verdict
from netpolicy.policy import ports
from netpolicy.ruleset import Mode, NameRule, RangeRule, Ruleset
from sidecars.instance import FirewallInfo, InstanceInfo, Removed
from sidecars.workspace import Unsaved as Work

_STATES: Final[dict[Mode, Literal["enforced", "observed", "off"]]] = {
    "enforce": "enforced",
    "observe": "observed",
    "off": "off",
}


def instance(info: InstanceInfo) -> Instance:
    """One instance."""
    return Instance(
        name=info.name,
        project=info.project,
        state=info.phase.value,
        reasons=list(info.reasons),
        branch=info.branch or "",
        firewall=firewall(info.firewall),
        verification=None if info.verification is None else verification(info.verification),
        subnets=list(info.subnets),
        container=info.container or "",
        created="" if info.created is None else info.created.isoformat(timespec="seconds"),
        notes=list(info.notes),
    )


def firewall(info: FirewallInfo) -> Firewall:
    """The rule around it."""
    return Firewall(
        state=info.state,
        policy=info.policy,
        ruleset=info.ruleset,
        names=info.names,
        ranges=info.ranges,
        refused=info.refused,
        unresolved=list(info.unresolved[:MOST]),
        unresolved_count=len(info.unresolved),
        warnings=list(info.warnings),
        ends_at=_moment(info.ends_at),
        drift=""
        if info.drift is None
        else f"{info.drift.times} times, the last time: {info.drift.last} ({info.drift.action})",
    )


def verification(report: Mapping[str, Any]) -> Verification:
    """The report that the gate keeps (`netpolicy.probe.VerificationReport.to_json`)."""
    return Verification(
        state=report["state"],
        blocked=[_probe(proof) for proof in report["blocked"]],
        allowed=[_probe(proof) for proof in report["allowed"]],
        reasons=list(report.get("reasons", ())),
    )


def _probe(proof: Mapping[str, Any]) -> Probe:
    inside, control = proof.get("inside") or {}, proof.get("control") or {}
    return Probe(
        target=proof["target"],
        state=proof["state"],
        outcome=inside.get("outcome", "not tried"),
        milliseconds=inside.get("milliseconds"),
        control=control.get("outcome"),
        reason=proof.get("reason"),
    )


def unsaved(work: Work) -> Unsaved:
    """Work that exists only inside."""
    return Unsaved(
        files=list(work.files[:MOST]),
        file_count=len(work.files),
        commits=[f"{commit[:10]} {subject}" for commit, subject in work.commits[:MOST]],
        commit_count=len(work.commits),
    )


def destruction(removed: Removed) -> Destruction:
    """What `down` has done."""
    lost = unsaved(removed.lost) if removed.lost else None
    return Destruction(name=removed.name, project=removed.project, removed=list(removed.removed), lost=lost)


def rules(ruleset: Ruleset) -> list[Rule]:
    """Every denied target, and then every allowed one, names first."""
    return [
        *(_rule(rule.name, rule, denies=True) for rule in ruleset.denied_names),
        *(_rule(str(rule.network), rule, denies=True) for rule in ruleset.denied_ranges),
        *(_rule(rule.name, rule) for rule in ruleset.names),
        *(_rule(str(rule.network), rule) for rule in ruleset.ranges),
    ]


def _rule(target: str, rule: NameRule | RangeRule, *, denies: bool = False) -> Rule:
    origin = rule.origin
    return Rule(
        target=target,
        services=ports.written(rule.services),
        source=origin.source,
        key=origin.key,
        reason=origin.reason,
        denies=denies,
        ends_at=_moment(rule.until),
    )


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def show(name: str | None, rule: Firewall, ruleset: Ruleset | None) -> FirewallView:
    """A policy in full."""
    if ruleset is None:
        return FirewallView(instance=name, firewall=rule)
    return FirewallView(
        instance=name,
        firewall=rule,
        rules=rules(ruleset),
        host_access=[str(entry.service) for entry in ruleset.host],
        warnings=list(ruleset.warnings),
    )


def planned(ruleset: Ruleset) -> Firewall:
    """The rule that a new instance would get."""
    return Firewall(
        state=_STATES[ruleset.mode],
        policy=ruleset.policy,
        ruleset=ruleset.id,
        names=len(ruleset.by_name),
        ranges=len(ruleset.ranges),
        ends_at=_moment(ruleset.next_end),
    )


def judgement(target: str, verdict: Verdict) -> Judgement:
    """What would happen to one connection."""
    return Judgement(
        target=target,
        allowed=verdict.allowed,
        layer=verdict.layer.value,
        identity=verdict.identity.value,
        explanation=verdict.explanation,
        rule=None if verdict.rule is None else str(verdict.rule),
        suggestion=verdict.suggestion,
    )
