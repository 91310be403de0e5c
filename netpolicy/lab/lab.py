"""The topology: an internet and a host with an uplink into it; workloads behind the host as they are asked for.

workload --veth-- [ host: forwards ] --veth "up0"-- [ inet: owns every address ]
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Self

from netpolicy.attachment import Attachment
from netpolicy.flow import Address
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.lab import addresses, nameservers, ownership, sinks
from netpolicy.lab.authority import Authority
from netpolicy.lab.node import Node
from netpolicy.lab.receiver import Receiver
from netpolicy.lab.servers import Servers
from netpolicy.lab.web import Web
from netpolicy.lab.zone import Record, Zone

#: The host's interface towards the internet.
UPLINK = "up0"

_INTERNET_RULES = f"""
table inet lab {{
  chain arrive {{
    type filter hook prerouting priority mangle
    iifname != "{UPLINK}" return
    meta l4proto {{ tcp, udp }} th dport 53 tproxy to :{nameservers.PORT} accept
    meta l4proto {{ tcp, udp }} tproxy to :{sinks.PORT} accept
  }}
}}
"""

_NAT_RULES = f"""
table inet lab-nat {{
  chain leave {{
    type nat hook postrouting priority srcnat
    oifname "{UPLINK}" masquerade
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A name with addresses of its own."""

    name: str
    v4: str
    v6: str

    @property
    def addresses(self) -> tuple[str, str]:
        """Both."""
        return (self.v4, self.v6)


class Workload(Node):
    """A namespace behind a veth pair on the lab's host, with default routes to it."""

    def __init__(self, name: str, directory: Path, interface: str, networks: tuple[IPv4Network, IPv6Network]) -> None:
        super().__init__(name, directory)
        self.interface = interface
        """The host's end of the pair."""
        self.networks = networks
        v4, v6 = networks
        self.gateways: tuple[Address, Address] = (v4[1], v6[1])
        """The host's addresses on it."""
        self.v4, self.v6 = str(v4[2]), str(v6[2])
        self.ends = {
            "host": (f"{v4[1]}/{v4.prefixlen}", f"{v6[1]}/{v6.prefixlen}"),
            "workload": (f"{v4[2]}/{v4.prefixlen}", f"{v6[2]}/{v6.prefixlen}"),
        }
        """The addresses of both ends of the wire, with prefix lengths."""

    def attachment(self, identifier: str | None = None) -> Attachment:
        """What a gate on the lab's host is told to attach."""
        wanted = identifier or secrets.token_hex(4)
        return Attachment(wanted, f"lab/{wanted}", self.interface, self.networks, self.gateways)


class Lab:
    """See the package. A context manager; two at once do not meet.

    Raises:
        UserError: ``not-permitted`` without the rights to make namespaces, ``program-missing`` without nft.
    """

    dns: nameservers.NameServers
    """What names exist (`dns.zone`), and which queries arrived (`dns.queries()`)."""
    web: Web
    receiver: Receiver
    ca: Path
    """The certificate that signs the lab's HTTPS sites, PEM (e.g. for SSL_CERT_FILE)."""
    inet: Node
    host: Node
    """Where a gate or an engine under test runs; forwards, translates nothing, and filters nothing."""
    directory: Path
    """A temporary directory that goes with the lab."""

    def __enter__(self) -> Self:
        ownership.collect()
        with contextlib.ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def site(self, name: str | None = None, *, ttl: int = 60) -> Site:
        """Make a name (a fresh one by default) with a fresh address of each family."""
        made = Site(name or f"{secrets.token_hex(4)}.example", self.fresh_v4(), self.fresh_v6())
        self.dns.zone.set(made.name, Record(a=(made.v4,), aaaa=(made.v6,), ttl=ttl))
        return made

    def fresh_v4(self) -> str:
        """An address that nothing else in this lab uses; it answers like every other."""
        return next(self._v4)

    def fresh_v6(self) -> str:
        """See `fresh_v4`."""
        return next(self._v6)

    def add_workload(self, interface: str | None = None) -> Workload:
        """A namespace behind the host. Its resolver is the host's end of the wire (where nothing answers yet).

        Args:
            interface: Name of the host's end, at most 15 bytes; by default ``lab-`` and hexadecimal digits.
        """
        networks = next(self._networks)
        wire = interface or f"lab-{secrets.token_hex(4)}"
        box = Workload(self._namespace(self._stack, f"w{secrets.token_hex(2)}"), self.directory, wire, networks)
        self._stack.callback(box.close)
        with Links(self.host.name) as links:
            links.veth(wire, "eth0", peer_namespace=box.name)
            for address in box.ends["host"]:
                links.address(wire, address)
            links.up(wire)
        with Links(box.name) as links:
            for address in box.ends["workload"]:
                links.address("eth0", address)
            links.up("lo", "eth0")
            for everything, gateway in zip(("0.0.0.0/0", "::/0"), box.gateways, strict=True):
                links.route(everything, via=str(gateway))
        box.use_resolvers(*map(str, box.gateways))
        return box

    @contextlib.contextmanager
    def nat(self) -> Iterator[None]:
        """Translate whatever the host forwards into the internet: what an unfiltered host would do (positive controls)."""
        self.host.run(["nft", "-f", "-"], stdin=_NAT_RULES.encode())
        try:
            yield
        finally:
            self.host.run(["nft", "delete", "table", "inet", "lab-nat"])

    def _build(self, stack: contextlib.ExitStack) -> None:
        self._prefix = ownership.fresh()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self._prefix}-"))
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        self._v4, self._v6 = addresses.site_addresses_v4(), addresses.site_addresses_v6()
        self._networks = addresses.workload_networks()
        self.inet = Node(self._namespace(stack, "inet"), self.directory)
        self.host = Node(self._namespace(stack, "host"), self.directory)
        stack.callback(self.inet.close)
        stack.callback(self.host.close)
        self._wire()
        self.inet.run(["nft", "-f", "-"], stdin=_INTERNET_RULES.encode())
        self.host.use_resolvers(*addresses.RESOLVERS)
        self._serve(stack)

    def _namespace(self, stack: contextlib.ExitStack, role: str) -> str:
        name = f"{self._prefix}-{role}"
        netns.create(name)
        stack.callback(netns.delete, name)
        # Duplicate address detection would hold back IPv6 for a second; unprivileged ping is what containers have.
        netns.set_sysctl(name, "net.ipv6.conf.default.accept_dad", 0)
        netns.set_sysctl(name, "net.ipv4.ping_group_range", "0 2147483647")
        return name

    def _wire(self) -> None:
        netns.set_sysctl(self.host.name, "net.ipv4.ip_forward", 1)
        netns.set_sysctl(self.host.name, "net.ipv6.conf.all.forwarding", 1)
        with Links(self.host.name) as links:
            # Two ends with the same interface number count as one device in the kernel's link watch (linkwatch_urgent_event),
            # which then reports the carrier, and with it IPv6, up to a second late. Links made and removed use up the first numbers.
            links.veth("skip", "skip0")
            links.delete("skip")
            links.veth(UPLINK, UPLINK, peer_namespace=self.inet.name)
            for address in addresses.UPLINK_HOST:
                links.address(UPLINK, address)
            links.up("lo", UPLINK)
        with Links(self.inet.name) as links:
            for address in addresses.UPLINK_INET:
                links.address(UPLINK, address)
            links.up("lo", UPLINK)
            for everything in ("0.0.0.0/0", "::/0"):
                links.route(everything, interface="lo", kind="local")
        with Links(self.host.name) as links:
            for everything, address in zip(("0.0.0.0/0", "::/0"), addresses.UPLINK_INET, strict=True):
                links.route(everything, via=address.partition("/")[0])

    def _serve(self, stack: contextlib.ExitStack) -> None:
        authority = Authority(self.directory)
        self.ca = authority.path
        self.dns, self.web, self.receiver = nameservers.NameServers(Zone()), Web(), Receiver()
        mark_sender = self.host.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        stack.callback(mark_sender.close)
        receivers = sinks.Sinks(authority, self.web)

        async def start(servers: contextlib.AsyncExitStack) -> None:
            self.receiver.start(servers, UPLINK, mark_sender, UPLINK)
            await self.dns.start(servers)
            await receivers.start(servers)

        stack.callback(Servers(self.inet.name, start).stop)
