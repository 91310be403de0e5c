"""The table that all attachments share: base chains, dispatch by interface, and the lock for interfaces with our prefix.

::

    from         iifname -> src_ID,                   else "<prefix>*": forged senders dropped
    forward      iifname -> out_ID, oifname -> in_ID, else "<prefix>*": refused
    input        iifname -> host_ID,                  else "<prefix>*": refused
    prerouting   iifname -> dns_ID
    postrouting  iifname -> nat_ID

The maps find an attachment's chain in one step, however many there are, and their chains never come back. So what reaches
the rules for the prefix has no attachment. Packets of other interfaces pass untouched (policy accept), and what we accept
still meets the chains of others: priority -1 is before theirs, and an accept ends only our own chain.

A refusal is a packet too, and it carries bytes of what it refuses. Sent to a forged sender it would carry them anywhere, so
nobody is answered but along the way the packet came. The kernel refuses by itself, too: a hop limit that ran out, a fragment
whose rest never comes. So forged senders are dropped before anything else looks at a packet, reassembly included.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

from netpolicy.flow import PORTED
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables.expressions import Meta, State
from netpolicy.kernel.nftables.messages import Hook, SetFlag, Table, Type, element
from netpolicy.kernel.nftables.noting import PORTED_SET

#: Before fragments are put together (-400).
SENDER_PRIORITY: Final = -450
FILTER_PRIORITY: Final = -1
#: Before Docker's (-100 and 100), so that the first translation of a connection is ours.
DNS_PRIORITY: Final = -110
NAT_PRIORITY: Final = 90

#: The chains that every attachment shares.
BASES: Final = ("from", "forward", "input", "prerouting", "postrouting")
SHARED: Final = ("refuse", "pass", "neighbours", "refuse_own", "pass_own")

#: Map of interface names -> prefix of the names of the chains it leads to.
MAPS: Final = {
    "senders": "src_",
    "outbound": "out_",
    "inbound": "in_",
    "to_host": "host_",
    "dns": "dns_",
    "source_nat": "nat_",
}

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
#: Router and neighbour discovery of the workload: solicitation and advertisement of neighbours (RFC 4861).
_NEIGHBOURS: Final = (135, 136)
#: Senders of neighbour discovery, to whom nothing is ever sent beyond the link.
ON_LINK: Final = (ip_network("fe80::/10"), ip_network("::/128"))


def install(table: Table, prefix: str | None, *, owned: bool = True, can_look_back: bool = True) -> list[Message]:
    """The messages that make all of it, or put the shared rules in order where it exists.

    Args:
        table: Ours.
        prefix: Of the interfaces that are locked while no policy is attached to them; None locks none.
        owned: Whether the kernel lets us own the table, so that nobody else changes it while we run.
        can_look_back: Whether the kernel can look up the way back to a sender (``nft_fib``). Without it, interfaces that are
            locked by their prefix are met with silence; attachments know the senders they have.
    """
    messages = [
        table.add(owned=owned),
        table.add_base_chain("from", Hook.PREROUTING, SENDER_PRIORITY),
        table.add_base_chain("forward", Hook.FORWARD, FILTER_PRIORITY),
        table.add_base_chain("input", Hook.INPUT, FILTER_PRIORITY),
        table.add_base_chain("prerouting", Hook.PREROUTING, DNS_PRIORITY, "nat"),
        table.add_base_chain("postrouting", Hook.POSTROUTING, NAT_PRIORITY, "nat"),
    ]
    messages += [table.add_chain(name) for name in SHARED]
    messages += [table.add_set(name, SetFlag.MAP, Type.IFNAME, 16, verdicts=True) for name in MAPS]
    messages += [table.add_set(PORTED_SET, 0, Type.PROTOCOL, 1), table.drain(PORTED_SET)]
    messages += table.add_elements(PORTED_SET, [element(bytes([number])) for number in sorted(PORTED)])
    messages += [table.flush(name) for name in (*BASES, *SHARED)]

    def add(chain: str, *expressions: bytes | tuple[bytes, ...], comment: str = "") -> None:
        messages.append(table.add_rule(chain, *expressions, comment=comment))

    lock = "no policy attached"
    refuse = e.goto("refuse") if can_look_back else e.drop()
    add("from", e.meta(Meta.IIFNAME), e.dispatch("senders"))
    if prefix is not None:
        forged = e.route_back_missing() if can_look_back else ()
        locked = e.interface_begins(Meta.IIFNAME, prefix)
        add("from", locked, e.family_is(4), forged, e.drop(), comment=lock)
        add("from", locked, e.family_is(6), e.load_source(6), e.not_in(ON_LINK), forged, e.drop(), comment=lock)
    add("forward", e.meta(Meta.IIFNAME), e.dispatch("outbound"))
    add("forward", e.meta(Meta.OIFNAME), e.dispatch("inbound"))
    add("input", e.meta(Meta.IIFNAME), e.dispatch("to_host"))
    if prefix is not None:
        add("forward", e.interface_begins(Meta.IIFNAME, prefix), refuse, comment=lock)
        add("forward", e.interface_begins(Meta.OIFNAME, prefix), refuse, comment=lock)
        add("input", e.interface_begins(Meta.IIFNAME, prefix), e.goto("neighbours"), comment=lock)
    add("prerouting", e.meta(Meta.IIFNAME), e.dispatch("dns"))
    add("postrouting", e.meta(Meta.IIFNAME), e.dispatch("source_nat"))

    if can_look_back:
        add("refuse", e.route_back_missing(), e.drop())
    add("refuse", e.protocol_is(TCP), e.reset())
    add("refuse", e.prohibit())

    # What an attachment's policy allows: not into another attachment, and only what a connection can be tracked for
    # (an invalid packet would leave without source NAT).
    add("pass", e.meta(Meta.OIFNAME), e.dispatch("inbound"))
    if prefix is not None:
        add("pass", e.interface_begins(Meta.OIFNAME, prefix), e.goto("refuse"))
    add("pass", e.state(State.NEW, State.UNTRACKED), e.accept())
    add("pass", e.drop())

    # At the output hook nobody's sender is forged, and there is no way back to look up.
    add("refuse_own", e.protocol_is(TCP), e.reset())
    add("refuse_own", e.prohibit())
    add("pass_own", e.state(State.NEW, State.UNTRACKED), e.accept())
    add("pass_own", e.drop())

    # Without neighbour discovery not even a refusal would reach a workload with IPv6.
    for kind in _NEIGHBOURS:
        add("neighbours", icmpv6_type(kind), e.accept())
    add("neighbours", refuse)
    return messages


def icmpv6_type(kind: int) -> tuple[bytes, ...]:
    """ICMPv6 of one type."""
    return *e.family_is(6), *e.protocol_is(ICMPV6), e.payload(2, 0, 1), e.compare(bytes([kind]))
