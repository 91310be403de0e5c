"""Which tracked connections of an attachment are cut when its policy changes.

An established connection passes whatever the rules say, so a withdrawn rule needs its connections cut. Those that the new
ruleset allows are left alone; for names that means all addresses ever learned for them while we ran, because a long
connection outlives the lifetime of the answer it was opened with.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

from netpolicy import spans
from netpolicy.attachment import Attachment
from netpolicy.flow import Address
from netpolicy.kernel import conntrack
from netpolicy.kernel.conntrack import Entry
from netpolicy.kernel.netlink import Netlink
from netpolicy.ruleset import RangeGroup, Ruleset
from netpolicy.services import Service

_REMEMBERED = 65536
_DNS_PORT = 53


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

    def withdraw(self, kept: Callable[[str], bool], moment: float, families: Container[int] = (4, 6)) -> None:
        """End the lives of all names that are not kept, and in all other families: what is taken away does not come back."""
        for address, lives in self._names.items():
            for name, until in lives.items():
                if until > moment and not (address.version in families and kept(name)):
                    lives[name] = moment

    def ever(self, address: Address) -> Iterable[str]:
        """All names the address was learned for."""
        return tuple(self._names.get(address, {}))

    def now(self, address: Address, moment: float) -> frozenset[str]:
        """The names the address is learned for at this moment."""
        return frozenset(name for name, until in self._names.get(address, {}).items() if until > moment)

    def alive(self, moment: float) -> dict[Address, dict[str, float]]:
        """All addresses that are learned at this moment: the names of each, with the seconds left."""
        found: dict[Address, dict[str, float]] = {}
        for address, lives in self._names.items():
            left = {name: until - moment for name, until in lives.items() if until > moment}
            if left:
                found[address] = left
        return found


#: Called with the connections that are about to be cut.
Bar = Callable[[Attachment, Sequence[Entry]], None]


def kept_families(ruleset: Ruleset) -> tuple[int, ...]:
    """The families whose learned addresses a ruleset keeps; with a policy that is off nothing is learned, and nothing kept."""
    if ruleset.mode == "off":
        return ()
    return (4, 6) if ruleset.ipv6 else (4,)


def cut_all(link: Netlink, attachment: Attachment, own: Container[bytes] = frozenset(), bar: Bar | None = None) -> int:
    """Cut every connection of the attachment's workload; returns how many.

    Args:
        link: A socket of the namespace in which the rules stand.
        attachment: Whose connections.
        own: At the output hook: the namespace's own addresses, packed (`netpolicy.kernel.own`).
        bar: Called before connections are cut.
    """
    inside = _Inside(attachment)

    def concerned(entry: Entry) -> bool:
        if attachment.hook == "output":
            return not (entry.original.source in own and entry.reply.source in own)
        ends = (entry.original.source, entry.original.destination, entry.reply.source, entry.reply.destination)
        return any(end in inside for end in ends)

    return _cut(link, attachment, concerned, bar)


def cut_withdrawn(
    link: Netlink,
    attachment: Attachment,
    ruleset: Ruleset,
    dns_port: int | None,
    memory: Memory,
    own: Container[bytes] = frozenset(),
    bar: Bar | None = None,
) -> int:
    """Cut the connections the workload opened that it could not open now; returns how many.

    Args:
        link: A socket of the namespace in which the rules stand.
        attachment: Whose connections.
        ruleset: What is in force, without what has ended.
        dns_port: Where its DNS gate listens.
        memory: What was learned while we ran.
        own: As with `cut_all`.
        bar: As with `cut_all`.
    """
    inside = _Inside(attachment)
    gateways = {gateway.packed for gateway in attachment.gateways}
    judge = _Judge(ruleset, memory)
    host = {rule.service for rule in ruleset.host}

    def allowed(entry: Entry) -> bool:
        asked = entry.original
        if entry.reply.source in gateways:
            dns = dns_port is not None and entry.reply.source_port == dns_port
            return dns or any(service.covers(asked.protocol, asked.port) for service in host)
        if asked.destination in inside or ruleset.mode == "off":
            return True
        # A query that was not redirected when it began.
        query = dns_port is not None and asked.port == _DNS_PORT and asked.protocol in (6, 17)
        return not query and judge.allows(asked)

    def opened(entry: Entry) -> bool:
        if attachment.hook == "output":
            return entry.reply.source not in own  # else it came in, or never left
        return entry.original.source in inside and entry.original.source not in gateways

    def came_in(entry: Entry) -> bool:
        """By a translation that was allowed to bring it in before."""
        translated = entry.original.destination != entry.reply.source
        return translated and entry.reply.source in inside and entry.original.source not in inside

    closed = attachment.hook == "forward" and not attachment.published

    def withdrawn(entry: Entry) -> bool:
        return (opened(entry) and not allowed(entry)) or (closed and came_in(entry))

    return _cut(link, attachment, withdrawn, bar)


def _cut(link: Netlink, attachment: Attachment, wanted: Callable[[Entry], bool], bar: Bar | None) -> int:
    if conntrack.count(link) == 0:
        return 0  # to walk the empty table takes the kernel milliseconds
    # A host tracks thousands, and of most of them nobody inside is an end.
    doomed = conntrack.entries(link, wanted, _beginnings(attachment) if attachment.hook == "forward" else ())
    if bar is not None and doomed:
        bar(attachment, doomed)
    return conntrack.delete(link, doomed)


def _beginnings(attachment: Attachment) -> list[bytes]:
    """The bytes with which the addresses of its networks begin; nothing where they say nothing."""
    found = [network.network_address.packed[: network.prefixlen // 8] for network in attachment.networks]
    return found if all(found) else []


class _Judge:
    """What a ruleset says of connections to elsewhere; the same as `decide`, with all that was ever learned."""

    def __init__(self, ruleset: Ruleset, memory: Memory) -> None:
        self._ruleset = ruleset
        self._memory = memory
        self._services: dict[str, tuple[Service, ...]] = {}

    def allows(self, asked: conntrack.Tuple) -> bool:
        """Whether a connection could be opened."""
        ruleset = self._ruleset
        if ruleset.mode != "enforce":
            return True
        version = 4 if len(asked.destination) == 4 else 6
        if version == 6 and not ruleset.ipv6:
            return False
        if _in_groups(ruleset.denied_groups, version, asked):
            return False
        if _in_groups(ruleset.groups, version, asked):
            return True
        if not ruleset.admits(asked.destination_address):
            return False  # the range is gone that was the owner's word for names to resolve there
        return any(_covers(self._of(name), asked) for name in self._memory.ever(asked.destination_address))

    def _of(self, name: str) -> tuple[Service, ...]:
        if name not in self._services:
            self._services[name] = self._ruleset.services_of(name)
        return self._services[name]


def _in_groups(groups: Iterable[RangeGroup], version: int, asked: conntrack.Tuple) -> bool:
    number = int.from_bytes(asked.destination, "big")
    return any(g.version == version and _covers(g.services, asked) and number in g.spans for g in groups)


def _covers(services: Iterable[Service], asked: conntrack.Tuple) -> bool:
    return any(service.covers(asked.protocol, asked.port) for service in services)


class _Inside:
    """The addresses of the attachment's own networks, by their packed form."""

    def __init__(self, attachment: Attachment) -> None:
        self._sets = {
            size: spans.of_networks([n for n in attachment.networks if n.version == version], version)
            for size, version in ((4, 4), (16, 6))
        }

    def __contains__(self, packed: bytes) -> bool:
        return int.from_bytes(packed, "big") in self._sets[len(packed)]
