"""Why a flow meets its fate, for people, and which rule would allow it. Pure."""

from __future__ import annotations

from ipaddress import ip_network

from netpolicy.addresses import unroutable
from netpolicy.fates import Fate, Kind
from netpolicy.flow import Flow, Layer, protocol_name
from netpolicy.places import AnyRule, Place
from netpolicy.ruleset import RangeRule, Ruleset
from netpolicy.services import Service, subtract

#: Where nothing but a rule is missing.
_SUGGESTED = (Kind.CLOSED, Kind.TAKEN, Kind.UNKNOWN)


def tell(ruleset: Ruleset, place: Place, fate: Fate, flow: Flow) -> tuple[str, str | None]:
    """One sentence, and the text of the rule that would allow exactly this flow, where one would.

    The flow's target is in canonical spelling.
    """
    why = _settled(ruleset, fate, flow) if fate.rule is None else _ruled(place, fate, place.rules[fate.rule], flow)
    suggested = None
    if fate.kind in _SUGGESTED:
        # The language is loaded for the first denial, not by everyone who imports the package.
        from netpolicy.policy.suggestion import suggestion

        suggested = suggestion(flow)
    return (f"observed only; it would be refused: {why}" if fate.layer is Layer.OBSERVE else why), suggested


def _settled(ruleset: Ruleset, fate: Fate, flow: Flow) -> str:
    """Where no rule is named."""
    match fate.kind:
        case Kind.SELF:
            source = " (RFC 6761)" if flow.address is None else ""
            return f"{_target(flow)} is the workload itself{source}, which is always reachable"
        case Kind.LINK:
            assert flow.address is not None
            said = str(unroutable(ip_network(flow.address))).removeprefix(str(ip_network(flow.address)))
            return f"{flow.address}{said}, which never leaves the workload's own link"
        case Kind.OFF:
            return f"the policy {ruleset.policy} is switched off: everything passes"
        case Kind.DNS:
            queries = "the gate itself answers queries to port 53, whichever server they name"
            return f"{queries}: nothing reaches {_target(flow)}"
        case Kind.IPV6:
            return f"{flow.address} is an IPv6 address, and the policy {ruleset.policy} has IPv6 switched off"
        case _ if flow.address is None:
            return f"no rule names {flow.name}, so the gate answers that it does not exist"
        case _:
            return f"no rule has the address {flow.address}; it opens only while an allowed name resolves to it"


def _ruled(place: Place, fate: Fate, rule: AnyRule, flow: Flow) -> str:
    by_address = flow.address is not None
    match fate.kind:
        case Kind.OPENED if by_address:
            return f"{flow.address} {_through(rule)}, and {rule.origin} allows {_service(flow)} there"
        case Kind.OPENED:
            return f"{rule.origin} allows {flow}"
        case Kind.CLOSED:
            opened = ", ".join(map(str, _left(place)))
            known = any(service.protocol == flow.protocol for service in _left(place))
            how = "at this port" if known else f"with {protocol_name(flow.protocol)}"
            return f"{_target(flow)} is allowed, but not {how}, only with {opened}"
        case Kind.DENIED if by_address:
            return f"{rule.origin} denies {_service(flow)} at {flow.address}"
        case Kind.DENIED:
            return f"{rule.origin} denies {flow}{'' if _left(place) else _UNANSWERED}"
        case _:
            return f"{rule.origin} denies what rules allow of {_target(flow)}{'' if by_address else _UNANSWERED}"


_UNANSWERED = ", so the gate answers that the name does not exist"


def _left(place: Place) -> tuple[Service, ...]:
    """What is open at a place."""
    opening, denying = place.rules[: place.opening], place.rules[place.opening :]
    return subtract((s for rule in opening for s in rule.services), (s for rule in denying for s in rule.services))


def _through(rule: AnyRule) -> str:
    """How a rule has an address."""
    return f"lies in {rule.network}" if isinstance(rule, RangeRule) else f"is an address of {rule.name}"


def _target(flow: Flow) -> str:
    return flow.name if flow.address is None and flow.name is not None else str(flow.address)


def _service(flow: Flow) -> str:
    return str(Service(flow.protocol, flow.port or 0, flow.port or 0))
