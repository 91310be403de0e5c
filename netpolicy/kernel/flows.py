"""Which tracked connections of an attachment are cut when its policy changes.

An established connection passes whatever the rules say, so a withdrawn rule needs its connections cut. Those that the new
ruleset allows are left alone; for names that means all addresses ever learned for them while we ran, because a long
connection outlives the lifetime of the answer it was opened with.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from netpolicy import spans
from netpolicy.attachment import Attachment
from netpolicy.flow import Address
from netpolicy.kernel import conntrack
from netpolicy.kernel.conntrack import Entry
from netpolicy.kernel.netlink import Netlink
from netpolicy.ruleset import Ruleset
from netpolicy.services import Service

_REMEMBERED = 65536


@dataclass
class Memory:
    """The names that each address was learned for and until when, the latest `_REMEMBERED` addresses of an attachment."""

    _names: OrderedDict[Address, dict[str, float]] = field(default_factory=OrderedDict)

    def note(self, address: Address, name: str, until: float) -> None:
        """The address was learned for the name; its element lives until then (seconds of a monotonic clock)."""
        lives = self._names.setdefault(address, {})
        lives[name] = max(until, lives.get(name, until))
        self._names.move_to_end(address)
        if len(self._names) > _REMEMBERED:
            self._names.popitem(last=False)

    def withdraw(self, kept: Container[str], moment: float) -> None:
        """End the lives of all names but these: what is taken away does not come back when the name does."""
        for lives in self._names.values():
            for name, until in lives.items():
                if name not in kept and until > moment:
                    lives[name] = moment

    def ever(self, address: Address) -> Iterable[str]:
        """All names the address was learned for."""
        return tuple(self._names.get(address, {}))

    def now(self, address: Address, moment: float) -> frozenset[str]:
        """The names the address is learned for at this moment."""
        return frozenset(name for name, until in self._names.get(address, {}).items() if until > moment)


def cut_all(link: Netlink, attachment: Attachment) -> int:
    """Cut every connection from or to the attachment's networks; returns how many."""
    inside = _Inside(attachment)

    def concerned(entry: Entry) -> bool:
        ends = (entry.original.source, entry.original.destination, entry.reply.source, entry.reply.destination)
        return any(end in inside for end in ends)

    return conntrack.delete(link, conntrack.entries(link, concerned))


def cut_withdrawn(
    link: Netlink,
    attachment: Attachment,
    ruleset: Ruleset,
    dns_port: int | None,
    memory: Memory,
) -> int:
    """Cut the connections the workload opened that it could not open now; returns how many."""
    inside = _Inside(attachment)
    gateways = {gateway.packed for gateway in attachment.gateways}
    host = {rule.service for rule in ruleset.host}
    services: Mapping[str, tuple[Service, ...]] = {name: ruleset.services_of(name) for name in ruleset.by_name}

    def allowed(entry: Entry) -> bool:
        asked = entry.original
        if entry.reply.source in gateways:
            dns = dns_port is not None and entry.reply.source_port == dns_port
            return dns or any(service.covers(asked.protocol, asked.port) for service in host)
        if asked.destination in inside or ruleset.mode == "off":
            return True
        number, version = int.from_bytes(asked.destination, "big"), 4 if len(asked.destination) == 4 else 6
        for group in ruleset.groups:
            if group.version == version and number in group.spans and _covers(group.services, entry):
                return True
        return any(_covers(services.get(name, ()), entry) for name in memory.ever(asked.destination_address))

    def opened(entry: Entry) -> bool:
        return entry.original.source in inside and entry.original.source not in gateways

    return conntrack.delete(link, conntrack.entries(link, lambda entry: opened(entry) and not allowed(entry)))


def _covers(services: Iterable[Service], entry: Entry) -> bool:
    return any(service.covers(entry.original.protocol, entry.original.port) for service in services)


class _Inside:
    """The addresses of the attachment's own networks, by their packed form."""

    def __init__(self, attachment: Attachment) -> None:
        self._sets = {
            size: spans.of_networks([n for n in attachment.networks if n.version == version], version)
            for size, version in ((4, 4), (16, 6))
        }

    def __contains__(self, packed: bytes) -> bool:
        return int.from_bytes(packed, "big") in self._sets[len(packed)]
