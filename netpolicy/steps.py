"""The path of a flow through the layers, step by step, to the verdict of `decide`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from netpolicy.addresses import plain
from netpolicy.decide import decide
from netpolicy.flow import Flow, Layer, Verdict

if TYPE_CHECKING:
    from netpolicy.attachment import Attachment
    from netpolicy.ruleset import Learned, Ruleset

#: The layers in the order in which a flow meets them; the protocol is looked at together with the port.
Name = Literal["local", "off", "dns", "name", "address", "port"]
STEPS: tuple[Name, ...] = get_args(Name)
Outcome = Literal["passes", "allows", "denies"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one layer says of a flow."""

    name: Name
    outcome: Outcome
    """``passes``: it is for the next layer to say. The last step allows or denies."""
    says: str
    """For a person."""


@dataclass(frozen=True, slots=True)
class Path:
    """All steps up to the one that decides, and the verdict, which is that of `decide`."""

    steps: tuple[Step, ...]
    verdict: Verdict


def explain(
    ruleset: Ruleset, flow: Flow, learned: Iterable[Learned] = (), *, attachment: Attachment | None = None
) -> Path:
    """The way of a flow through the layers; the arguments are those of `decide`."""
    entries = tuple(learned)
    verdict = decide(ruleset, flow, entries, attachment=attachment)
    last = _deciding(flow, verdict)
    passing = (Step(name, "passes", says) for name, says in _passing(ruleset, flow, entries, last))
    end = Step(last, "allows" if verdict.allowed else "denies", verdict.explanation)
    return Path((*passing, end), verdict)


def _deciding(flow: Flow, verdict: Verdict) -> Name:
    match verdict.layer:
        case Layer.LOCAL:
            return "local"
        case Layer.OFF:
            return "off"
        case Layer.DNS if not verdict.allowed:
            # Two denials of the gate's DNS: a query for another server, and a name that it does not know.
            return "dns" if flow.port == 53 and flow.protocol in (6, 17) else "name"
        case Layer.ADDRESS if not verdict.allowed:
            return "address"
        case _:
            return "port"


def _passing(ruleset: Ruleset, flow: Flow, learned: tuple[Learned, ...], last: Name) -> Iterator[tuple[Name, str]]:
    """What the layers before the last one say."""
    for name in STEPS[: STEPS.index(last)]:
        match name:
            case "local":
                yield name, "neither the workload's own machine, link or network, nor its host"
            case "off":
                yield name, f"the policy {ruleset.policy} is on"
            case "dns":
                yield name, "no query to port 53, which the gate answers itself"
            case "name":
                yield name, _named(ruleset, flow)
            case _:
                yield name, _located(ruleset, flow, learned)


def _named(ruleset: Ruleset, flow: Flow) -> str:
    if flow.name is None:
        return "it is asked by address, so that no name is looked up"
    rules = ruleset.by_name[_spelled(flow.name)]
    return f"the gate answers for {_spelled(flow.name)}, named by {_list(str(rule.origin) for rule in rules)}"


def _located(ruleset: Ruleset, flow: Flow, learned: tuple[Learned, ...]) -> str:
    if flow.address is None:
        name = _spelled(flow.name or "")
        known = _list(str(entry.address) for entry in learned if entry.name == name)
        return f"it resolved to {known}" if known else "what it resolves to opens just before the gate answers"
    address = plain(flow.address)
    around = (f"lies in {rule.network} by {rule.origin}" for rule in ruleset.by_prefix.around(address))
    names = (f"is an address of {entry.name}" for entry in learned if entry.address == address)
    return f"{address} {_list((*around, *names))}"


def _spelled(name: str) -> str:
    return name.lower().removesuffix(".")


def _list(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
