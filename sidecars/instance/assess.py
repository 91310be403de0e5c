"""In which phase an instance is, from what can be seen now. Pure.

What was recorded is believed only where nothing better can be seen: an instance is `ready` because its container runs and the
gate says that the rules in force were verified, not because somebody once wrote that it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from netpolicy.gate.protocol import State
from sidecars.instance.model import Phase
from sidecars.instance.objects import Objects
from sidecars.journal import Entry

_UNDERWAY = frozenset({Phase.CREATING, Phase.LOCKED, Phase.STARTING, Phase.VERIFYING, Phase.STOPPING})
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one instance."""

    objects: Objects
    state: State | None = None
    """What the gate says of its network; None where it says nothing."""
    gate: str | None = None
    """Why the gate says nothing of anything; None where it answers."""
    entry: Entry | None = None
    """The last thing recorded."""
    holder: str | None = None
    """Who is changing it now."""
    shortcomings: tuple[str, ...] = ()
    """What the run that is just ending could not do."""


def assess(facts: Facts) -> tuple[Phase, tuple[str, ...]]:
    """The phase, and the reasons why it is not simply ready."""
    objects, entry = facts.objects, facts.entry
    recorded = Phase(entry.phase) if entry is not None and entry.phase in Phase.__members__.values() else None
    if facts.holder is not None and recorded in _UNDERWAY:
        return recorded, (f"{facts.holder} is working on it",)
    if objects.network is None or objects.dev is None or objects.workspace is None:
        return Phase.FAILED, (_half_made(objects, recorded),)
    if not objects.dev.running:
        if recorded is Phase.FAILED and entry is not None:
            return Phase.FAILED, entry.reasons
        return Phase.STOPPED, ("its container does not run; 'cspace up NAME' starts it behind its firewall",)
    if facts.state is None or facts.state.attachment.networks != objects.network.subnets:
        why = facts.gate or "the gate does not know its network"
        return Phase.DEGRADED, (f"{why}: what was denied stays denied; 'cspace up NAME' repairs it",)
    astray = _astray(objects)
    if astray is not None:
        return Phase.FAILED, (astray,)
    known = (*facts.shortcomings, *(r for r in (entry.reasons if entry else ()) if r.startswith(OLDER)))
    return _by_gate(facts.state, known)


#: How the reasons begin that only the record can tell: nothing shows of an image that it ought to be another.
OLDER = "an older image is in use: "


def _astray(objects: Objects) -> str | None:
    """What somebody has joined the container to, past the firewall."""
    network, dev = objects.network, objects.dev
    assert network is not None
    assert dev is not None
    others = sorted({address.network for address in dev.addresses} - {network.name})
    if not others:
        return None
    names, be = (", ".join(others), "is" if len(others) == 1 else "are")
    hint = "; ".join(f"docker network disconnect {name} {dev.name}" for name in others)
    return f"its container is also on {names}, which {be} outside of its firewall: what leaves there is not filtered ({hint})"


def _half_made(objects: Objects, recorded: Phase | None) -> str:
    if recorded is Phase.STOPPING:
        return "its removal was interrupted; 'cspace down NAME' finishes it"
    parts = {"network": objects.network, "container": objects.dev, "workspace": objects.workspace}
    missing = " and ".join(name for name, there in parts.items() if there is None)
    return f"it has no {missing}; 'cspace up NAME' completes it, 'cspace down NAME' removes it"


def _by_gate(state: State, known: tuple[str, ...]) -> tuple[Phase, tuple[str, ...]]:
    events = drift(state)
    if state.phase == "locked":
        why = "no policy is in force: nothing passes; 'cspace up NAME' applies it"
        return Phase.LOCKED, (*events, *state.warnings, why)
    if state.drift is not None and state.drift.action == "failed":
        return Phase.DEGRADED, events
    if state.phase == "off":
        return (Phase.DEGRADED if known else Phase.READY), (FIREWALL_OFF, *events, *known)
    if state.phase == "observed":
        reasons = [*shortcomings(state), *known]
        return (Phase.DEGRADED if reasons else Phase.READY), (ONLY_OBSERVED, *events, *reasons)
    if state.verification is None:
        return Phase.DEGRADED, (*events, "the rules in force have not been verified; 'cspace up NAME' does it")
    proven = state.verification.get("state")
    reasons = [str(reason) for reason in state.verification.get("reasons", ())]
    if proven == "breached":
        return Phase.FAILED, tuple(reasons)
    reasons += [*shortcomings(state), *known]
    return (Phase.DEGRADED if reasons or proven != "verified" else Phase.READY), (*events, *reasons)


#: Every listing of an instance without a firewall carries this.
FIREWALL_OFF = "the firewall is OFF: everything may leave (firewall.mode is off, or firewall.enabled false)"
#: And this one, of an instance whose firewall lets everything pass and only counts.
ONLY_OBSERVED = (
    "the firewall only OBSERVES: everything may leave, and what it would refuse is counted (firewall.mode is observe)"
)


def drift(state: State) -> tuple[str, ...]:
    """What is to be said of other programs that have changed the rules; nothing where none has."""
    found = state.drift
    if found is None:
        return ()
    done = {
        "repaired": "the gate has put them right",
        "locked": "the gate has locked the instance",
        "failed": "the gate could not put them right yet and tries again",
    }[found.action]
    times = "once" if found.times == 1 else f"{found.times} times"
    return (f"another program has changed its firewall rules {times}, the last time: {found.last}; {done}",)


def shortcomings(state: State) -> list[str]:
    """What the gate could not do of what the policy asks; closed, all of it."""
    found = list(state.warnings)
    if state.unresolved:
        shown = ", ".join(state.unresolved[:_SHOWN_NAMES])
        more = len(state.unresolved) - _SHOWN_NAMES
        names = "name does" if len(state.unresolved) == 1 else "names do"
        found.append(
            f"{len(state.unresolved)} allowed {names} not resolve now and stay closed until they do: {shown}"
            + (f" and {more} more" if more > 0 else "")
        )
    return found
