"""The two namespaces of a run: the router's, which holds the gate's rules, and the workload's, which has one way out: to it.

Neither has a name. They exist as long as a process or a descriptor of ours does.
"""

from __future__ import annotations

import contextlib
import os
import socket
from ipaddress import IPv4Network, IPv6Network
from types import TracebackType
from typing import Self

from netpolicy.attachment import Attachment
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.run import networks, wiring

#: The router's end of the wire to the workload. Its beginning is the gate's locked prefix.
PREFIX = "work"
_INTERFACE = PREFIX + "0"
_INSIDE = "eth0"


class Router:
    """Makes both namespaces; a context manager. Nothing is wired before `wire`, nothing passes before the gate says so."""

    def __init__(self, *, one_group: bool) -> None:
        """`one_group`: in a user namespace that knows only one group, as number 0."""
        self._one_group = one_group
        self._networks: tuple[IPv4Network, IPv6Network] = (networks.free_v4(), networks.free_v6())
        self.router = -1
        """A descriptor of the router's namespace."""
        self.workload = -1

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.router = netns.anonymous()
            stack.callback(os.close, self.router)
            self.workload = netns.anonymous()
            stack.callback(os.close, self.workload)
            for namespace in (self.router, self.workload):
                # Nobody else is on these wires: duplicate address detection would only hold back IPv6 for a second.
                netns.set_sysctl(namespace, "net.ipv6.conf.default.accept_dad", 0)
                netns.set_sysctl(namespace, "net.ipv6.conf.default.accept_ra", 0)
            netns.set_sysctl(self.router, "net.ipv4.ip_forward", 1)
            netns.set_sysctl(self.router, "net.ipv6.conf.all.forwarding", 1)
            # What containers have too: ping without CAP_NET_RAW.
            netns.set_sysctl(self.workload, "net.ipv4.ping_group_range", "0 0" if self._one_group else "0 2147483647")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def attachment(self) -> Attachment:
        """What the gate is told to attach."""
        v4, v6 = self._networks
        return Attachment("run", "netpolicy run", _INTERFACE, (v4, v6), (v4[1], v6[1]))

    @property
    def resolver(self) -> str:
        """The workload's resolv.conf."""
        return "# by 'netpolicy run': the firewall's own name server\n" + "".join(
            f"nameserver {network[1]}\n" for network in self._networks
        )

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket in the router's namespace."""
        return netns.socket_in(self.router, family, kind)

    def wire(self) -> None:
        """Connect the two. Only once the gate has locked the interface. Raises UserError."""
        with Links(self.router) as router, Links(self.workload) as workload:
            wiring.pair(router, _INTERFACE, workload, _INSIDE, self.workload)
            four, six = self._networks
            for links, name, last in ((router, _INTERFACE, 1), (workload, _INSIDE, 2)):
                links.up("lo")
                links.address(name, f"{four[last]}/{four.prefixlen}")
                links.address(name, f"{six[last]}/{six.prefixlen}")
                links.up(name)
            workload.route("0.0.0.0/0", via=str(four[1]))
            workload.route("::/0", via=str(six[1]))
