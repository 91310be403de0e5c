"""Links, addresses and routes of one namespace, by pyroute2.

pyroute2's objects belong to the thread that made them (used from another thread they open a new socket in that thread's
namespace, without an error), so each `Links` owns one thread that has entered the namespace and does all the work there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from types import TracebackType
from typing import Any, Self

from netpolicy.errors import Exit, UserError
from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace

_NODAD = 0x02  # IFA_F_NODAD: the address is usable at once, not after a second of duplicate detection
_FORWARDING = 3  # BR_STATE_FORWARDING
_DUPLICATE, _TENTATIVE = 0x08, 0x40  # IFA_F_DADFAILED, IFA_F_TENTATIVE


class Links:
    """The links of a namespace. A context manager; `close` ends its thread and socket, what it made stays.

    Raises (every method):
        UserError: ``link-missing``, ``link-exists`` or ``link-refused`` with the kernel's reason.
    """

    def __init__(self, namespace: Namespace = None) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="links")
        opening = self._thread.submit(self._open, namespace)
        if opening.exception() is not None:
            self._thread.shutdown()
        self._route = opening.result()

    @staticmethod
    def _open(namespace: Namespace) -> Any:
        netns.enter(namespace)
        from pyroute2 import IPRoute  # 150 ms to import: only where links are made

        return IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and its socket."""
        self._thread.submit(self._route.close).result()
        self._thread.shutdown()

    def veth(self, name: str, peer: str, *, peer_namespace: Namespace = None) -> None:
        """Make a pair of ends wired to each other; the peer is born in `peer_namespace` (None: in this one). Both are down."""
        if peer_namespace is None:
            self._do(f"make veth {name}", self._route.link, "add", ifname=name, kind="veth", peer={"ifname": peer})
            return
        fd = netns.open_namespace(peer_namespace)
        try:
            other = {"ifname": peer, "net_ns_fd": fd}
            self._do(f"make veth {name}", self._route.link, "add", ifname=name, kind="veth", peer=other)
        finally:
            os.close(fd)

    def bridge(self, name: str) -> None:
        """Make a bridge; it is down."""
        self._do(f"make bridge {name}", self._route.link, "add", ifname=name, kind="bridge")

    def up(self, *names: str) -> None:
        """Switch links on."""
        for name in names:
            self._do(f"switch on {name}", self._route.link, "set", index=self.index(name), state="up")

    def down(self, *names: str) -> None:
        """Switch links off."""
        for name in names:
            self._do(f"switch off {name}", self._route.link, "set", index=self.index(name), state="down")

    def enslave(self, name: str, bridge: str) -> None:
        """Make a link a port of a bridge."""
        index, master = self.index(name), self.index(bridge)
        self._do(f"put {name} into {bridge}", self._route.link, "set", index=index, master=master)

    def delete(self, name: str) -> None:
        """Remove a link (the peer of a veth with it); one that does not exist is no error."""
        found = self._find(name)
        if found is not None:
            self._do(f"remove {name}", self._route.link, "del", index=found)

    def address(self, name: str, address: str, *, check: bool = False) -> None:
        """Add e.g. ``198.51.100.1/24`` or ``2001:db8::1/64``; an IPv6 address is usable at once, unless it is to be checked."""
        interface = ip_interface(address)
        flags = {"flags": _NODAD} if interface.version == 6 and not check else {}
        self._do(
            f"add {address} to {name}",
            self._route.addr,
            "add",
            index=self.index(name),
            address=str(interface.ip),
            prefixlen=interface.network.prefixlen,
            **flags,
        )

    def route(
        self, destination: str, *, via: str | None = None, interface: str | None = None, kind: str = "unicast"
    ) -> None:
        """Add or replace a route, e.g. ``0.0.0.0/0`` or ``::/0`` via an address or out of an interface.

        A route of kind ``local`` out of the loopback makes every address of the destination the namespace's own.
        """
        network = ip_network(destination)
        request: dict[str, Any] = {"dst": str(network), "family": 2 if network.version == 4 else 10}
        if kind != "unicast":
            scope = 254 if network.version == 4 else 0  # RT_SCOPE_HOST, as the kernel demands of IPv4
            request |= {"type": kind, "scope": scope}
        if via is not None:
            request["gateway"] = via
        if interface is not None:
            request["oif"] = self.index(interface)
        self._do(f"route {destination}", self._route.route, "replace", **request)

    def index(self, name: str) -> int:
        """The link's number in its namespace."""
        found = self._find(name)
        if found is None:
            raise UserError("link-missing", f"there is no network interface {name!r}", exit_status=Exit.MISSING)
        return found

    def names(self) -> list[str]:
        """The names of all links, in the kernel's order."""
        return [str(link.get_attr("IFLA_IFNAME")) for link in self._do("list links", self._list)]

    def is_bridge(self, name: str) -> bool:
        """Whether the link is a bridge."""
        info = self._link(name).get_attr("IFLA_LINKINFO")
        return info is not None and info.get_attr("IFLA_INFO_KIND") == "bridge"

    def ports(self, bridge: str) -> dict[str, str | None]:
        """The ports of a bridge, each with its kind; None for a piece of hardware."""
        master = self.index(bridge)
        found: dict[str, str | None] = {}
        for link in self._do("list links", self._list):
            if link.get_attr("IFLA_MASTER") == master:
                info = link.get_attr("IFLA_LINKINFO")
                kind = None if info is None else info.get_attr("IFLA_INFO_KIND")
                found[str(link.get_attr("IFLA_IFNAME"))] = None if kind is None else str(kind)
        return found

    def passes(self, name: str) -> bool:
        """Whether a link that is a port of a bridge lets packets through by now."""
        info = self._link(name).get_attr("IFLA_LINKINFO")
        port = None if info is None else info.get_attr("IFLA_INFO_SLAVE_DATA")
        return port is not None and port.get_attr("IFLA_BRPORT_STATE") == _FORWARDING

    def mtu(self, name: str) -> int:
        """The largest packet of a link, in bytes."""
        return int(self._link(name).get_attr("IFLA_MTU"))

    def set_mtu(self, name: str, size: int) -> None:
        """Change it."""
        self._do(f"set the MTU of {name}", self._route.link, "set", index=self.index(name), mtu=size)

    def addresses(self, name: str) -> list[IPv4Interface | IPv6Interface]:
        """A link's addresses with their networks, in the kernel's order; those that somebody else turned out to have are left out."""
        rows = self._addresses(name)
        # IFA_LOCAL is the own end; on a wire with a peer IFA_ADDRESS is the other one.
        return [
            ip_interface(f"{row.get_attr('IFA_LOCAL') or row.get_attr('IFA_ADDRESS')}/{row['prefixlen']}")
            for row in rows
            if not _flags(row) & _DUPLICATE
        ]

    def undecided(self, name: str) -> bool:
        """Whether the kernel is still finding out if somebody else has one of the link's IPv6 addresses."""
        return any(_flags(row) & _TENTATIVE and not _flags(row) & _DUPLICATE for row in self._addresses(name))

    def ways_out(self) -> set[str]:
        """The names of the links that default routes lead out of."""
        rows = self._do(
            "list routes", lambda: [*self._route.get_default_routes(2), *self._route.get_default_routes(10)]
        )
        wanted = {row.get_attr("RTA_OIF") for row in rows}
        for row in rows:
            wanted |= {hop["oif"] for hop in row.get_attr("RTA_MULTIPATH") or ()}
        return {
            str(link.get_attr("IFLA_IFNAME")) for link in self._do("list links", self._list) if link["index"] in wanted
        }

    def _link(self, name: str) -> Any:
        return self._do(f"look at {name}", self._route.get_links, self.index(name))[0]

    def _addresses(self, name: str) -> list[Any]:
        index = self.index(name)
        rows: list[Any] = self._do(f"list the addresses of {name}", lambda: list(self._route.get_addr(index=index)))
        return rows

    def _list(self) -> list[Any]:
        return list(self._route.get_links())

    def _find(self, name: str) -> int | None:
        found: list[int] = self._do(f"look up {name}", self._route.link_lookup, ifname=name)
        return found[0] if found else None

    def _do(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return self._thread.submit(function, *args, **kwargs).result()
        except NetlinkError as error:
            code = "link-exists" if error.code == errno.EEXIST else "link-refused"
            status = Exit.CONFLICT if error.code == errno.EEXIST else Exit.FAILED
            raise UserError(code, f"cannot {what}: {os.strerror(error.code)}", exit_status=status) from error


def _flags(row: Any) -> int:
    return int(row.get_attr("IFA_FLAGS") or row["flags"])
