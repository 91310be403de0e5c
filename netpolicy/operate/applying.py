"""Put a policy in force on attachments, and prove it: lock, apply, verify; what turns out to be open is locked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Flow
from netpolicy.gate.client import GateClient
from netpolicy.gate.protocol import State
from netpolicy.operate import docker, doubts, notes, proving, wires
from netpolicy.operate.homes import Home
from netpolicy.policy import Policy
from netpolicy.probe import VerificationReport
from netpolicy.probe.verification import Plan
from netpolicy.ruleset import Ruleset

#: Told what is going on, one line at a time.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A policy, ready to be put in force."""

    policy: Policy
    ruleset: Ruleset

    @property
    def settings(self) -> Plan:
        """What is to be proven."""
        return Plan(self.policy.verify.blocked, self.policy.verify.allowed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it on one attachment."""

    state: State
    report: VerificationReport | None
    """None: not verified."""
    unverified: str | None = None
    """Why it was not verified."""
    network: str | None = None
    """The Docker network's name."""

    @property
    def breached(self) -> bool:
        """Whether something that the policy blocks was reached."""
        return self.report is not None and self.report.state == "breached"

    @property
    def verdict(self) -> str:
        """``verified``, ``degraded``, ``breached`` or ``unverified``."""
        return "unverified" if self.report is None else self.report.state

    def to_json(self) -> dict[str, Any]:
        """The JSON form: the gate's state, and what was proven."""
        return {
            **self.state.to_json(),
            "id": self.state.attachment.id,
            "verdict": self.verdict,
            "verification": None if self.report is None else self.report.to_json(),
            "unverified": self.unverified,
            "network": self.network,
        }


@dataclass(frozen=True, slots=True)
class Way:
    """How to get behind the firewall, to try connections from there."""

    seconds: float = 5.0
    """For each round of probes."""
    within: str | None = None
    """A namespace behind the firewall that the user names."""
    namespace: str | None = None
    """What opens the confined namespace, at the output hook."""
    network: docker.Network | None = None
    """The Docker network it is."""

    @property
    def network_name(self) -> str | None:
        """The Docker network's."""
        return self.network.name if self.network else None


def lock(gate: GateClient, attachment: Attachment) -> bool:
    """Lock what is not attached yet, or is not what it was; says whether that was needed. What is attached stays in force."""
    known = {state.attachment.id: state for state in gate.status().attachments}
    before = known.get(attachment.id)
    if before is not None and replace(before.attachment, name=attachment.name) == attachment:
        return False
    gate.attach(attachment)
    return True


def apply(gate: GateClient, attachment_id: str, wanted: Wanted, *, confirm_seconds: float | None = None) -> State:
    """Put the policy in force."""
    return gate.apply(
        attachment_id,
        wanted.ruleset,
        upstreams=wanted.policy.dns.upstream or None,
        confirm_seconds=confirm_seconds,
    )


def remember(home: Home, attachment_id: str, wanted: Wanted, way: Way) -> None:
    """Write down what the policy wants proven, for the next verification."""
    proof = wanted.policy.verify
    note = notes.Note(wanted.ruleset.id, proof.blocked, proof.allowed, way.network_name, way.namespace)
    notes.keep(home, attachment_id, note)


def attempt(gate: GateClient, state: State, settings: Plan, way: Way) -> Outcome:
    """`verify`; that it cannot be done is part of the outcome."""
    try:
        return verify(gate, state, settings, way)
    except UserError as error:
        said = f"{error.message}. {error.hint}" if error.hint else error.message
        return Outcome(state, None, said, way.network_name)


def verify(gate: GateClient, state: State, settings: Plan, way: Way) -> Outcome:
    """Prove the policy in force, and tell the gate; changes nothing else.

    Args:
        gate: That holds it.
        state: The attachment.
        settings: The targets.
        way: How to get behind it.

    Raises:
        UserError: ``cannot-verify`` and the others of `proving`.
    """
    attachment = state.attachment
    shown = gate.show(attachment.id)
    ruleset, before = shown.ruleset, shown.state
    if ruleset is None:
        raise UserError("cannot-verify", f"{attachment.name} is locked: there is no policy in force to be proven")
    if ruleset.mode != "enforce":
        said = "only observed" if ruleset.mode == "observe" else "switched off"
        raise UserError(
            "cannot-verify", f"the policy of {attachment.name} is {said}: it blocks nothing", exit_status=Exit.MISSING
        )

    def permits(flow: Flow) -> bool:
        return gate.check(attachment.id, flow).allowed

    taken = docker.addresses(way.network) if way.network else ()
    with proving.inside(attachment, namespace=way.namespace, within=way.within, taken=taken) as place:
        report = proving.prove(place, ruleset, settings, permits, seconds=way.seconds)
    found = (*doubts.of(gate, before, report, way.network), *wires.doubts(attachment))
    if found:
        weaker = "degraded" if report.state == "verified" else report.state
        report = replace(report, state=weaker, reasons=(*report.reasons, *found))
    held = gate.verified(attachment.id, ruleset.id, report.to_json())
    return Outcome(held, report, network=way.network_name)
