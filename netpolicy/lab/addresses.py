"""The lab's address plan. Everything on the internet's side is in the documentation ranges (RFC 5737, RFC 3849)."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Network, IPv6Network

UPLINK_INET = ("198.51.100.1/30", "2001:db8:0:1::1/64")
UPLINK_HOST = ("198.51.100.2/30", "2001:db8:0:1::2/64")
#: The resolvers that the lab's host is configured with.
RESOLVERS = ("198.51.100.53", "2001:db8:53::53")
#: Resolvers of somebody else. Any other address answers on port 53 too.
OTHER_RESOLVERS = ("203.0.113.53", "2001:db8:53::54")


def site_addresses_v4() -> itertools.chain[str]:
    """Fresh addresses, each once: 600 of them."""
    networks = ("192.0.2.0/24", "203.0.113.0/24", "198.51.100.128/25")
    hosts = itertools.chain.from_iterable(IPv4Network(n).hosts() for n in networks)
    return itertools.chain(str(h) for h in hosts if str(h) not in (*RESOLVERS, *OTHER_RESOLVERS))


def site_addresses_v6() -> itertools.chain[str]:
    """Fresh addresses, each once."""
    base = IPv6Network("2001:db8:a::/48").network_address
    return itertools.chain(str(base + n) for n in itertools.count(1))


def workload_networks() -> itertools.chain[tuple[IPv4Network, IPv6Network]]:
    """Networks for workloads, as an engine would hand them out: a /28 of private and a /64 of unique local addresses."""
    v4 = IPv4Network("10.213.0.0/16").subnets(new_prefix=28)
    v6 = IPv6Network("fd5c:ace0::/48").subnets(new_prefix=64)
    return itertools.chain(zip(v4, v6, strict=False))
