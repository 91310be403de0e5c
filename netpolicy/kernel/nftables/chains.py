"""One attachment's rules: what a `Ruleset` looks like in the kernel. Pure: it makes messages and sends none.

Chains (ID is the attachment's id): ``src_ID`` whatever comes from it, ``out_ID`` forwarded from it, ``in_ID`` forwarded to it, ``host_ID`` to the host itself,
``dns_ID`` redirects DNS queries, ``nat_ID`` translates sources. All are rewritten in place in one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables import learning
from netpolicy.kernel.nftables.expressions import Cmp, Meta, State
from netpolicy.kernel.nftables.layout import ICMP, ICMPV6, MAPS, ON_LINK, TCP, UDP, icmpv6_type
from netpolicy.kernel.nftables.messages import Table, element
from netpolicy.kernel.nftables.ranges import name_of
from netpolicy.ruleset import Network, Ruleset
from netpolicy.services import Service

Expressions = tuple[bytes, ...]
_REPLIES: Final = e.state(State.ESTABLISHED)
_FAMILIES: Final = (4, 6)
#: ICMPv6 to the host that is neither allowed nor worth counting: multicast listeners, router solicitation and -advertisement, redirect.
_LINK_NOISE: Final = (130, 131, 132, 133, 134, 137, 143)


def check(attachment: Attachment) -> None:
    """Refuse what cannot name kernel objects.

    Raises:
        UserError: ``bad-attachment``.
    """
    interface = attachment.interface
    if not re.fullmatch("[a-z0-9]{1,16}", attachment.id):
        problem = f"the id {attachment.id!r} is not 1 to 16 lower-case letters and digits"
    elif not 1 <= len(interface.encode()) <= 15 or re.search(r"[/\s]", interface):
        problem = f"{interface!r} is not an interface name (1 to 15 bytes, no slash, no space)"
    elif len({gateway.version for gateway in attachment.gateways}) < len(attachment.gateways):
        problem = "it has more than one gateway address in a family"
    else:
        return
    raise UserError("bad-attachment", f"cannot attach {attachment.name!r}: {problem}", exit_status=Exit.BAD_INPUT)


def counter_of(attachment_id: str) -> str:
    """The counter of what the workload was refused."""
    return f"refused_{attachment_id}"


def mark_of(comment: str) -> str:
    """What `Writer.mark` wrote, out of the first rule's comment."""
    return comment.partition(" | ")[0]


def ruleset_of(comment: str) -> str | None:
    """The ruleset's id in the first rule's comment; None in a locked attachment's."""
    words = mark_of(comment).split()
    return words[1] if words[:1] == ["ruleset"] else None


@dataclass(frozen=True)
class Writer:
    """Writes the chains of one attachment."""

    table: Table
    attachment: Attachment

    @property
    def counter(self) -> str:
        """See `counter_of`."""
        return counter_of(self.attachment.id)

    def chain(self, prefix: str) -> str:
        """The full name of one of its chains."""
        return f"{prefix}{self.attachment.id}"

    def create(self) -> list[Message]:
        """Its chains and its counter; what exists stays."""
        chains = [self.table.add_chain(self.chain(prefix)) for prefix in MAPS.values()]
        return [*chains, self.table.add_counter(self.counter)]

    def lock(self) -> list[Message]:
        """Rules that refuse everything, and dispatch to them."""
        rules = [
            *self._foreign_sources("src_", ON_LINK),
            *self._foreign_sources("out_"),
            *self._neighbour_rules(),
            *self._foreign_sources("host_"),
            self._rule("out_", *self._refuse(), comment=self._comment("locked")),
            self._rule("in_", e.goto("refuse")),
            self._rule("host_", *self._refuse()),
        ]
        return [*self._flush(), *rules, *self._dispatch(("senders", "outbound", "inbound", "to_host"))]

    def enforce(self, ruleset: Ruleset, dns_port: int | None) -> list[Message]:
        """Rules for a ruleset, and dispatch to them."""
        rules = [
            *self._foreign_sources("src_", ON_LINK),
            *self._out(ruleset, dns_port),
            *self._in(),
            *self._host(ruleset, dns_port),
            *self._nat(),
        ]
        if dns_port is not None:
            rules += self._dns(dns_port)
        return [*self._flush(), *rules, *self._dispatch(tuple(MAPS))]

    def mark(self, ruleset: Ruleset, dns_port: int | None) -> str:
        """What the first rule's comment says of the ruleset in force."""
        return f"ruleset {ruleset.id} {ruleset.mode} dns {dns_port or 0}"

    def _out(self, ruleset: Ruleset, dns_port: int | None) -> Iterator[Message]:
        yield self._rule(
            "out_",
            e.interface_is(Meta.OIFNAME, self.attachment.interface),
            e.accept(),
            comment=self._comment(self.mark(ruleset, dns_port)),
        )
        yield from self._foreign_sources("out_")
        yield from self._replies("out_")
        if ruleset.mode == "off":
            yield self._rule("out_", e.goto("pass"), comment="the policy is off")
            return
        for slot in learning.slots(ruleset):
            for protocol in learning.single_protocols(ruleset) if slot.service is None else (None,):
                yield self._rule("out_", *_slot_match(slot, protocol, self.attachment.id), e.goto("pass"))
        for group in ruleset.groups:
            look = e.load_destination(group.version), e.lookup(name_of(group.spans))
            for service in group.services:
                match = (*e.family_is(group.version), *_service(service), *look)
                yield self._rule("out_", *match, e.goto("pass"))
        yield self._rule("out_", *self._refuse())

    def _in(self) -> Iterator[Message]:
        yield from self._replies("in_")
        if self.attachment.published:
            yield self._rule("in_", *e.translated(), e.accept())
        yield self._rule("in_", e.goto("refuse"))

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
                yield self._rule("host_", *to_gateway, *_service(service), e.accept())
        # Broadcast and multicast are nobody's attempt to reach something; no answer is sent to them anyway.
        yield self._rule("host_", e.meta(Meta.PKTTYPE), e.compare(b"\0", Cmp.NEQ), e.drop())
        yield self._rule("host_", *self._refuse())

    def _dns(self, port: int) -> Iterator[Message]:
        """Queries to the gateway or to anything outside; another name server in the own network is the workload's own business."""
        for gateway in self.attachment.gateways:
            version = gateway.version
            inside = self._networks(version)
            for protocol in (UDP, TCP):
                query = (*e.family_is(version), *_service(Service(protocol, 53, 53)), e.load_destination(version))
                target = e.redirect_to(gateway, port)
                yield self._rule("dns_", *query, *e.not_in(inside), *target)
                yield self._rule("dns_", *query, e.compare(gateway.packed), *target)

    def _nat(self) -> Iterator[Message]:
        for version in _FAMILIES:
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
        for version in _FAMILIES:
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

    def _refuse(self) -> Expressions:
        return e.count(self.counter), e.goto("refuse")

    def _networks(self, version: int) -> tuple[Network, ...]:
        return tuple(n for n in self.attachment.networks if n.version == version)

    def _rule(self, prefix: str, *expressions: bytes | tuple[bytes, ...], comment: str = "") -> Message:
        return self.table.add_rule(self.chain(prefix), *expressions, comment=comment)

    def _comment(self, state: str) -> str:
        return f"{state} | {self.attachment.name}"

    def _flush(self) -> list[Message]:
        return [self.table.flush(self.chain(prefix)) for prefix in MAPS.values()]

    def _dispatch(self, maps: tuple[str, ...]) -> Iterator[Message]:
        for name in maps:
            yield from self.table.add_elements(name, [self.dispatch_element(name)])

    def dispatch_element(self, name: str, interface: str | None = None) -> bytes:
        """The element of a dispatch map that leads from the interface to our chain."""
        target = e.verdict_data(e.Verdict.GOTO, self.chain(MAPS[name]))
        return element(e.interface_key(interface or self.attachment.interface), a.nest(2, target))


def _slot_match(slot: learning.Slot, protocol: int | None, attachment_id: str) -> Expressions:
    words = 1 if slot.version == 4 else 4
    head = e.family_is(slot.version)
    look = e.lookup(slot.name(attachment_id))
    if slot.service is not None:
        return (*head, *_service(slot.service), e.load_destination(slot.version), look)
    assert protocol is not None
    port = e.R + words + 1
    return (
        *head,
        *e.protocol_is(protocol),
        e.load_destination(slot.version),
        e.meta(Meta.L4PROTO, e.R + words),
        e.payload(2, 2, 2, port),
        look,
    )


def _service(service: Service) -> Expressions:
    if not learning.has_port(service):
        return e.protocol_is(service.protocol)
    return (*e.protocol_is(service.protocol), *e.port_between(service.first, service.last))
