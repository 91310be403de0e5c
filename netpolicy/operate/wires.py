"""Ports of a bridge that lead out of this machine. What leaves by them is switched, not routed, so that no rule at its interface sees it."""

from __future__ import annotations

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.kernel.links import Links

#: Kinds of links at whose other end is a namespace or a virtual machine of this host.
_INSIDE = frozenset(("veth", "tun", "dummy", "nlmon", "ifb"))


def doubts(attachment: Attachment) -> tuple[str, ...]:
    """One sentence for each such port."""
    if attachment.hook == "output":
        return ()
    try:
        with Links() as links:
            found = links.ports(attachment.interface)
    except UserError:
        return ()  # the interface has gone meanwhile
    return tuple(told(attachment.interface, port, kind) for port, kind in sorted(found.items()) if kind not in _INSIDE)


def told(bridge: str, port: str, kind: str | None) -> str:
    """What is wrong with it."""
    return (
        f"{bridge}: its port {port} ({kind or 'hardware'}) leads out of this machine beside the firewall: whoever is on that wire is a "
        f"neighbour, and a router there is a way out. Take it out of the bridge: 'ip link set {port} nomaster'"
    )
