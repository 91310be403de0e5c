"""The path of a flow through the layers, step by step, to the verdict of `decide`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from netpolicy.decide import decide, normal
from netpolicy.fates import DNS_PORT, DNS_PROTOCOLS
from netpolicy.flow import Flow, Layer, Verdict

if TYPE_CHECKING:
    from netpolicy.attachment import Attachment
    from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset

#: The layers in the order in which a flow meets them; the protocol is looked at together with the port.
Name = Literal["local", "off", "dns", "name", "address", "port"]
STEPS: tuple[Name, ...] = get_args(Name)
Outcome = Literal["passes", "allows", "denies", "observes"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one layer says of a flow."""

    name: Name
    outcome: Outcome
    """``passes``: it is for the next layer to say. The last step allows or denies; ``observes`` is to deny by a policy that is
    only observed, so that the flow passes all the same."""
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
    flow, entries = normal(flow), tuple(learned)
    verdict = decide(ruleset, flow, entries, attachment=attachment)
    observed = verdict.layer is Layer.OBSERVE
    enforced = decide(replace(ruleset, mode="enforce"), flow, entries, attachment=attachment) if observed else verdict
    last = _deciding(flow, enforced)
    passing = (Step(name, "passes", says) for name, says in _passing(ruleset, flow, entries, last))
    outcome: Outcome = "observes" if observed else "allows" if verdict.allowed else "denies"
    return Path((*passing, Step(last, outcome, verdict.explanation)), verdict)


def _deciding(flow: Flow, verdict: Verdict) -> Name:
    match verdict.layer:
        case Layer.LOCAL:
            return "local"
        case Layer.OFF:
            return "off"
        case Layer.DNS if not verdict.allowed:
            # Two denials of the gate's DNS: a query for another server, and a name that it does not know.
            return "dns" if flow.port == DNS_PORT and flow.protocol in DNS_PROTOCOLS else "name"
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
                observed = "only observed: what it refuses passes, and is counted"
                yield name, f"the policy {ruleset.policy} is {observed if ruleset.mode == 'observe' else 'on'}"
            case "dns":
                yield name, "no query to port 53, which the gate answers itself"
            case "name":
                yield name, _named(ruleset, flow)
            case _:
                yield name, _located(ruleset, flow, learned)


def _named(ruleset: Ruleset, flow: Flow) -> str:
    if flow.name is None:
        return "it is asked by address, so that no name is looked up"
    named = _list(str(rule.origin) for rule in ruleset.rules_for(flow.name))
    return f"the gate answers for {flow.name}, named by {named}{_denied(ruleset.denials_for(flow.name))}"


def _located(ruleset: Ruleset, flow: Flow, learned: tuple[Learned, ...]) -> str:
    address = flow.address
    if address is None:
        known = _list(str(entry.address) for entry in learned if entry.name == flow.name)
        return f"it resolved to {known}" if known else f"{_resolving(ruleset)} opens just before the gate answers"
    around = (f"lies in {rule.network} by {rule.origin}" for rule in ruleset.by_prefix.around(address))
    names = (f"is an address of {entry.name}" for entry in learned if entry.address == address)
    return f"{address} {_list((*around, *names))}{_denied(ruleset.denied_by_prefix.around(address))}"


def _resolving(ruleset: Ruleset) -> str:
    what = "what it resolves to" if ruleset.ipv6 else "what it resolves to by IPv4"
    return f"{what}, denied addresses apart," if ruleset.denied_ranges else what


def _denied(denials: Iterable[NameRule | RangeRule]) -> str:
    """What is denied of a target of which something is left."""
    told = _list(f"{rule.origin} denies {', '.join(map(str, rule.services))}" for rule in denials)
    return f"; but {told}" if told else ""


def _list(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
