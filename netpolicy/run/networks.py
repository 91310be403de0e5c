"""Networks that the host does not use: for the wire to the command and, in the root form, for the wire to the host."""

from __future__ import annotations

import random
import secrets
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from netpolicy.errors import UserError

#: Private ranges few people use, in the order they are tried.
_POOLS = ("10.214.0.0/16", "172.30.0.0/16", "192.168.240.0/20", "10.99.0.0/16")
_ATTEMPTS = 64


def routed() -> Iterator[IPv4Network]:
    """The IPv4 networks of our namespace's routing table (/proc/net/route), without the default route."""
    for line in _lines("route")[1:]:
        words = line.split()
        destination, mask = (int(words[i], 16) for i in (1, 7))
        if mask:
            address = socket.inet_ntoa(struct.pack("=I", destination))
            yield IPv4Network(f"{address}/{socket.inet_ntoa(struct.pack('=I', mask))}", strict=False)


def default_routes() -> tuple[bool, bool]:
    """Whether our namespace (the calling thread's) has a default route for IPv4, and for IPv6."""
    four = any(line.split()[1:8:6] == ["00000000", "00000000"] for line in _lines("route")[1:])
    six = any(  # the kernel has an entry of its own for everything, on the loopback, that leads nowhere
        words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo" for words in map(str.split, _lines("ipv6_route"))
    )
    return four, six


def free_v4(*taken: IPv4Network) -> IPv4Network:
    """A random /30 that no route of the host leads into.

    Raises:
        UserError: ``no-network``.
    """
    used = [*routed(), *taken]
    for pool in _POOLS:
        space = IPv4Network(pool)
        for _ in range(_ATTEMPTS):
            start = int(space.network_address) + 4 * random.randrange(space.num_addresses // 4)
            candidate = IPv4Network((start, 30))
            if not any(candidate.overlaps(network) for network in used):
                return candidate
    raise UserError("no-network", f"the host's routes cover all of {', '.join(_POOLS)}")


def free_v6() -> IPv6Network:
    """A random /64 of unique local addresses (RFC 4193), which nobody else has."""
    base = (0xFD << 120) | (secrets.randbits(40) << 80)
    return IPv6Network((IPv6Address(base), 64))


def _lines(name: str) -> list[str]:
    try:
        return Path("/proc/thread-self/net", name).read_text().splitlines()
    except FileNotFoundError:
        return []
