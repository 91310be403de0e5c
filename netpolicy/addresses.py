"""The addresses that a public name has no business answering with (DNS rebinding), each with its source. Pure.

This is a list of our own and not `ipaddress.is_private`: the documentation ranges (RFC 5737, RFC 3849) count as ordinary
public addresses, because the lab's internet stands on them, and what Python calls private changes between its versions.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from netpolicy.flow import Address

Network = IPv4Network | IPv6Network

#: (network, what it is, where that is written). The first that contains an address names it.
FORBIDDEN: tuple[tuple[Network, str, str], ...] = tuple(
    (ip_network(network), what, source)
    for network, what, source in (
        ("169.254.169.254/32", "cloud metadata service", "AWS, Azure, Google Cloud and others: instance metadata"),
        ("169.254.170.2/32", "cloud metadata service", "AWS: ECS task credentials"),
        ("168.63.129.16/32", "cloud metadata service", "Azure: what is IP address 168.63.129.16"),
        ("100.100.100.200/32", "cloud metadata service", "Alibaba Cloud: instance metadata"),
        ("192.0.0.192/32", "cloud metadata service", "Oracle Cloud classic: instance metadata"),
        ("fd00:ec2::254/128", "cloud metadata service", "AWS: instance metadata over IPv6"),
        ("fd20:ce::254/128", "cloud metadata service", "Google Cloud: metadata server over IPv6"),
        ("0.0.0.0/8", "unspecified", "RFC 791, RFC 6890"),
        ("10.0.0.0/8", "private", "RFC 1918"),
        ("100.64.0.0/10", "carrier-grade NAT", "RFC 6598"),
        ("127.0.0.0/8", "loopback", "RFC 1122"),
        ("169.254.0.0/16", "link-local", "RFC 3927"),
        ("172.16.0.0/12", "private", "RFC 1918"),
        ("192.0.0.0/24", "protocol assignments", "RFC 6890"),
        ("192.88.99.0/24", "6to4 relay", "RFC 7526"),
        ("192.168.0.0/16", "private", "RFC 1918"),
        ("198.18.0.0/15", "benchmarking", "RFC 2544"),
        ("224.0.0.0/4", "multicast", "RFC 5771"),
        ("240.0.0.0/4", "reserved", "RFC 1112, RFC 919"),
        ("::/128", "unspecified", "RFC 4291"),
        ("::1/128", "loopback", "RFC 4291"),
        ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291"),
        ("::/96", "IPv4-compatible", "RFC 4291"),
        ("64:ff9b::/96", "NAT64", "RFC 6052"),
        ("64:ff9b:1::/48", "local NAT64", "RFC 8215"),
        ("100::/64", "discard-only", "RFC 6666"),
        ("2001::/32", "Teredo", "RFC 4380"),
        ("2002::/16", "6to4", "RFC 3056"),
        ("fc00::/7", "unique local", "RFC 4193"),
        ("fe80::/10", "link-local", "RFC 4291"),
        ("fec0::/10", "site-local", "RFC 3879"),
        ("ff00::/8", "multicast", "RFC 4291"),
    )
)

#: Destinations that never leave the machine or the link, so that no rule can open them.
UNROUTABLE: tuple[Network, ...] = tuple(
    ip_network(n)
    for n in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
    )
)


@cache
def _rows() -> tuple[tuple[int, int, int, str, Network], ...]:
    return tuple((n.version, int(n.network_address), int(n.netmask), what, n) for n, what, _source in FORBIDDEN)


def forbidden(address: Address, permitted: Iterable[Network] = ()) -> str | None:
    """Why this address must not be accepted as the answer for a name; None where it may be.

    Args:
        address: The address in an answer.
        permitted: The policy's allowed ranges. One that lies wholly inside the forbidden block and contains the address is the
            owner's own word for it (``10.1.2.0/24``); a wide one (``0.0.0.0/0``) is not, it never meant the private network.

    Returns:
        A reason for people, e.g. ``10.0.0.1 is private (10.0.0.0/8)``.
    """
    number = int(address)
    for version, base, mask, what, network in _rows():
        if version == address.version and number & mask == base:
            if any(_names(own, network) and address in own for own in permitted):
                return None
            return f"{address} is {what} ({network})"
    return None


def unroutable(network: Network) -> str | None:
    """Why no rule for this network could ever have an effect (loopback, multicast, unspecified, IPv6 link-local), or None."""
    for block in UNROUTABLE:
        if _names(network, block):
            what = next(what for known, what, _source in FORBIDDEN if _names(block, known) or _names(known, block))
            return f"{network} is {what} ({block})"
    return None


def plain(address: Address) -> Address:
    """The address that a packet will carry: an IPv4-mapped IPv6 address is sent as IPv4 (RFC 4291 2.5.5.2)."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def plain_network(network: Network) -> Network:
    """The same for a network: one that lies inside ::ffff:0:0/96 is the IPv4 network it maps."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((IPv4Address(mapped), network.prefixlen - 96))
    return network


def _names(own: Network, block: Network) -> bool:
    if isinstance(own, IPv4Network):
        return isinstance(block, IPv4Network) and own.subnet_of(block)
    return isinstance(block, IPv6Network) and own.subnet_of(block)
