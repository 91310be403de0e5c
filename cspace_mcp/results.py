"""What the service answers: the same models are printed by ``--json`` and returned by the MCP tools.

Everything a reader needs is in the model, because Claude Code shows a model's JSON and drops the text beside it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: An instance's phase. `ready`, `degraded`, `failed` and `stopped` last; the others pass.
State = Literal[
    "creating", "locked", "starting", "verifying", "ready", "degraded", "failed", "stopped", "stopping"
]  # fmt: skip


#: The most entries of a list that can be of any length.
MOST = 20


class Result(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True)


class Probe(Result):
    """One target that was tried for real."""

    target: str
    state: Literal["proven", "unproven", "failed"]
    outcome: str
    """From inside: ``reached``, ``refused``, ``dns-denied``, ``timeout``, ..."""
    milliseconds: float | None = None
    control: str | None = None
    """The outcome of the same probe from the unfiltered side."""
    reason: str | None = None
    """Why it proves nothing, or what is wrong."""


class Verification(Result):
    """What was tried after the policy was applied."""

    state: Literal["verified", "degraded", "breached"]
    blocked: list[Probe] = []
    """Targets that must not be reachable from inside."""
    allowed: list[Probe] = []
    """Targets that must be."""
    reasons: list[str] = []


class Firewall(Result):
    """The rule around an instance, in one line's worth of facts."""

    state: Literal["locked", "enforced", "observed", "off", "unknown"]
    """``off`` and ``observed`` mean that everything may leave (``observed`` counts what would be refused); ``locked`` that
    nothing may."""
    policy: str = ""
    ruleset: str = ""
    names: int = 0
    ranges: int = 0
    refused: int = 0
    """Packets refused so far, or that would have been."""
    unresolved: list[str] = []
    """Allowed names that do not resolve now and stay closed until they do, the first `MOST` of them."""
    unresolved_count: int = 0
    warnings: list[str] = []
    """What the policy asks for and could not be done as asked."""
    ends_at: str = ""
    """When the next of its rules ends, RFC 3339 in UTC; empty where none does."""
    drift: str = ""
    """What other programs did to the rules in the kernel, and what the gate did about it; empty where none did."""


class Instance(Result):
    """One instance."""

    name: str
    project: str
    state: State
    reasons: list[str] = []
    """Why it is not simply ready."""
    branch: str = ""
    firewall: Firewall
    verification: Verification | None = None
    subnets: list[str] = []
    container: str = ""
    created: str = ""
    """RFC 3339, UTC."""
    notes: list[str] = []
    """What was not carried in, said once when it is made."""


class Unsaved(Result):
    """Work that exists only inside an instance."""

    files: list[str] = []
    """Paths with uncommitted changes, the first `MOST` of them."""
    file_count: int = 0
    commits: list[str] = []
    """Commits that are on no remote and not in the checkout it was made from, as ``abc1234 subject``; the first `MOST`."""
    commit_count: int = 0

    def __bool__(self) -> bool:
        return bool(self.file_count or self.commit_count)

    def sentence(self) -> str:
        """For people: how much there is, with the first few by name."""
        parts = []
        if self.file_count:
            parts.append(
                _some(self.files, self.file_count, "file with uncommitted changes", "files with uncommitted changes")
            )
        if self.commit_count:
            parts.append(_some(self.commits, self.commit_count, "unpushed commit", "unpushed commits"))
        return "; ".join(parts)


def _some(rows: list[str], count: int, one: str, many: str) -> str:
    shown = ", ".join(rows[:5]) + (", …" if count > 5 else "")
    return f"{count} {one if count == 1 else many} ({shown})"


class Destruction(Result):
    """What `down` removed."""

    name: str
    project: str
    removed: list[str] = []
    """Containers, networks and volumes, by name."""
    lost: Unsaved | None = None
    """Unsaved work that went with it, on demand."""


class Execution(Result):
    """A command that has ended in an instance."""

    exit_status: int
    """Its own; 124 when it was stopped at the time limit."""
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0
    timed_out: bool = False
    truncated: bool = False
    """The middle of the output was left out above."""
    full_output: str | None = None
    """Where the whole output lies inside the instance, when it was truncated: a file for sed, grep or tail."""


class Rule(Result):
    """One allowed or denied target, with where it was written."""

    target: str
    """A name, ``*.name``, or a network."""
    services: list[str]
    """Ports and protocols, such as ``443/tcp``."""
    source: str
    key: str
    reason: str | None = None
    denies: bool = False
    """A deny rule: it wins over every other."""
    ends_at: str = ""
    """RFC 3339, UTC; empty: never."""


class FirewallView(Result):
    """A policy in full: of an instance, or the one that a new instance would get."""

    instance: str | None
    firewall: Firewall
    rules: list[Rule] = []
    host_access: list[str] = []
    warnings: list[str] = []


class Judgement(Result):
    """What would happen to one connection."""

    target: str
    allowed: bool
    layer: str
    """Where it is decided: ``dns``, ``address``, ``port``, ``protocol``, ``local``, ``off``, ``observe``."""
    identity: str
    """How sure the rule is of who answers: ``ip`` (other tenants of the address too) or ``none``."""
    explanation: str
    rule: str | None = None
    """The rule that allows it, or the nearest one."""
    suggestion: str | None = None
    """What to add to ``firewall.allow`` so that exactly this passes."""


class Check(Result):
    """One line of `doctor`."""

    name: str
    state: Literal["ok", "warning", "failed"]
    message: str
    hint: str | None = None


class Diagnosis(Result):
    """What `doctor` found."""

    checks: list[Check] = Field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing failed; warnings are healthy."""
        return all(check.state != "failed" for check in self.checks)


class Image(Result):
    """One of our images."""

    name: str
    id: str
    built: bool
    """Whether it was built now; otherwise it was right as it was."""


class EngineFound(Result):
    """The Docker engine in use."""

    address: str
    version: str
    actions: list[str] = []
    """What was done to have it; empty when it was there."""
