"""Sets of addresses as ranges of numbers: quick to join, to compare and to look into, also for 100,000 networks. Pure."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range

Pair = tuple[int, int]
#: By family and prefix length, the bits behind the prefix.
_HOSTS = {
    version: tuple((1 << (bits - length)) - 1 for length in range(bits + 1)) for version, bits in ((4, 32), (6, 128))
}
#: So many pairs are hashed at once; all at once would take as much memory as the pairs themselves.
_PART = 4096


@dataclass(frozen=True)
class Spans:
    """Addresses of one family in their one form: inclusive ranges, sorted, neither overlapping nor adjacent."""

    version: int
    pairs: tuple[Pair, ...] = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """The content's SHA-256 in hexadecimal digits."""
        width = 4 if self.version == 4 else 16
        found = hashlib.sha256(b"%d" % self.version)
        for start in range(0, len(self.pairs), _PART):
            part = self.pairs[start : start + _PART]
            found.update(b"".join([number.to_bytes(width, "big") for pair in part for number in pair]))
        return found.hexdigest()

    def __bool__(self) -> bool:
        """Whether there is any address."""
        return bool(self.pairs)

    def __contains__(self, address: int) -> bool:
        at = bisect.bisect_right(self.pairs, (address, 1 << 128)) - 1
        return at >= 0 and self.pairs[at][0] <= address <= self.pairs[at][1]


def of_networks(networks: Iterable[IPv4Network | IPv6Network], version: int) -> Spans:
    """The addresses of networks, which are all of this family."""
    hosts = _HOSTS[version]
    return _joined(version, [(first := int(n.network_address), first | hosts[n.prefixlen]) for n in networks])


def union(parts: Sequence[Spans]) -> Spans:
    """The addresses of at least one set, which are all of one family."""
    if len(parts) == 1:
        return parts[0]
    return _joined(parts[0].version, [pair for part in parts for pair in part.pairs])


def subtract(some: Spans, taken: Spans) -> Spans:
    """The addresses of the first set that the second one, of the same family, does not have."""
    left: list[Pair] = []
    for first, last in some.pairs:
        begin = first
        start = max(bisect.bisect_right(taken.pairs, (first, 1 << 128)) - 1, 0)
        for hole in taken.pairs[start : bisect.bisect_right(taken.pairs, (last, 1 << 128))]:
            if hole[0] > begin:
                left.append((begin, hole[0] - 1))
            begin = max(begin, hole[1] + 1)
        if begin <= last:
            left.append((begin, last))
    return Spans(some.version, tuple(left))


def intersect(some: Spans, others: Spans) -> Spans:
    """The addresses that both sets, of one family, have."""
    found: list[Pair] = []
    for first, last in some.pairs:
        start = max(bisect.bisect_right(others.pairs, (first, 1 << 128)) - 1, 0)
        for begin, end in others.pairs[start : bisect.bisect_right(others.pairs, (last, 1 << 128))]:
            if end >= first:
                found.append((max(first, begin), min(last, end)))
    return Spans(some.version, tuple(found))


def networks(some: Spans) -> Iterator[IPv4Network | IPv6Network]:
    """The fewest networks that have exactly these addresses, in order."""
    address = IPv4Address if some.version == 4 else IPv6Address
    for first, last in some.pairs:
        yield from summarize_address_range(address(first), address(last))


def _joined(version: int, pairs: list[Pair]) -> Spans:
    """The pairs joined; the list is used up, for a copy of a long one would be much."""
    pairs.sort()
    kept = 0
    for pair in pairs:
        first, last = pair
        if kept and first <= pairs[kept - 1][1] + 1:
            if last > pairs[kept - 1][1]:
                pairs[kept - 1] = (pairs[kept - 1][0], last)
        else:
            pairs[kept] = pair
            kept += 1
    del pairs[kept:]
    return Spans(version, tuple(pairs))
