"""Range rules by what they have in common with a network."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

from netpolicy.prefixes import Prefixes
from netpolicy.ruleset import Network, RangeRule


class Overlaps:
    """Range rules, found by a network around or inside theirs: networks nest or are disjoint."""

    def __init__(self, rules: Sequence[RangeRule], around: Prefixes[RangeRule]) -> None:
        self._rules = rules
        self._around = around
        self._by_address = sorted((*_key(rule.network), index) for index, rule in enumerate(rules))

    def of(self, network: Network) -> Iterator[RangeRule]:
        """The rules for networks around it, the same, and inside it."""
        yield from self._around.around(network)
        version, first, length = _key(network)
        begin = bisect.bisect_left(self._by_address, (version, first, length + 1, -1))
        after = bisect.bisect_left(self._by_address, (version, int(network.broadcast_address) + 1, 0, -1))
        # Of those that begin inside it, the wider ones begin where it does.
        yield from (self._rules[index] for _, _, inner, index in self._by_address[begin:after] if inner > length)


def _key(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen
