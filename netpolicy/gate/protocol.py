"""What crosses the gate's control socket: newline-delimited JSON, one request and one response a line.

    request   {"op": OP, "args": {...}}
    response  {"ok": true, "result": ...}
              {"ok": false, "error": {"code", "message", "hint"?, "details"?, "exit_status"}}

Operations: ``hello``, ``attach``, ``apply``, ``confirm``, ``detach``, ``status``, ``show``, ``check``, ``verified`` (docs/gate.md).
Responses come in the order of the requests; a connection may carry any number of them. Every dataclass here has `to_json` and
`from_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from netpolicy.attachment import Attachment, Refusal
from netpolicy.errors import Exit, UserError
from netpolicy.gate import forms
from netpolicy.gate.forms import Json
from netpolicy.ruleset import Learned, Ruleset

#: The protocol's version; a client refuses to speak to a gate of another one.
FORMAT = 2
#: Longest line in bytes, either way: a ruleset of 100,000 ranges has about 9 MB.
MAX_LINE = 64 * 1024 * 1024

Phase = Literal["locked", "enforced", "observed", "off"]
DriftAction = Literal["repaired", "locked", "failed"]


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers."""

    version: str
    """Of the package that the gate runs."""
    format: int
    """See `FORMAT`."""
    pid: int
    prefix: str | None
    """Interfaces whose names begin so are refused everything until a policy is applied."""
    upstreams: tuple[str, ...]
    """The resolvers asked by default, as ``address:port``."""
    backend: str = ""
    """What filters the packets, e.g. ``nftables``."""

    def to_json(self) -> Json:
        """The wire form."""
        return {**asdict(self), "upstreams": list(self.upstreams)}

    @classmethod
    def from_json(cls, document: Json) -> Hello:
        """Read the wire form. Raises KeyError or ValueError on a malformed document."""
        return cls(
            version=str(document["version"]),
            format=int(document["format"]),
            pid=int(document["pid"]),
            prefix=document["prefix"],
            upstreams=tuple(document["upstreams"]),
            backend=str(document.get("backend", "")),
        )


@dataclass(frozen=True, slots=True)
class DnsState:
    """The DNS gate of one attachment. Counters begin at zero when the gate starts."""

    port: int | None
    """Where it listens on each gateway address, UDP and TCP."""
    listening: bool
    """False while the interface is not there."""
    answered: int = 0
    """Questions answered for allowed names, "there is no such record" included."""
    denied: int = 0
    """Questions for names that the policy does not list, or denies."""
    stripped: int = 0
    """Addresses taken out of answers because they are not public (rebinding), or denied."""
    failed: int = 0
    """Questions that no upstream answered, or whose addresses the kernel did not take."""
    observed: int = 0
    """Questions that were answered only because the policy is observed, not enforced."""
    limited: int = 0
    """Questions for new names below wildcards that were more than the budget allows."""

    def to_json(self) -> Json:
        """The wire form."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Json) -> DnsState:
        """Read the wire form. Raises KeyError or TypeError on a malformed document."""
        return cls(**{key: document[key] for key in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Drift:
    """What another program did to the rules of an attachment since the gate started, and what the gate did about it."""

    times: int
    last: str
    """What was found the last time."""
    at: float
    """When, in seconds since the epoch."""
    action: DriftAction
    """``repaired``; ``locked`` (as the policy asks, or as it was before); ``failed``: it is tried again until it succeeds."""

    def to_json(self) -> Json:
        """The wire form."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Json) -> Drift:
        """Read the wire form. Raises KeyError, TypeError or ValueError on a malformed document."""
        action = cast(DriftAction, document["action"])
        return cls(int(document["times"]), str(document["last"]), float(document["at"]), action)


@dataclass(frozen=True, slots=True)
class State:
    """One attachment as the gate holds it."""

    attachment: Attachment
    phase: Phase
    """``locked`` (nothing passes), ``enforced`` (the ruleset decides), ``observed`` (all passes, and what the ruleset would
    refuse is counted), ``off`` (the policy is switched off: all passes)."""
    policy: str | None
    """The policy's name for people; None while locked."""
    ruleset: str | None
    """The id of the ruleset in force, without the rules that have ended; None while locked."""
    names: int
    ranges: int
    learned: int
    """Addresses learned for names and still in force."""
    unresolved: tuple[str, ...]
    """Allowed names that did not resolve when the ruleset was applied: they stay closed until they do."""
    warnings: tuple[str, ...]
    """Anything that makes the attachment's state degraded."""
    refused: int
    """Packets refused so far, by the kernel's counter."""
    dns: DnsState
    verification: Json | None
    """The report stored by ``verified``; None until then and again when other rules come into force, or the gate restarts."""
    applied_at: float | None
    """Seconds since the epoch; None while locked."""
    confirm_by: float | None = None
    """When the gate goes back to what was in force before, unless it is confirmed; seconds since the epoch."""
    ends_at: float | None = None
    """When the next of the rules in force ends; seconds since the epoch."""
    drift: Drift | None = None
    """None where no other program has changed the rules."""
    upstreams: tuple[str, ...] | None = None
    """The resolvers that are asked for it; None: the gate's own."""

    def to_json(self) -> Json:
        """The wire form."""
        return {
            "attachment": self.attachment.to_json(),
            "phase": self.phase,
            "policy": self.policy,
            "ruleset": self.ruleset,
            "names": self.names,
            "ranges": self.ranges,
            "learned": self.learned,
            "unresolved": list(self.unresolved),
            "warnings": list(self.warnings),
            "refused": self.refused,
            "dns": self.dns.to_json(),
            "verification": self.verification,
            "applied_at": self.applied_at,
            "confirm_by": self.confirm_by,
            "ends_at": self.ends_at,
            "drift": None if self.drift is None else self.drift.to_json(),
            "upstreams": None if self.upstreams is None else list(self.upstreams),
        }

    @classmethod
    def from_json(cls, document: Json) -> State:
        """Read the wire form. Raises KeyError, TypeError or ValueError on a malformed document."""
        return cls(
            attachment=Attachment.from_json(document["attachment"]),
            phase=cast(Phase, document["phase"]),
            policy=document["policy"],
            ruleset=document["ruleset"],
            names=int(document["names"]),
            ranges=int(document["ranges"]),
            learned=int(document["learned"]),
            unresolved=tuple(document["unresolved"]),
            warnings=tuple(document["warnings"]),
            refused=int(document["refused"]),
            dns=DnsState.from_json(document["dns"]),
            verification=document["verification"],
            applied_at=document["applied_at"],
            confirm_by=document["confirm_by"],
            ends_at=document["ends_at"],
            drift=None if document["drift"] is None else Drift.from_json(document["drift"]),
            upstreams=None if document["upstreams"] is None else tuple(document["upstreams"]),
        )


@dataclass(frozen=True, slots=True)
class Status:
    """The gate and its attachments."""

    gate: Hello
    started_at: float
    """Seconds since the epoch."""
    problems: tuple[str, ...]
    """What is wrong with the gate itself, e.g. a state file it could not read; empty when all is well."""
    attachments: tuple[State, ...]

    def to_json(self) -> Json:
        """The wire form."""
        gate = {**self.gate.to_json(), "started_at": self.started_at, "problems": list(self.problems)}
        return {"gate": gate, "attachments": [state.to_json() for state in self.attachments]}

    @classmethod
    def from_json(cls, document: Json) -> Status:
        """Read the wire form. Raises KeyError, TypeError or ValueError on a malformed document."""
        gate = document["gate"]
        return cls(
            gate=Hello.from_json(gate),
            started_at=float(gate["started_at"]),
            problems=tuple(gate["problems"]),
            attachments=tuple(State.from_json(row) for row in document["attachments"]),
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """One attachment in full."""

    ruleset: Ruleset | None
    """What is in force: without the rules that have ended; None while locked."""
    learned: tuple[Learned, ...]
    """`seconds` is what is left of each lifetime."""
    state: State
    denied: Mapping[str, int] = field(default_factory=dict)
    """Names that were asked for and refused, and how often, the most frequent first; at most 1024."""
    observed: Mapping[str, int] = field(default_factory=dict)
    """The same of names that would have been refused, were the policy not only observed."""
    refusals: tuple[Refusal, ...] = ()
    """Destinations that packets were refused lately (or would have been), the most packets first."""

    def to_json(self) -> Json:
        """The wire form."""
        return {
            "ruleset": None if self.ruleset is None else self.ruleset.to_json(),
            "learned": [forms.learned_to_json(entry) for entry in self.learned],
            "state": self.state.to_json(),
            "denied": dict(self.denied),
            "observed": dict(self.observed),
            "refusals": [forms.refusal_to_json(refusal) for refusal in self.refusals],
        }

    @classmethod
    def from_json(cls, document: Json) -> Shown:
        """Read the wire form. Raises KeyError, TypeError or ValueError on a malformed document."""
        return cls(
            ruleset=None if document["ruleset"] is None else Ruleset.from_json(document["ruleset"]),
            learned=tuple(forms.learned_from_json(row) for row in document["learned"]),
            state=State.from_json(document["state"]),
            denied={str(name): int(times) for name, times in document["denied"].items()},
            observed={str(name): int(times) for name, times in document["observed"].items()},
            refusals=tuple(forms.refusal_from_json(row) for row in document["refusals"]),
        )


def encode_request(op: str, args: Mapping[str, Any]) -> bytes:
    """One request, as a line."""
    return _line({"op": op, "args": dict(args)})


def encode_result(result: Any) -> bytes:
    """The response to a request that succeeded, as a line."""
    return _line({"ok": True, "result": result})


def encode_error(error: UserError) -> bytes:
    """The response to a request that failed, as a line."""
    return _line({"ok": False, "error": {**error.as_dict(), "exit_status": error.exit_status}})


def decode_response(line: bytes) -> Any:
    """The result in a response line.

    Raises:
        UserError: the one that the gate sent, or ``gate-protocol`` where the line is none of ours.
    """
    try:
        document = json.loads(line)
        ok, error = document["ok"], document.get("error")
        if ok:
            return document["result"]
        raised = UserError(
            error["code"],
            error["message"],
            hint=error.get("hint"),
            exit_status=error.get("exit_status", Exit.FAILED),
            details=error.get("details"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        text = line[:200].decode(errors="replace")
        raise UserError("gate-protocol", f"the gate's answer is not one of its protocol: {text!r}") from broken
    raise raised


def _line(document: Json) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
