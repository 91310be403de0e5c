"""Where names may resolve to because a range says so: the owner's word for addresses that are otherwise kept out of answers. Pure.

`netpolicy.addresses.forbidden` asks one address about all the ranges (its `permitted`); here the ranges are asked for all addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from netpolicy import spans
from netpolicy.addresses import FORBIDDEN, Network
from netpolicy.spans import Spans


def blocks(network: Network) -> tuple[Network, ...]:
    """The blocks kept out of answers in which a network lies wholly; none for most networks, and for wide ones."""
    number, length = int(network.network_address), network.prefixlen
    if number not in _kept_out(network.version):
        return ()
    return tuple(
        block for first, mask, prefix, block in _rows(network.version) if prefix <= length and number & mask == first
    )


def may_lift(some: Spans) -> bool:
    """Whether any of these addresses is kept out of answers."""
    return bool(spans.intersect(_kept_out(some.version), some))


def lifted(networks: Iterable[Network], version: int) -> Spans:
    """The addresses that names may have because of these networks, which are all of one family."""
    inside: dict[tuple[Network, ...], list[Network]] = {}
    for network in networks:
        if around := blocks(network):
            inside.setdefault(around, []).append(network)
    parts = [Spans(version, ())]
    for around, those in inside.items():
        own = spans.of_networks(those, version)
        parts += [spans.subtract(own, _before(block)) for block in around]
    return spans.union(parts)


@cache
def _rows(version: int) -> tuple[tuple[int, int, int, Network], ...]:
    own = (block for block, _what, _source in FORBIDDEN if block.version == version)
    return tuple((int(block.network_address), int(block.netmask), block.prefixlen, block) for block in own)


@cache
def _kept_out(version: int) -> Spans:
    return spans.of_networks([row[3] for row in _rows(version)], version)


@cache
def _before(block: Network) -> Spans:
    """Of the blocks that have an address, the first one counts."""
    known = [row[3] for row in _rows(block.version)]
    return spans.of_networks(known[: known.index(block)], block.version)
