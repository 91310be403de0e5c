"""The rules of an attachment with an interface: the workload is behind it.

Besides those of `chains`: ``src_ID`` whatever comes from it, ``in_ID`` forwarded to it, ``host_ID`` to the host itself,
``nat_ID`` translates sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables.chains import FAMILIES, Writer, service_match
from netpolicy.kernel.nftables.expressions import Cmp, Meta, State
from netpolicy.kernel.nftables.layout import ICMP, ICMPV6, MAPS, ON_LINK, TCP, UDP, icmpv6_type
from netpolicy.kernel.nftables.messages import element
from netpolicy.ruleset import Network, Ruleset
from netpolicy.services import Service

_REPLIES: Final = e.state(State.ESTABLISHED)
#: ICMPv6 to the host that is neither allowed nor worth counting: multicast listeners, router solicitation and -advertisement, redirect.
_LINK_NOISE: Final = (130, 131, 132, 133, 134, 137, 143)
_LOCKING: Final = ("senders", "outbound", "inbound", "to_host")


class Forward(Writer):
    """Writes the chains of one attachment with an interface."""

    PREFIXES = (*MAPS.values(), "no_", "note_")
    PASS = "pass"
    REFUSE = "refuse"

    def _dispatch(self, *, locked: bool) -> Iterator[Message]:
        for name in _LOCKING if locked else MAPS:
            element_of_ours = dispatch_element(self.attachment.interface, self.chain(MAPS[name]))
            yield from self.table.add_elements(name, [element_of_ours])

    def _locked(self) -> Iterator[Message]:
        yield from self._foreign_sources("src_", ON_LINK)
        yield from self._foreign_sources("out_")
        yield from self._neighbour_rules()
        yield from self._foreign_sources("host_")
        yield self._rule("out_", e.goto(self.chain("no_")), comment=self._comment("locked"))
        yield self._rule("in_", e.goto("refuse"))
        yield from self._refuse("host_")

    def _enforced(self, ruleset: Ruleset, marked: str, dns_port: int | None) -> Iterator[Message]:
        yield from self._foreign_sources("src_", ON_LINK)
        own = e.interface_is(Meta.OIFNAME, self.attachment.interface)
        yield self._rule("out_", own, e.accept(), comment=self._comment(marked))
        yield from self._foreign_sources("out_")
        yield from self._replies("out_")
        yield from self._judge(ruleset)
        yield from self._replies("in_")
        if self.attachment.published:
            yield self._rule("in_", *e.translated(), e.accept())
        yield self._rule("in_", e.goto("refuse"))
        yield from self._host(ruleset, dns_port)
        yield from self._nat()
        if dns_port is not None:
            yield from self._dns(dns_port)

    def _host(self, ruleset: Ruleset, dns_port: int | None) -> Iterator[Message]:
        yield from self._neighbour_rules()
        yield from self._foreign_sources("host_")
        yield from self._replies("host_")
        services = sorted({rule.service for rule in ruleset.host})
        if dns_port is not None:
            services += [Service(TCP, dns_port, dns_port), Service(UDP, dns_port, dns_port)]
        for gateway in self.attachment.gateways:
            to_gateway = (*e.family_is(gateway.version), e.load_destination(gateway.version), e.compare(gateway.packed))
            for service in services:
                yield self._rule("host_", *to_gateway, *service_match(service), e.accept())
        # Broadcast and multicast are nobody's attempt to reach something; no answer is sent to them anyway.
        yield self._rule("host_", e.meta(Meta.PKTTYPE), e.compare(b"\0", Cmp.NEQ), e.drop())
        yield from self._refuse("host_")

    def _dns(self, port: int) -> Iterator[Message]:
        """Queries to the gateway or to anything outside; another name server in the own network is the workload's own business."""
        for gateway in self.attachment.gateways:
            version = gateway.version
            inside = self._networks(version)
            for protocol in (UDP, TCP):
                query = (*e.family_is(version), *service_match(Service(protocol, 53, 53)), e.load_destination(version))
                target = e.redirect_to(gateway, port)
                yield self._rule("dns_", *query, *e.not_in(inside), *target)
                yield self._rule("dns_", *query, e.compare(gateway.packed), *target)

    def _nat(self) -> Iterator[Message]:
        for version in FAMILIES:
            if self._networks(version):
                leaves = (*e.family_is(version), e.meta(Meta.OIFNAME))
                yield self._rule(
                    "nat_", *leaves, e.compare(e.interface_key(self.attachment.interface), Cmp.NEQ), e.masquerade()
                )

    def _neighbour_rules(self) -> Iterator[Message]:
        for kind in (135, 136):
            yield self._rule("host_", *icmpv6_type(kind), e.accept())
        for kind in _LINK_NOISE:
            yield self._rule("host_", *icmpv6_type(kind), e.drop())

    def _foreign_sources(self, chain: str, own: tuple[Network, ...] = ()) -> Iterator[Message]:
        """A forged sender could write into the connections of others, and have a refusal carry bytes to anywhere: silence."""
        for version in FAMILIES:
            outside = e.not_in((*self._networks(version), *(n for n in own if n.version == version)))
            check = (*e.family_is(version), e.load_source(version), *outside)
            yield self._rule(chain, *check, e.count(self.counter), e.drop())

    def _replies(self, chain: str) -> Iterator[Message]:
        yield self._rule(chain, *_REPLIES, e.accept())
        # Only errors about a connection are "related" to it; what protocol helpers expect (FTP) is not let through. And only about
        # one of the workload's own: an error about a connection of the host would carry bytes to whoever that is with.
        for network in self.attachment.networks:
            protocol = ICMP if network.version == 4 else ICMPV6
            error = (*e.state(State.RELATED), *e.protocol_is(protocol), *e.opened_from(network))
            yield self._rule(chain, *error, e.accept())


def dispatch_element(interface: str, chain: str) -> bytes:
    """The element of a dispatch map that leads from the interface to a chain."""
    return element(e.interface_key(interface), a.nest(2, e.verdict_data(e.Verdict.GOTO, chain)))
