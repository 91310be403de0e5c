"""What happens to one flow: `decide`. Pure and total; a packet meets the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from netpolicy.addresses import plain, unroutable
from netpolicy.flow import PROTOCOLS, Flow, Identity, Layer, Origin, Verdict, protocol_name
from netpolicy.services import Service, subtract

if TYPE_CHECKING:
    from netpolicy.attachment import Attachment
    from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset

_TCP, _UDP = PROTOCOLS["tcp"], PROTOCOLS["udp"]
_DNS_PORT = 53


def decide(
    ruleset: Ruleset,
    flow: Flow,
    learned: Iterable[Learned] = (),
    *,
    attachment: Attachment | None = None,
) -> Verdict:
    """Judge one flow.

    Args:
        ruleset: The rules in force.
        flow: The connection attempt. A name is judged as the DNS gate judges it; an address as the packet filter does.
        learned: The addresses that the DNS gate has opened so far.
        attachment: Where the workload stands, if known: its own network is free, its gateways are the host.
    """
    flow = _normal(flow)
    local = _local(ruleset, flow, attachment)
    if local is not None:
        return local
    if ruleset.mode == "off":
        return Verdict(
            True, Layer.OFF, None, Identity.NONE, f"the policy {ruleset.policy} is switched off: everything passes"
        )
    if flow.port == _DNS_PORT and flow.protocol in (_TCP, _UDP):
        return _dns_port(flow)
    if flow.name is not None:
        verdict = _by_name(ruleset, flow, flow.name, tuple(learned))
    else:
        verdict = _by_address(ruleset, flow, tuple(learned))
    return _observed(verdict) if ruleset.mode == "observe" and not verdict.allowed else verdict


def _normal(flow: Flow) -> Flow:
    if flow.address is not None:
        return replace(flow, address=plain(flow.address))
    return replace(flow, name=(flow.name or "").lower().removesuffix("."))


@dataclass(frozen=True, slots=True)
class _Way:
    """A rule that knows the target, with the services it opens there."""

    services: tuple[Service, ...]
    origin: Origin
    through: str = ""


def _by_name(ruleset: Ruleset, flow: Flow, name: str, learned: tuple[Learned, ...]) -> Verdict:
    ways = [_Way(rule.services, rule.origin) for rule in ruleset.rules_for(name)]
    denials = ruleset.denials_for(name)
    left = ruleset.services_of(name)
    denial = _covering(denials, flow)
    if not left:
        if denial is not None:
            return _forbidden(Layer.DNS, denial, f"{denial} denies {flow}, so the gate answers that it does not exist")
        if ways:
            taken = denials[0].origin
            why = f"{taken} denies all that {ways[0].origin} allows, so the gate answers that {name} does not exist"
            return _denied(flow, Layer.DNS, taken, why)
        why = f"no rule names {name}, so the gate answers that it does not exist"
        return _denied(flow, Layer.DNS, None, why)
    way = None if denial is not None else _open(ways, flow)
    addresses = dict.fromkeys(entry.address for entry in learned if entry.name == name)
    found = [_by_address(ruleset, Flow(flow.protocol, flow.port, None, address), learned) for address in addresses]
    if way is not None:
        if found and not any(verdict.allowed for verdict in found):
            return replace(found[0], explanation=f"{found[0].explanation}, and {name} resolves to nothing else")
        return _allowed(Layer.DNS, way, f"{way.origin} allows {flow}")
    if found and all(verdict.allowed for verdict in found):
        return replace(found[0], explanation=f"{found[0].explanation}, and {name} resolves to nothing else")
    if denial is not None:
        return _forbidden(_layer(left, flow), denial, f"{denial} denies {flow}")
    return _closed(flow, ways, left)


def _by_address(ruleset: Ruleset, flow: Flow, learned: tuple[Learned, ...]) -> Verdict:
    address = flow.address
    assert address is not None
    if address.version == 6 and not ruleset.ipv6:
        why = f"{address} is an IPv6 address, and the policy {ruleset.policy} has IPv6 switched off"
        return Verdict(False, Layer.ADDRESS, None, Identity.NONE, why)
    denials = tuple(ruleset.denied_by_prefix.around(address))
    denial = _covering(denials, flow)
    if denial is not None:
        return _forbidden(Layer.ADDRESS, denial, f"{denial} denies {_service(flow)} at {address}")
    ways = [_Way(rule.services, rule.origin, f"lies in {rule.network}") for rule in ruleset.by_prefix.around(address)]
    ways += _learned(ruleset, flow, learned)
    way = _open(ways, flow)
    if way is not None:
        return _allowed(Layer.ADDRESS, way, f"{address} {way.through}, and {way.origin} allows {_service(flow)} there")
    left = subtract((s for way in ways for s in way.services), (s for rule in denials for s in rule.services))
    if left:
        return _closed(flow, ways, left)
    if ways:
        taken = denials[0].origin
        return _denied(flow, Layer.ADDRESS, taken, f"{taken} denies all that {ways[0].origin} allows at {address}")
    return _denied(
        flow,
        Layer.ADDRESS,
        None,
        f"no rule has the address {address}; it opens only while an allowed name resolves to it",
    )


def _learned(ruleset: Ruleset, flow: Flow, learned: Iterable[Learned]) -> Iterator[_Way]:
    for entry in learned:
        if entry.address == flow.address:
            rules = ruleset.rules_for(entry.name)
            covering = (r.origin for r in rules if any(s.covers(flow.protocol, flow.port) for s in r.services))
            origin = next(covering, rules[0].origin if rules else Origin("dns", "learned", entry.name))
            yield _Way(entry.services, origin, f"is an address of {entry.name}")


def _open(ways: Iterable[_Way], flow: Flow) -> _Way | None:
    return next((way for way in ways if any(s.covers(flow.protocol, flow.port) for s in way.services)), None)


def _covering(denials: Iterable[NameRule | RangeRule], flow: Flow) -> Origin | None:
    return next((d.origin for d in denials if any(s.covers(flow.protocol, flow.port) for s in d.services)), None)


def _layer(left: Iterable[Service], flow: Flow) -> Layer:
    return Layer.PORT if any(s.protocol == flow.protocol for s in left) else Layer.PROTOCOL


def _closed(flow: Flow, ways: list[_Way], left: tuple[Service, ...]) -> Verdict:
    """The target is known, but not with this service: the nearest rule is one with the protocol, where there is one."""
    same = [way for way in ways if any(s.protocol == flow.protocol for s in way.services)]
    opened = ", ".join(str(service) for service in left)
    target = flow.name or str(flow.address)
    layer = _layer(left, flow)
    how = "at this port" if layer is Layer.PORT else f"with {protocol_name(flow.protocol)}"
    return _denied(flow, layer, (same or ways)[0].origin, f"{target} is allowed, but not {how}, only with {opened}")


def _forbidden(layer: Layer, denial: Origin, why: str) -> Verdict:
    """By a rule that denies: nothing that could be added would allow it."""
    return Verdict(False, layer, denial, Identity.NONE, why)


def _observed(refused: Verdict) -> Verdict:
    why = f"observed only; it would be refused: {refused.explanation}"
    return Verdict(True, Layer.OBSERVE, refused.rule, Identity.NONE, why, refused.suggestion)


def _local(ruleset: Ruleset, flow: Flow, attachment: Attachment | None) -> Verdict | None:
    """What never leaves the workload's own machine, link or network, and what is the host's."""
    if flow.name is not None:
        if flow.name.rpartition(".")[2] != "localhost":
            return None
        return _free(f"{flow.name} is the workload itself (RFC 6761)")
    address = flow.address
    assert address is not None
    if address.is_loopback or address.is_unspecified:
        return _free(f"{address} is the workload itself")
    if attachment is not None:
        if address in attachment.gateways:
            return _host(ruleset, flow)
        if any(address in network for network in attachment.networks):
            return _free(f"{address} is in the workload's own network")
    reason = unroutable(ip_network(address))
    if reason is None:
        return None
    return Verdict(False, Layer.LOCAL, None, Identity.NONE, f"{reason}, which never leaves the workload's own link")


def _host(ruleset: Ruleset, flow: Flow) -> Verdict:
    if flow.port == _DNS_PORT and flow.protocol in (_TCP, _UDP):
        return _free(f"{flow.address} is the gate's DNS")
    for rule in ruleset.host:
        if rule.service.covers(flow.protocol, flow.port):
            return Verdict(
                True, Layer.LOCAL, rule.origin, Identity.IP, f"{flow.address} is the host, and {rule.origin} opens it"
            )
    why = f"{flow.address} is the host, of which only ports in firewall.host_access are open"
    return Verdict(False, Layer.LOCAL, None, Identity.NONE, why)


def _free(why: str) -> Verdict:
    return Verdict(True, Layer.LOCAL, None, Identity.NONE, f"{why}, which is always reachable")


def _dns_port(flow: Flow) -> Verdict:
    target = flow.name or str(flow.address)
    why = f"the gate itself answers queries to port 53, whichever server they name: nothing reaches {target}"
    return Verdict(False, Layer.DNS, None, Identity.NONE, why)


def _allowed(layer: Layer, way: _Way, why: str) -> Verdict:
    return Verdict(True, layer, way.origin, Identity.IP, why)


def _denied(flow: Flow, layer: Layer, nearest: Origin | None, why: str) -> Verdict:
    # The language is loaded for the first denial, not by everyone who imports the package.
    from netpolicy.policy.suggestion import suggestion

    return Verdict(False, layer, nearest, Identity.NONE, why, suggestion(flow))


def _service(flow: Flow) -> str:
    return str(Service(flow.protocol, flow.port or 0, flow.port or 0))
