"""Values by network, found by what lies around an address or network: one look-up per prefix length that occurs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

V = TypeVar("V")


class Prefixes(Generic[V]):
    """Networks with values. Hundreds of networks have a handful of prefix lengths, so look-ups cost next to nothing."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[int, list[V]]] = {}

    def add(self, network: IPv4Network | IPv6Network, *values: V) -> None:
        """Put values at a network."""
        table = self._tables.setdefault((network.version, network.prefixlen), {})
        table.setdefault(int(network.network_address), []).extend(values)

    def around(self, inner: IPv4Address | IPv6Address | IPv4Network | IPv6Network) -> Iterator[V]:
        """The values of every network that contains `inner` (or is it), widest network first."""
        if isinstance(inner, IPv4Address | IPv6Address):
            number, length = int(inner), int(inner.max_prefixlen)
        else:
            number, length = int(inner.network_address), inner.prefixlen
        for version, prefix in sorted(self._tables):
            if version == inner.version and prefix <= length:
                shift = inner.max_prefixlen - prefix
                yield from self._tables[version, prefix].get(number >> shift << shift, ())
