"""Sets of (address, service) of one family as pieces: addresses with the services that all of them have."""

from __future__ import annotations

from collections.abc import Iterable

from netpolicy import spans
from netpolicy.algebra.normal import plain
from netpolicy.ruleset import RangeGroup, Ruleset
from netpolicy.services import Service, elements, merged, subtract
from netpolicy.spans import Spans

Piece = tuple[Spans, tuple[Service, ...]]


def without(pieces: Iterable[Piece], taken: Iterable[Piece]) -> list[Piece]:
    """What is in the pieces and not in the others."""
    left = list(pieces)
    for addresses, services in taken:
        kept: list[Piece] = []
        for own, mine in left:
            rest = subtract(mine, services)
            if rest:
                kept.append((own, rest))
            both = subtract(mine, rest)
            if both:
                kept.append((spans.subtract(own, addresses), both))
        left = [piece for piece in kept if piece[0].pairs]
    return left


class Told:
    """Pieces that need not be told again."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, tuple[Service, ...]], Spans] = {}
        self._now: list[Piece] = []

    def new(self, pieces: list[Piece], version: int) -> list[Piece]:
        """What of the pieces was not told before; to be told now."""
        known = [(found, services) for (family, services), found in self._before.items() if family == version]
        fresh = without(pieces, known)
        self._now += fresh
        return fresh

    def remember(self) -> None:
        """Count what was told as told before."""
        found: dict[tuple[int, tuple[Service, ...]], list[Spans]] = {}
        for addresses, services in self._now:
            found.setdefault((addresses.version, services), []).append(addresses)
        for key, parts in found.items():
            self._before[key] = spans.union([*parts, *([self._before[key]] if key in self._before else ())])
        self._now = []


class Open:
    """What the ranges of a ruleset open, and what it denies, for asking about addresses of one family."""

    def __init__(self, ruleset: Ruleset, version: int) -> None:
        self._version = version
        self._none = Spans(version, ())
        on = version == 4 or ruleset.ipv6
        self._opening = _plain(ruleset.groups, version) if on else []
        self.denied = _plain(ruleset.denied_groups, version)
        """What denials take away."""
        self._elements = elements(s for _, services in (*self._opening, *self.denied) for s in services)
        self._at: dict[Service, Spans] = {}
        self._cut: dict[tuple[Service, ...], list[tuple[Service, Spans]]] = {}

    def missing(self, addresses: Spans, services: tuple[Service, ...]) -> list[Piece]:
        """Those of the services, at those of the addresses, that are not open: services with the same addresses together."""
        found: dict[tuple[spans.Pair, ...], list[Service]] = {}
        for piece, opened in self._pieces(services):
            left = spans.subtract(addresses, opened)
            if left.pairs:
                found.setdefault(left.pairs, []).append(piece)
        return [(Spans(self._version, left), merged(pieces)) for left, pieces in found.items()]

    def _pieces(self, services: tuple[Service, ...]) -> list[tuple[Service, Spans]]:
        """The services in pieces, each with the addresses at which all of it is open."""
        if services not in self._cut:
            unknown = [(piece, self._none) for piece in subtract(services, self._elements)]
            shared = [
                (both, self._opened(element))
                for element in self._elements
                for service in services
                if (both := _common(element, service)) is not None
            ]
            self._cut[services] = [*unknown, *shared]
        return self._cut[services]

    def _opened(self, element: Service) -> Spans:
        if element not in self._at:
            opened = self._union(found for found, own in self._opening if any(s.contains(element) for s in own))
            denied = self._union(found for found, own in self.denied if any(s.contains(element) for s in own))
            self._at[element] = spans.subtract(opened, denied) if denied.pairs else opened
        return self._at[element]

    def _union(self, parts: Iterable[Spans]) -> Spans:
        return spans.union([self._none, *parts])


def _plain(groups: Iterable[RangeGroup], version: int) -> list[Piece]:
    return [(group.spans, plain(group.services)) for group in groups if group.version == version]


def _common(one: Service, other: Service) -> Service | None:
    first, last = max(one.first, other.first), min(one.last, other.last)
    return Service(one.protocol, first, last) if one.protocol == other.protocol and first <= last else None
