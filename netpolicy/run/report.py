"""What a run has seen: for people as a few lines at the end, for programs as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netpolicy.gate.protocol import State
from netpolicy.run.refused import DeniedName, Refused

#: Names and destinations listed for people; the report has all that the gate remembers.
_MOST_LINES = 8


@dataclass(frozen=True, slots=True)
class Report:
    """One run, after its end."""

    command: tuple[str, ...]
    status: int
    """The command's exit status, or 128 and the number of the signal that ended it."""
    seconds: float
    uplink: str
    reach: str
    state: State
    """The attachment as it was at the end."""
    denied: tuple[DeniedName, ...]
    """Names that were asked for and that the policy does not allow, the most frequent first."""
    refused: tuple[Refused, ...] = ()
    """Destinations that were refused, the most packets first."""
    backend: str = ""
    """What enforced it."""
    domains: str = "domains"
    """Where names are added to the policy, e.g. ``firewall.domains in .cspace.json``."""
    allow: str = "allow"
    """Where destinations are."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        state = self.state
        return {
            "command": list(self.command),
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "uplink": {"kind": self.uplink, "reach": self.reach},
            "policy": state.policy,
            "ruleset": state.ruleset,
            "phase": state.phase,
            "backend": self.backend,
            "refused_packets": state.refused,
            "refused": [row.to_json() for row in self.refused],
            "dns": state.dns.to_json(),
            "denied_names": [row.to_json() for row in self.denied],
            "unresolved": list(state.unresolved),
            "warnings": [*state.warnings, *self.notes],
        }

    def lines(self) -> list[str]:
        """The summary; empty where nothing was refused and nothing is worth a warning."""
        state = self.state
        observed = state.phase == "observed"
        found = []
        if state.phase == "off":
            found.append(f"the policy is switched off ({state.policy}): nothing was refused")
        if observed:
            found.append(f"{state.policy} was only observed, and nothing refused; what follows would have been")
        if state.refused:
            refused = "would have been refused" if observed else "refused"
            found.append(f"{state.refused} packet{'s' if state.refused != 1 else ''} {refused}")
        names = [row.line() for row in self.denied]
        found += _some(names, f"names that are not allowed; to allow one add it to {self.domains}:")
        rows = [row.line() for row in self.refused]
        found += _some(rows, f"destinations that are not allowed; to allow one add it to {self.allow}:")
        if state.unresolved:
            more = len(state.unresolved) - _MOST_LINES
            listed = ", ".join(state.unresolved[:_MOST_LINES]) + (f" and {more} more" if more > 0 else "")
            found.append(f"allowed names that did not resolve: {listed}")
        found += [f"warning: {text}" for text in (*state.warnings, *self.notes)]
        return found


def _some(rows: list[str], heading: str) -> list[str]:
    if not rows:
        return []
    found = [heading, *(f"    {row}" for row in rows[:_MOST_LINES])]
    if len(rows) > _MOST_LINES:
        found.append(f"    and {len(rows) - _MOST_LINES} more (--json-report FILE has them all)")
    return found
