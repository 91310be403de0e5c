"""A throw-away namespace on a bridge: one more neighbour of the workloads, for as long as it takes to probe.

Its addresses are free ones: asked for by ARP (RFC 5227, section 2.1.1) and by the kernel's duplicate address detection (RFC
4862), and never those that the caller knows to be taken.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from netpolicy.attachment import Attachment
from netpolicy.clock import SystemClock
from netpolicy.errors import UserError
from netpolicy.flow import Address
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.ruleset import Network

_INSIDE = "probe0"
_ETH_ARP, _ETH_IPV4, _REQUEST = 0x0806, 0x0800, 1
_ARP_PROBES, _ARP_SECONDS = 2, 0.15
_ATTEMPTS = 16
_DAD_SECONDS = 4.0
_PORT_SECONDS = 4.0
_BEAT = 0.02


@dataclass(frozen=True, slots=True)
class Plugged:
    """The neighbour."""

    namespace: str
    """Opens it, while it lasts."""
    addresses: tuple[Address, ...]


@contextlib.contextmanager
def plugged(attachment: Attachment, *, taken: Collection[Address] = ()) -> Iterator[Plugged]:
    """Be a neighbour on the attachment's bridge, with the gate as router.

    Args:
        attachment: At an interface that is a bridge.
        taken: Addresses that somebody holds, whether or not he answers.

    Raises:
        UserError: ``no-address``: none is free; as links and namespaces.
    """
    space = netns.anonymous()
    wire = f"npv{secrets.token_hex(5)}"
    try:
        with Links() as links, Links(space) as inside:
            links.veth(wire, _INSIDE, peer_namespace=space)
            try:
                # A bridge takes over the smallest MTU of its ports.
                size = links.mtu(attachment.interface)
                links.set_mtu(wire, size)
                inside.set_mtu(_INSIDE, size)
                links.enslave(wire, attachment.interface)
                links.up(wire)
                _hasten(space)
                inside.up("lo", _INSIDE)
                # Who asks before the port passes anything hears nobody, and takes his address.
                _within(_PORT_SECONDS, lambda: links.passes(wire))
                addresses = _address(inside, space, attachment, frozenset((*taken, *attachment.gateways)))
                yield Plugged(f"/proc/{os.getpid()}/fd/{space}", addresses)
            finally:
                links.delete(wire)
    finally:
        os.close(space)


def _hasten(space: int) -> None:
    """Duplicate address detection that starts at once and asks for a fifth of a second, as long as a bridge may take."""
    settings = {"conf/{}/accept_ra": 0, "conf/{}/router_solicitation_delay": 0, "neigh/{}/retrans_time_ms": 200}
    for key, value in settings.items():
        # Where the kernel has no IPv6 there is nothing to hasten, and where it is read-only it takes its second.
        with contextlib.suppress(UserError):
            netns.set_sysctl(space, f"net/ipv6/{key.format(_INSIDE)}", value)


def _address(inside: Links, space: int, attachment: Attachment, taken: frozenset[Address]) -> tuple[Address, ...]:
    found: list[Address] = []
    for gateway in attachment.gateways:
        network = next(n for n in attachment.networks if n.version == gateway.version and gateway in n)
        address = _free(inside, space, network, taken)
        found.append(address)
        inside.route("0.0.0.0/0" if network.version == 4 else "::/0", via=str(gateway))
    return tuple(found)


def _free(inside: Links, space: int, network: Network, taken: frozenset[Address]) -> Address:
    for candidate in candidates(network, taken):
        text = f"{candidate}/{network.prefixlen}"
        if candidate.version == 4:
            if netns.call(space, in_use, _INSIDE, candidate):
                continue
            inside.address(_INSIDE, text)
            return candidate
        inside.address(_INSIDE, text, check=True)
        if _decided(inside) and any(held.ip == candidate for held in inside.addresses(_INSIDE)):
            return candidate
    raise UserError(
        "no-address",
        f"no address of {network} was found free for a probe from inside",
        hint="Probe from a container instead: --from PID, with the process id that 'docker inspect' shows.",
    )


def candidates(network: Network, taken: Collection[Address]) -> Iterator[Address]:
    """Addresses that may be free, a few: from the end of the network, since Docker hands them out from its beginning."""
    size = network.num_addresses
    # Not the first (the network's own), nor the last in IPv4 (broadcast).
    last = size - 2 if isinstance(network, IPv4Network) else size - 1
    first = 1 if size <= 4 * _ATTEMPTS else size // 2
    room = last - first + 1
    seen: set[int] = set()
    for attempt in range(min(room, 2 * _ATTEMPTS)):
        # Small networks from the top, large ones at random: two probes at once should not want the same.
        offset = last - attempt if room <= 2 * _ATTEMPTS else first + secrets.randbelow(room)
        address = network.network_address + offset
        if offset not in seen and address not in taken:
            seen.add(offset)
            yield address


def in_use(interface: str, address: IPv4Address) -> bool:
    """Whether somebody on the link answers for an address, or is about to take it (ARP probes). In the interface's namespace."""
    clock = SystemClock()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_ARP)) as wire:
        wire.bind((interface, _ETH_ARP))
        own = wire.getsockname()[4]
        query = struct.pack("!HHBBH", 1, _ETH_IPV4, 6, 4, _REQUEST) + own + bytes(4) + bytes(6) + address.packed
        for _ in range(_ARP_PROBES):
            wire.sendto(query, (interface, _ETH_ARP, 0, 0, b"\xff" * 6))
            deadline = clock.monotonic() + _ARP_SECONDS
            while select.select([wire], [], [], max(0.0, deadline - clock.monotonic()))[0]:
                heard = wire.recv(64)
                sender, source, wanted = heard[8:14], heard[14:18], heard[24:28]
                if source == address.packed or (wanted == address.packed and source == bytes(4) and sender != own):
                    return True
    return False


def _decided(inside: Links) -> bool:
    return _within(_DAD_SECONDS, lambda: not inside.undecided(_INSIDE))


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    """Wait for something to become true; says whether it has."""
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    while not true():
        if clock.monotonic() > deadline:
            return False
        select.select([], [], [], _BEAT)
    return True
