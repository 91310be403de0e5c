"""The rules of an attachment without an interface: the processes of the namespace itself are the workload.

They stand in base chains of their own, which exist while such an attachment does: ``output`` leads to ``out_ID``, ``own_dns`` to
``dns_ID``, ``own_leaving`` to ``wire_ID``, and ``own_input`` to ``in_ID``. That one judges nothing that comes in; it only keeps the far
end of a connection that was cut from making it look like one that came in, to which answers would be free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from netpolicy.addresses import UNROUTABLE
from netpolicy.flow import Address
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import barring
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables.chains import Writer, service_match
from netpolicy.kernel.nftables.expressions import Cmp, Meta, State
from netpolicy.kernel.nftables.layout import DNS_PRIORITY, FILTER_PRIORITY, ICMP, ICMPV6, TCP, UDP, icmpv6_type
from netpolicy.kernel.nftables.messages import Hook, Table
from netpolicy.ruleset import Network, Ruleset
from netpolicy.services import Service

#: Base chain -> hook, priority, kind and the prefix of the chain it leads to.
BASES: Final = {
    "output": (Hook.OUTPUT, FILTER_PRIORITY, "filter", "out_"),
    "own_dns": (Hook.OUTPUT, DNS_PRIORITY, "nat", "dns_"),
    "own_input": (Hook.INPUT, FILTER_PRIORITY, "filter", "in_"),
    "own_leaving": (Hook.POSTROUTING, FILTER_PRIORITY, "filter", "wire_"),
}
LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))
_LOOPBACK_NETWORKS: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
#: What never leaves the link, and is no policy's business: groups, everybody, neighbours without an address.
_LINK: Final = tuple(block for block in UNROUTABLE if block not in _LOOPBACK_NETWORKS)
#: Neighbours, routers and the multicast groups in which they are found: solicitations and advertisements of the link.
_DISCOVERY: Final = (131, 132, 133, 135, 136, 143)


class Output(Writer):
    """Writes the chains of the attachment of a namespace's own processes."""

    PREFIXES = ("out_", "dns_", "in_", "wire_", "host_", "no_", "note_")
    PASS = "pass_own"
    REFUSE = "refuse_own"

    def create(self) -> list[Message]:
        """See `Writer.create`; also the base chains."""
        bases = [self.table.add_base_chain(name, hook, at, kind) for name, (hook, at, kind, _) in BASES.items()]
        return [*bases, *super().create(), *barring.add_sets(self.table, self.attachment.id)]

    def _flush(self) -> list[Message]:
        return [*(self.table.flush(name) for name in BASES), *super()._flush()]

    def _dispatch(self, *, locked: bool) -> Iterator[Message]:
        for name, (_, _, _, prefix) in BASES.items():
            if not (locked and name == "own_dns"):
                # The comment says whose it is; there is one such attachment in a namespace.
                yield self.table.add_rule(name, e.goto(self.chain(prefix)), comment=self.attachment.id)

    def _locked(self) -> Iterator[Message]:
        yield from self._local("")
        yield self._rule("out_", e.goto(self.chain("no_")), comment=self._comment("locked"))
        yield from self._arriving()
        yield from self._leaving()

    def _enforced(self, ruleset: Ruleset, marked: str, dns_port: int | None) -> Iterator[Message]:
        yield from self._local(self._comment(marked))
        services = sorted({rule.service for rule in ruleset.host})
        for gateway in self.attachment.gateways:
            for service in services:
                yield self._rule("out_", *_to(gateway), *service_match(service), e.accept(), comment="the host")
        yield self._rule("out_", *e.state(State.ESTABLISHED), e.accept())
        for number in (ICMP, ICMPV6):
            yield self._rule("out_", *e.state(State.RELATED), *e.protocol_is(number), e.accept())
        # How somebody else's rules refuse what comes in, or is forwarded; a helper's expected connection opens otherwise.
        reset = *e.protocol_is(TCP), e.payload(2, 13, 1), e.mask(b"\x04"), e.compare(b"\0", Cmp.NEQ)
        yield self._rule("out_", *e.state(State.RELATED), *reset, e.accept())
        for gateway in self.attachment.gateways:
            yield self._rule("out_", *_to(gateway), e.goto(self.chain("host_")))
        for network in self.attachment.networks:
            yield self._rule("out_", *_inside(network), e.accept())
        for block in _LINK:
            yield self._rule("out_", *_inside(block), e.goto(self.chain("host_")))
        yield from self._judge(ruleset)
        yield from self._refuse("host_")
        yield from self._arriving()
        yield from self._leaving()
        if dns_port is not None:
            yield from self._dns(dns_port)

    def _dns(self, port: int) -> Iterator[Message]:
        """Queries to anybody, also to name servers in free networks: what these forward would leave in the queries' names."""
        for address in LOOPBACK:
            for protocol in (UDP, TCP):
                query = (*e.family_is(address.version), *service_match(Service(protocol, 53, 53)))
                yield self._rule("dns_", *query, *e.redirect_to(address, port))

    def _local(self, comment: str) -> Iterator[Message]:
        """What stays on the machine or the link. A query that was redirected to us still has the interface it was meant for."""
        yield self._rule("out_", e.interface_is(Meta.OIFNAME, "lo"), e.accept(), comment=comment)
        for network in _LOOPBACK_NETWORKS:
            yield self._rule("out_", *_inside(network), e.accept())
        for kind in _DISCOVERY:
            yield self._rule("out_", *icmpv6_type(kind), e.accept())

    def _leaving(self) -> Iterator[Message]:
        """What goes to the loopback is free, but any socket can be bound to another interface: only here it is certain which it is."""
        for network in _LOOPBACK_NETWORKS:
            elsewhere = e.meta(Meta.OIFNAME), e.compare(e.interface_key("lo"), Cmp.NEQ)
            yield self._rule("wire_", *elsewhere, *_inside(network), e.drop())

    def _arriving(self) -> Iterator[Message]:
        """What comes from the far end of a connection that was cut; a segment in the middle of one that is not known is, too."""
        not_opening = e.payload(2, 13, 1), e.mask(b"\x17"), e.compare(b"\x02", Cmp.NEQ)  # FIN, SYN, RST, ACK
        outside = e.meta(Meta.IIFNAME), e.compare(e.interface_key("lo"), Cmp.NEQ)
        new = *outside, *e.state(State.NEW)
        yield self._rule("in_", *new, *e.protocol_is(TCP), *not_opening, e.drop())
        for between in barring.rules(self.attachment.id):
            yield self._rule("in_", *new, *between, e.drop())


def remove(table: Table, present: Iterable[str]) -> Iterator[Message]:
    """The messages that take the base chains away, those that are present."""
    for name in BASES:
        if name in present:
            yield table.flush(name)
            yield table.delete_chain(name)


def _to(gateway: Address) -> tuple[bytes, ...]:
    return *e.family_is(gateway.version), e.load_destination(gateway.version), e.compare(gateway.packed)


def _inside(network: Network) -> tuple[bytes, ...]:
    look = e.load_destination(network.version), e.mask(network.netmask.packed)
    return *e.family_is(network.version), *look, e.compare(network.network_address.packed)
