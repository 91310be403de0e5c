"""What happens to one flow: `decide`. Pure and total; a packet meets the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from netpolicy.addresses import plain, unroutable
from netpolicy.flow import PROTOCOLS, Flow, Identity, Layer, Origin, Verdict, protocol_name
from netpolicy.services import Service

if TYPE_CHECKING:
    from netpolicy.attachment import Attachment
    from netpolicy.ruleset import Learned, Ruleset

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
        return _by_name(ruleset, flow, flow.name, tuple(learned))
    return _by_address(ruleset, flow, learned)


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
    ways = [_Way(rule.services, rule.origin) for rule in ruleset.by_name.get(name, ())]
    if not ways:
        why = f"no rule names {name}, so the gate answers that it does not exist"
        return _denied(flow, Layer.DNS, None, why)
    way = _open(ways, flow)
    if way is not None:
        return _allowed(Layer.DNS, way, f"{way.origin} allows {flow}")
    addresses = dict.fromkeys(entry.address for entry in learned if entry.name == name)
    found = [_by_address(ruleset, Flow(flow.protocol, flow.port, None, address), learned) for address in addresses]
    if found and all(verdict.allowed for verdict in found):
        return replace(found[0], explanation=f"{found[0].explanation}, and {name} resolves to nothing else")
    return _closed(flow, ways)


def _by_address(ruleset: Ruleset, flow: Flow, learned: Iterable[Learned]) -> Verdict:
    assert flow.address is not None
    ways = [
        _Way(rule.services, rule.origin, f"lies in {rule.network}") for rule in ruleset.by_prefix.around(flow.address)
    ]
    ways += _learned(ruleset, flow, learned)
    way = _open(ways, flow)
    if way is not None:
        return _allowed(
            Layer.ADDRESS, way, f"{flow.address} {way.through}, and {way.origin} allows {_service(flow)} there"
        )
    if ways:
        return _closed(flow, ways)
    return _denied(
        flow,
        Layer.ADDRESS,
        None,
        f"no rule has the address {flow.address}; it opens only while an allowed name resolves to it",
    )


def _learned(ruleset: Ruleset, flow: Flow, learned: Iterable[Learned]) -> Iterator[_Way]:
    for entry in learned:
        if entry.address == flow.address:
            rules = ruleset.by_name.get(entry.name, ())
            covering = (r.origin for r in rules if any(s.covers(flow.protocol, flow.port) for s in r.services))
            origin = next(covering, rules[0].origin if rules else Origin("dns", "learned", entry.name))
            yield _Way(entry.services, origin, f"is an address of {entry.name}")


def _open(ways: Iterable[_Way], flow: Flow) -> _Way | None:
    return next((way for way in ways if any(s.covers(flow.protocol, flow.port) for s in way.services)), None)


def _closed(flow: Flow, ways: list[_Way]) -> Verdict:
    """The target is known, but not with this service: the nearest rule is one with the protocol, where there is one."""
    same = [way for way in ways if any(s.protocol == flow.protocol for s in way.services)]
    opened = ", ".join(dict.fromkeys(str(service) for way in ways for service in way.services))
    target = flow.name or str(flow.address)
    if same:
        why = f"{target} is allowed, but not at this port, only with {opened}"
        return _denied(flow, Layer.PORT, same[0].origin, why)
    why = f"{target} is allowed, but not with {protocol_name(flow.protocol)}, only with {opened}"
    return _denied(flow, Layer.PROTOCOL, ways[0].origin, why)


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
