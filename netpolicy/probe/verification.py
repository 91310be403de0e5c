"""Does the firewall do what its policy says? Pure judgement over probes from inside and from the unfiltered side.

The positive control is the point: a blocked target proves something only if the host itself can reach it, and an allowed one
that the host cannot reach says nothing about us. `breached` means that the workload must not start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any, Literal, Protocol

from netpolicy.flow import PROTOCOLS, Flow
from netpolicy.probe.attempt import ProbeResult, parse

State = Literal["verified", "degraded", "breached"]


class Settings(Protocol):
    """The targets to prove: the policy's `verify` object."""

    @property
    def blocked(self) -> tuple[str, ...]:
        """Targets that must not be reachable from inside."""

    @property
    def allowed(self) -> tuple[str, ...]:
        """Targets that must be reachable from inside."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One target and what is known of it."""

    target: str
    state: Literal["proven", "unproven", "failed"]
    inside: ProbeResult | None
    control: ProbeResult | None
    """The same probe from the unfiltered side."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was proven."""

    state: State
    blocked: tuple[Proof, ...]
    allowed: tuple[Proof, ...]
    reasons: tuple[str, ...] = ()
    """Why the state is not `verified`; empty when it is."""
    skipped: tuple[str, ...] = ()
    """Targets that the policy itself contradicts, each with the reason."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, which `from_json` reads."""
        return {**asdict(self), "blocked": [*map(_row, self.blocked)], "allowed": [*map(_row, self.allowed)]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> VerificationReport:
        """Read what `to_json` wrote. Raises KeyError or TypeError on a malformed document."""
        return cls(
            state=document["state"],
            blocked=tuple(_proof(row) for row in document["blocked"]),
            allowed=tuple(_proof(row) for row in document["allowed"]),
            reasons=tuple(document["reasons"]),
            skipped=tuple(document.get("skipped", ())),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The targets worth probing under one policy; satisfies `Settings`."""

    blocked: tuple[str, ...]
    allowed: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def targets(self) -> list[str]:
        """Everything to probe, from inside and from the unfiltered side, each once."""
        return list(dict.fromkeys((*self.blocked, *self.allowed)))


def flow_of(target: str) -> Flow:
    """The flow that a probe of `target` makes. Raises ValueError where the target is malformed."""
    wanted = parse(target)
    try:
        address = ip_address(wanted.host)
    except ValueError:
        address = None
    protocol = PROTOCOLS[
        "icmpv6" if wanted.protocol == "icmp" and address and address.version == 6 else wanted.protocol
    ]
    name = None if address else wanted.host.rstrip(".").lower()
    return Flow(protocol, wanted.port or None, name, address)


def plan(settings: Settings, permits: Callable[[Flow], bool]) -> Plan:
    """Leave out the targets that the policy contradicts: an allowed one cannot prove that something is blocked.

    Args:
        settings: What the user (or the default) wants proven.
        permits: Whether the ruleset in force allows a flow (`netpolicy.decide`).
    """
    blocked = tuple(t for t in settings.blocked if not permits(flow_of(t)))
    allowed = tuple(t for t in settings.allowed if permits(flow_of(t)))
    skipped = [f"{t} cannot prove a block: the policy allows it" for t in settings.blocked if t not in blocked]
    skipped += [f"{t} cannot prove a permission: the policy denies it" for t in settings.allowed if t not in allowed]
    return Plan(blocked, allowed, tuple(skipped))


def judge(
    settings: Settings, control: Mapping[str, ProbeResult], inside: Mapping[str, ProbeResult]
) -> VerificationReport:
    """Judge the probes of all targets of `settings` (a `Plan`, or the policy's own list).

    Args:
        settings: The targets.
        control: Results from the unfiltered side, by target.
        inside: Results from behind the firewall, by target.

    Returns:
        `breached` where a blocked target answered inside; else `degraded` where anything is unproven; else `verified`.
    """
    blocked = tuple(_judge_blocked(t, control.get(t), inside.get(t)) for t in settings.blocked)
    allowed = tuple(_judge_allowed(t, control.get(t), inside.get(t)) for t in settings.allowed)
    reasons = [proof.reason for proof in (*blocked, *allowed) if proof.reason]
    if not blocked:
        reasons.append("no target is left that could prove that anything is blocked")
    state: State = "degraded" if reasons else "verified"
    if any(proof.state == "failed" for proof in blocked):
        state = "breached"
    return VerificationReport(state, blocked, allowed, tuple(reasons), getattr(settings, "skipped", ()))


def _judge_blocked(target: str, control: ProbeResult | None, inside: ProbeResult | None) -> Proof:
    if inside is None:
        return Proof(target, "unproven", inside, control, f"{target} was not probed from inside")
    if inside.reached:
        where = f" at {inside.address}" if inside.address else ""
        return Proof(target, "failed", inside, control, f"{target} must be blocked, but it answered inside{where}")
    if inside.outcome == "not-permitted":
        return Proof(target, "unproven", inside, control, f"{target} could not be tried inside: {inside.detail}")
    if control is None or not control.reached:
        return Proof(target, "unproven", inside, control, f"cannot be proven: the host itself cannot reach {target}")
    return Proof(target, "proven", inside, control)


def _judge_allowed(target: str, control: ProbeResult | None, inside: ProbeResult | None) -> Proof:
    if inside is None:
        return Proof(target, "unproven", inside, control, f"{target} was not probed from inside")
    if inside.outcome == "reached":
        return Proof(target, "proven", inside, control)
    said = f"{inside.outcome}: {inside.detail}" if inside.detail else inside.outcome
    if control is None or not control.reached:
        return Proof(target, "unproven", inside, control, f"the host itself cannot reach {target}")
    if inside.reached and control.outcome == inside.outcome:
        # Both got through and then nowhere: it is the far end, or something between the host and it.
        return Proof(target, "unproven", inside, control, f"{target} lets nobody finish, the host neither ({said})")
    reason = f"blocked by us? The host reaches {target}, the inside does not ({said})"
    return Proof(target, "failed", inside, control, reason)


def _row(proof: Proof) -> dict[str, Any]:
    results = {"inside": proof.inside, "control": proof.control}
    return {**asdict(proof), **{side: None if one is None else one._asdict() for side, one in results.items()}}


def _proof(row: Mapping[str, Any]) -> Proof:
    def result(value: Mapping[str, Any] | None) -> ProbeResult | None:
        return None if value is None else ProbeResult(**value)

    return Proof(row["target"], row["state"], result(row["inside"]), result(row["control"]), row.get("reason"))
