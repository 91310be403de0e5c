"""One workload behind (or inside) one enforcer, batches of packets by hand, and everything that arrives anywhere."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Literal, Self

import crafting
from universe import FAR, OPEN, POOLS

from netpolicy.attachment import Attachment, Enforcer, Hook
from netpolicy.clock import SystemClock
from netpolicy.flow import Address, Flow
from netpolicy.kernel.backends import Backend, open_enforcer
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab, Workload
from netpolicy.lab.addresses import UPLINK_HOST

Place = Literal["internet", "host", "self"]
#: Where, with which protocol, to which port: what is known of a packet that has arrived. The address, where the place has several.
Arrival = tuple[Place, int, int, str]

#: Nobody listens here: queries that are redirected to the gate are seen at this port.
DNS_PORT = 5300
_CLOCK = SystemClock()
_SECONDS = 10.0
_PROTOCOLS = {4: (1, 6, 17, 132, 136, 253), 6: (58, 6, 17, 132, 136, 253)}
#: Nothing answers, so nothing but our own packets is on the wire; the capture is before these rules.
_QUIET = """
table inet quiet {
  chain arrive { type filter hook prerouting priority -500; ip daddr { %s } drop; ip6 daddr { %s } drop; }
}
"""


@dataclass
class Bed:
    """A lab of its own. `send` a batch, then ask `arrivals`."""

    lab: Lab
    hook: Hook
    version: int
    enforcer: Enforcer
    attachment: Attachment
    source: dict[int, str]
    box: Workload
    _senders: dict[int, socket.socket]
    _far: dict[int, socket.socket]
    _ears: list[tuple[Place, int, int, socket.socket]]
    _numbers: itertools.cycle[int] = field(default_factory=lambda: itertools.cycle(range(1024, 65000)))
    _late: dict[bytes, str] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _batches: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def control(self) -> Flow:
        """A flow that every ruleset opens."""
        host = next(gateway for gateway in self.attachment.gateways if gateway.version == self.version)
        return Flow(OPEN.protocol, OPEN.first, None, host)

    def expected(self, flow: Flow, *, allowed: bool) -> set[Arrival]:
        """Where the flow's packet arrives, if the verdict on the flow is right."""
        assert flow.address is not None
        address = flow.address
        query = flow.port == 53 and flow.protocol in (6, 17)
        at_host = address in self.attachment.gateways
        if query:
            return {("self" if self.hook == "output" else "host", flow.protocol, DNS_PORT, "")}
        if not allowed:
            return set()
        if address.is_loopback:
            return {("self", flow.protocol, flow.port or 0, "")}
        return {("host" if at_host else "internet", flow.protocol, flow.port or 0, "" if at_host else str(address))}

    def send(self, flows: Sequence[Flow]) -> list[set[Arrival]]:
        """Send the first packet of each flow, and say where each has arrived.

        The last packet is one that must arrive at the host: what was sent before it has arrived then, or never will.
        """
        nonces = [self._send(flow) for flow in (*flows, self.control)]
        heard: dict[bytes, set[Arrival]] = {nonce: set() for nonce in nonces}
        deadline = _CLOCK.monotonic() + _SECONDS
        while not heard[nonces[-1]]:
            assert _CLOCK.monotonic() < deadline, "control: a packet to an open port of the host does not arrive"
            self._listen(heard, 0.5)
        self._listen(heard, 0)
        for packet in self.lab.receiver.packets():
            nonce = crafting.nonce_in(packet.data)
            if nonce is not None:
                self._note(heard, nonce, ("internet", packet.protocol, packet.port or 0, packet.destination))
        self._batches += 1
        if self._batches % 16 == 0:
            self.lab.receiver.forget()
        self._late.update({nonce: str(flow) for nonce, flow in zip(nonces, flows, strict=False) if not heard[nonce]})
        return [heard[nonce] for nonce in nonces[:-1]]

    def number(self) -> int:
        """A source port (or echo id) that no packet of late had."""
        return next(self._numbers)

    def emit(self, packet: bytes, target: str) -> None:
        """Send a whole IP packet from the workload."""
        # An OUTPUT chain's refusal is an error of the call. Port 0: the kernel takes another one for a protocol number.
        with contextlib.suppress(OSError):
            self._senders[ip_address(target).version].sendto(packet, (target, 0))

    def answer(self, source: str, target: str, port: int, number: int) -> None:
        """Send a datagram from an address of the internet's to where the workload's packets come from."""
        body = crafting.packet(Flow(17, number, None, ip_address(target)), source, port, bytes(crafting.NONCE_BYTES))
        self._far[ip_address(target).version].sendto(body, (target, 0))

    def _send(self, flow: Flow) -> bytes:
        assert flow.address is not None
        nonce = secrets.token_bytes(crafting.NONCE_BYTES)
        self.emit(crafting.packet(flow, self._source(flow.address), self.number(), nonce), str(flow.address))
        return nonce

    def _source(self, address: Address) -> str:
        return str(address) if address.is_loopback else self.source[address.version]

    def _listen(self, heard: dict[bytes, set[Arrival]], seconds: float) -> None:
        ready, _, _ = select.select([ear for *_, ear in self._ears], [], [], seconds)
        for place, version, protocol, ear in self._ears:
            if ear not in ready:
                continue
            with contextlib.suppress(BlockingIOError):
                while True:
                    data = ear.recv(4096)
                    nonce = crafting.nonce_in(data)
                    if nonce is None:
                        continue
                    body = data[(data[0] & 15) * 4 :] if version == 4 else data
                    # An error that quotes one of our packets is not that packet.
                    if protocol in (1, 58) and body[0] not in (8, 128):
                        continue
                    port = struct.unpack_from(">H", body, 2)[0] if protocol in (6, 17, 132, 136) else 0
                    self._note(heard, nonce, (place, protocol, port, ""))

    def _note(self, heard: dict[bytes, set[Arrival]], nonce: bytes, arrival: Arrival) -> None:
        assert nonce not in self._late, f"{self._late[nonce]} arrived after its verdict was taken: {arrival}"
        if nonce in heard:
            heard[nonce].add(arrival)


def bed(lab: Lab, hook: Hook, version: int, backend: Backend) -> Bed:
    """Lay a bed in a lab; the attachment is locked."""
    box = lab.add_workload(f"csp-{secrets.token_hex(4)}")
    if hook == "forward":
        attachment, where = box.attachment(), lab.host.name
    else:
        free = (ip_network("203.0.113.6/31"), ip_network("2001:db8:a::6/127"))
        attachment, where = Attachment(secrets.token_hex(4), "lab/output", "", free, box.gateways, "output"), box.name
    enforcer = open_enforcer(backend, netns=where)
    stack = contextlib.ExitStack()
    stack.callback(enforcer.close)
    with Links(lab.inet.name) as links:
        for network, via in zip(box.networks, UPLINK_HOST, strict=True):
            links.route(str(network), via=via.partition("/")[0])
    quiet = [[str(POOLS[v]), str(FAR[v])] for v in (4, 6)]
    lab.inet.run(["nft", "-f", "-"], stdin=(_QUIET % tuple(", ".join(words) for words in quiet)).encode())
    senders, far, ears = {}, {}, []
    for v, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        # With IPPROTO_RAW the header is ours, in both families (raw(7)).
        senders[v] = stack.enter_context(box.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
        senders[v].setblocking(False)
        far[v] = stack.enter_context(lab.inet.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
        for place, node in (("host", lab.host), ("self", box)):
            for protocol in _PROTOCOLS[v]:
                ear = stack.enter_context(node.socket(family, socket.SOCK_RAW, protocol))
                ear.setblocking(False)
                ears.append((place, v, protocol, ear))
    made = Bed(lab, hook, version, enforcer, attachment, {4: box.v4, 6: box.v6}, box, senders, far, ears)
    made._stack = stack
    enforcer.install("csp-" if hook == "forward" else None)
    enforcer.attach(attachment, None)
    return made


def extra_addresses(made: Bed) -> tuple[Address, ...]:
    """Addresses that have a meaning to the attachment: the host's and, inside the namespace, its own loopback."""
    loopback = (ip_address("127.0.0.1"), ip_address("127.0.0.11"), ip_address("::1")) if made.hook == "output" else ()
    return (*made.attachment.gateways, *loopback)
