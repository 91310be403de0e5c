"""What is asked for (`InstanceSpec`) and what there is (`InstanceInfo`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from netpolicy.gate.protocol import Drift, State
from netpolicy.probe.verification import Settings
from netpolicy.ruleset import Ruleset
from sidecars.gate import Backend
from sidecars.images import BuildOptions
from sidecars.networks import PREFIX, Pool

#: The container's memory limit where none is asked for, in bytes. A limit keeps one instance from taking the host down.
MEMORY = 8 << 30
#: The limit of processes and threads where none is asked for.
PROCESSES = 4096


class Phase(StrEnum):
    """Where an instance is in its life. The first four follow each other; ready, degraded, failed and stopped last."""

    CREATING = "creating"
    """Its name and network are being reserved."""
    LOCKED = "locked"
    """The gate refuses everything from its network; nothing runs there yet."""
    STARTING = "starting"
    """Volumes, container, policy and workspace are being made."""
    VERIFYING = "verifying"
    """The firewall is being tried for real."""
    READY = "ready"
    """It runs, and the gate holds a verification of exactly the rules in force."""
    DEGRADED = "degraded"
    """It runs and is locked down, but something could not be proven or does not work; the reasons say what."""
    FAILED = "failed"
    """It was left half-made, or its firewall did not hold; it does not run or must not."""
    STOPPED = "stopped"
    """It exists but does not run."""
    STOPPING = "stopping"
    """It is being removed."""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """An instance that is wanted."""

    ruleset: Ruleset
    verify: Settings
    """What must be shown to be blocked and reachable."""
    image: str
    name: str | None = None
    """As a person writes it (`sidecars.names.parse`); None takes the next free one."""
    new: bool = False
    """Refuse an instance that exists already (``name-taken``); otherwise it is repaired and returned."""
    upstreams: tuple[str, ...] | None = None
    """Resolvers for its allowed names, ``address`` or ``address:port``; None for the gate's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = MEMORY
    """Bytes; 0 for no limit."""
    processors: float = 0.0
    """0 for no limit."""
    processes: int = PROCESSES
    pool: Pool = field(default_factory=Pool)
    prefix: str = PREFIX
    """How names of bridge interfaces begin; the gate locks this prefix."""
    backend: Backend = "auto"
    """What the gate filters packets with."""
    build: BuildOptions = field(default_factory=BuildOptions)
    """How the gate's image is made, where it is missing or out of date."""
    shortcomings: tuple[str, ...] = ()
    """What is wrong already, a sentence each, e.g. that the image is an older one; it makes the instance `degraded`."""
    verify_seconds: float = 5.0
    """For each round of probes."""
    wait_seconds: float = 600.0
    """How long to wait for somebody else who is changing the same instance."""


@dataclass(frozen=True, slots=True)
class FirewallInfo:
    """The rule around an instance, in short."""

    state: Literal["locked", "enforced", "observed", "off", "unknown"] = "unknown"
    """``off``, ``observed``: everything may leave. ``unknown``: the gate does not say."""
    policy: str = ""
    ruleset: str = ""
    names: int = 0
    ranges: int = 0
    learned: int = 0
    refused: int = 0
    """Packets refused so far (or that would have been, where it only observes)."""
    unresolved: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ends_at: float | None = None
    """When the next of the rules ends, in seconds since 1970."""
    drift: Drift | None = None
    """What other programs did to the rules; None where none did."""

    @classmethod
    def of(cls, state: State | None) -> FirewallInfo:
        """What the gate says; None when it says nothing."""
        if state is None:
            return cls()
        return cls(
            state=state.phase,
            policy=state.policy or "",
            ruleset=state.ruleset or "",
            names=state.names,
            ranges=state.ranges,
            learned=state.learned,
            refused=state.refused,
            unresolved=state.unresolved,
            warnings=state.warnings,
            ends_at=state.ends_at,
            drift=state.drift,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "state": self.state,
            "policy": self.policy,
            "ruleset": self.ruleset,
            "names": self.names,
            "ranges": self.ranges,
            "learned": self.learned,
            "refused": self.refused,
            "unresolved": list(self.unresolved),
            "warnings": list(self.warnings),
            "ends_at": self.ends_at,
            "drift": None if self.drift is None else self.drift.to_json(),
        }


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """An instance that exists."""

    project: str
    name: str
    phase: Phase
    reasons: tuple[str, ...] = ()
    """Why it is not simply ready (or that its firewall is off), one sentence each."""
    branch: str | None = None
    """The branch its workspace is on; None for a detached HEAD or an unknown one."""
    container: str | None = None
    """The dev container's name."""
    container_id: str | None = None
    image: str | None = None
    network: str | None = None
    interface: str | None = None
    subnets: tuple[str, ...] = ()
    firewall: FirewallInfo = FirewallInfo()
    verification: Mapping[str, Any] | None = None
    """The report the gate holds for the rules in force (`netpolicy.probe.VerificationReport.to_json`)."""
    root: str | None = None
    """The checkout on the host it was made from."""
    created: datetime | None = None
    notes: tuple[str, ...] = ()
    """What `up` has to say besides: what was not carried in."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "project": self.project,
            "name": self.name,
            "phase": str(self.phase),
            "reasons": list(self.reasons),
            "branch": self.branch,
            "container": self.container,
            "container_id": self.container_id,
            "image": self.image,
            "network": self.network,
            "interface": self.interface,
            "subnets": list(self.subnets),
            "firewall": self.firewall.to_json(),
            "verification": None if self.verification is None else dict(self.verification),
            "root": self.root,
            "created": None if self.created is None else self.created.isoformat(),
            "notes": list(self.notes),
        }
