"""What happens to one flow: `decide`. Pure and total; a packet meets the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from netpolicy.addresses import plain
from netpolicy.fates import DNS, DNS_PORT, DNS_PROTOCOLS, Fate, Kind
from netpolicy.flow import Address, Flow, Identity, Layer, Origin, Verdict
from netpolicy.places import SELF, OpenedByName, Place

if TYPE_CHECKING:
    from netpolicy.attachment import Attachment
    from netpolicy.ruleset import Learned, Ruleset


def decide(
    ruleset: Ruleset,
    flow: Flow,
    learned: Iterable[Learned] = (),
    *,
    attachment: Attachment | None = None,
) -> Verdict:
    """Judge one flow.

    Args:
        ruleset: The rules in force, as they are: of one with rules that end, `Ruleset.at` is what is in force at a moment.
        flow: The connection attempt. A name is judged as the DNS gate judges it; an address as the packet filter does.
        learned: The addresses that the DNS gate has opened so far.
        attachment: Where the workload stands, if known: its own network is free, its gateways are the host.
    """
    address = flow.address
    places = ruleset.places
    place = places.named(_spelled(flow.name)) if address is None else places.holding(address)
    if attachment is not None and address is not None:
        attached = _attached(ruleset, flow, place, attachment)
        if attached is not None:
            return attached
    if learned:
        return _with_learned(ruleset, flow, place, tuple(learned))
    return _verdict(ruleset, place, place.table.fate(flow.protocol, flow.port), flow)


def _verdict(ruleset: Ruleset, place: Place, fate: Fate, flow: Flow) -> Verdict:
    origin = None if fate.rule is None else place.rules[fate.rule].origin
    identity = Identity.IP if fate.kind is Kind.OPENED else Identity.NONE
    return Verdict.told_later(fate.allowed, fate.layer, origin, identity, partial(_tell, ruleset, place, fate, flow))


def _tell(ruleset: Ruleset, place: Place, fate: Fate, flow: Flow) -> tuple[str, str | None]:
    from netpolicy.telling import tell

    return tell(ruleset, place, fate, normal(flow))


def normal(flow: Flow) -> Flow:
    """The flow with its target in canonical spelling: a name as DNS reads it, an address as a packet carries it."""
    if flow.address is not None:
        return replace(flow, address=plain(flow.address))
    return replace(flow, name=_spelled(flow.name))


def _spelled(name: str | None) -> str:
    return (name or "").lower().removesuffix(".")


def _with_learned(ruleset: Ruleset, flow: Flow, place: Place, learned: tuple[Learned, ...]) -> Verdict:
    flow = normal(flow)
    if flow.address is not None:
        return _verdict(ruleset, *_at_learned(ruleset, flow, place, learned), flow)
    fate = place.table.fate(flow.protocol, flow.port)
    verdict = _verdict(ruleset, place, fate, flow)
    if place.settled or fate is DNS or not place.table.known:
        return verdict
    # Packets carry addresses, not the name: where all that it resolves to agrees, that decides.
    unanimous = _REFUSED if fate.kind is Kind.OPENED else _OPENED
    addresses = dict.fromkeys(plain(entry.address) for entry in learned if entry.name == flow.name)
    found: list[Verdict] = []
    for address in addresses:
        there = Flow(flow.protocol, flow.port, None, address)
        place, fate = _at_learned(ruleset, there, ruleset.places.holding(address), learned)
        if fate.kind not in unanimous:
            return verdict
        found.append(_verdict(ruleset, place, fate, there))
    if not found:
        return verdict
    return replace(found[0], explanation=f"{found[0].explanation}, and {flow.name} resolves to nothing else")


_OPENED = (Kind.OPENED,)
_REFUSED = (Kind.DENIED, Kind.IPV6)


def _at_learned(ruleset: Ruleset, flow: Flow, place: Place, learned: tuple[Learned, ...]) -> tuple[Place, Fate]:
    """The place and the fate of a flow to an address that names may resolve to."""
    ways = [_by_name(ruleset, entry, flow) for entry in learned if entry.address == flow.address]
    place = ruleset.places.learned(place, ways)
    return place, place.table.fate(flow.protocol, flow.port)


def _by_name(ruleset: Ruleset, entry: Learned, flow: Flow) -> OpenedByName:
    """What an address of a name opens, with the rule to name for it."""
    rules = ruleset.rules_for(entry.name)
    covering = (r.origin for r in rules if any(s.covers(flow.protocol, flow.port) for s in r.services))
    origin = next(covering, rules[0].origin if rules else Origin("dns", "learned", entry.name))
    return OpenedByName(entry.name, entry.services, origin)


def _attached(ruleset: Ruleset, flow: Flow, place: Place, attachment: Attachment) -> Verdict | None:
    """What never leaves the workload's own network, and what is the host's."""
    flow = normal(flow)
    address = flow.address
    assert address is not None
    query = flow.port == DNS_PORT and flow.protocol in DNS_PROTOCOLS
    if query and attachment.hook == "output" and ruleset.mode != "off":
        # The namespace's own packets are turned to the gate before anything looks at where they go.
        return _verdict(ruleset, place, DNS, flow)
    if place is SELF:
        return None
    if address in attachment.gateways:
        return _free(f"{address} is the gate's DNS") if query else _host(ruleset, flow, address)
    if any(address in network for network in attachment.networks):
        return _free(f"{address} is in the workload's own network")
    return None


def _host(ruleset: Ruleset, flow: Flow, address: Address) -> Verdict:
    for rule in ruleset.host:
        if rule.service.covers(flow.protocol, flow.port):
            why = f"{address} is the host, and {rule.origin} opens it"
            return Verdict(True, Layer.LOCAL, rule.origin, Identity.IP, why)
    why = f"{address} is the host, of which only ports in firewall.host_access are open"
    return Verdict(False, Layer.LOCAL, None, Identity.NONE, why)


def _free(why: str) -> Verdict:
    return Verdict(True, Layer.LOCAL, None, Identity.NONE, f"{why}, which is always reachable")
