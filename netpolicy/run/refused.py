"""What a run's command was refused, by destination: what the kernel noted, joined with the names that led there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netpolicy.attachment import Attachment, Refusal
from netpolicy.decide import decide
from netpolicy.flow import PORTED, Flow, protocol_name
from netpolicy.ruleset import Learned, Ruleset


@dataclass(frozen=True, slots=True)
class DeniedName:
    """A name that was asked for and that the policy does not allow."""

    name: str
    times: int
    denial: str | None
    """The deny rule that keeps it out, which adding the name to the allowed ones does not change; None where there is none."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        add = None if self.denial else self.name
        return {"name": self.name, "times": self.times, "add": add, "denied_by": self.denial}

    def line(self) -> str:
        """For people."""
        notes = [f"{self.times} times"] if self.times > 1 else []
        notes += [f"denied by {self.denial}"] if self.denial else []
        return f"{self.name}  ({'; '.join(notes)})" if notes else self.name


def names(asked: Mapping[str, int], ruleset: Ruleset) -> tuple[DeniedName, ...]:
    """Names with how often they were asked for, each with the deny rule that it meets; in the same order."""
    denials = {name: ruleset.denials_for(name) for name in asked}
    return tuple(
        DeniedName(name, times, str(denials[name][0].origin) if denials[name] else None)
        for name, times in asked.items()
    )


@dataclass(frozen=True, slots=True)
class Refused:
    """One destination that the policy does not allow."""

    refusal: Refusal
    names: tuple[str, ...]
    """The allowed names that resolve to its address; none where it was asked for by its address."""
    add: tuple[str, ...]
    """Rules of which each one would allow it: for its names, else for its address. None where no allowing rule can."""
    explanation: str
    """Why it is refused, in a sentence."""

    @property
    def target(self) -> str:
        """As people write it."""
        flow = flow_of(self.refusal)
        return str(flow)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        refusal = self.refusal
        return {
            "address": str(refusal.address),
            "protocol": protocol_name(refusal.protocol),
            "port": refusal.port,
            "packets": refusal.packets,
            "names": list(self.names),
            "add": list(self.add),
            "explanation": self.explanation,
        }

    def line(self) -> str:
        """For people: what to add, and what it was."""
        packets = f"{self.refusal.packets} packet{'s' if self.refusal.packets != 1 else ''}"
        if not self.add:
            return f"{self.target}  ({packets}; {self.explanation})"
        return f"{' or '.join(self.add)}  ({packets}{f' to {self.target}' if self.names else ''})"


def flow_of(refusal: Refusal) -> Flow:
    """The connection attempt."""
    port = refusal.port if refusal.protocol in PORTED else None
    return Flow(refusal.protocol, port, address=refusal.address)


def explained(
    refusals: Iterable[Refusal], ruleset: Ruleset, learned: Sequence[Learned], attachment: Attachment
) -> tuple[Refused, ...]:
    """Every refusal with its names and what would allow it, in the same order.

    Args:
        refusals: What the kernel noted.
        ruleset: What was in force.
        learned: The addresses of allowed names at the end.
        attachment: Where the command stands.
    """
    known: dict[object, dict[str, None]] = {}
    for entry in learned:
        known.setdefault(entry.address, {})[entry.name] = None
    return tuple(
        _one(refusal, ruleset, tuple(known.get(refusal.address, ())), learned, attachment) for refusal in refusals
    )


def _one(
    refusal: Refusal, ruleset: Ruleset, names: tuple[str, ...], learned: Sequence[Learned], attachment: Attachment
) -> Refused:
    flow = flow_of(refusal)
    by_address = decide(ruleset, flow, learned, attachment=attachment)
    by_name = [decide(ruleset, Flow(flow.protocol, flow.port, name=name), learned) for name in names]
    found = [verdict.suggestion for verdict in by_name] or [by_address.suggestion]
    return Refused(refusal, names, tuple(text for text in found if text is not None), by_address.explanation)
