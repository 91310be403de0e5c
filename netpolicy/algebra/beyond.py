"""The one question under all comparisons: what does this ruleset open that the other one does not?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netpolicy import spans
from netpolicy.algebra.normal import asked, effective, lifted, outward, plain
from netpolicy.algebra.openings import Kind, Opening, at_host, at_name, at_network
from netpolicy.compile import distinct
from netpolicy.decide import decide
from netpolicy.flow import PROTOCOLS, Flow
from netpolicy.ruleset import RangeRule, Ruleset
from netpolicy.services import Service, elements, merged, subtract
from netpolicy.spans import Spans

_HTTPS = (PROTOCOLS["tcp"], 443)


def beyond(more: Ruleset, less: Ruleset) -> Iterator[Opening]:
    """What `more` opens and `less` does not, by the rules of `more`: host, names, networks, addresses in answers."""
    yield from _host(more, less)
    if less.mode == "off":
        return
    if more.mode == "off":
        yield Opening(Kind.EVERYTHING, None, (), None, _unknown(less))
        return
    other = _Ranges(less)
    yield from _names(more, less)
    yield from _networks(more, other)
    yield from _answers(more, less, other)


def _host(more: Ruleset, less: Ruleset) -> Iterator[Opening]:
    known = plain(rule.service for rule in less.host)
    for rule in more.host:
        new = subtract(plain([rule.service]), known)
        if effective(new):
            yield at_host(new, rule.origin)
        known = merged((*known, *new))


def _unknown(ruleset: Ruleset) -> Flow:
    """A flow to a name that the ruleset does not open."""
    tried = (Flow(*_HTTPS, name=f"{'www.' * times}example.com") for times in range(len(ruleset.names) + 1))
    return next(flow for flow in tried if not decide(ruleset, flow).allowed)


def _names(more: Ruleset, less: Ruleset) -> Iterator[Opening]:
    known: dict[str, tuple[Service, ...]] = {}
    for rule in more.names:
        if asked(rule.name):
            if rule.name not in known:
                known[rule.name] = plain(less.services_of(rule.name))
            new = subtract(plain(rule.services), known[rule.name])
            if effective(new):
                yield at_name(rule.name, new, rule.origin)
            known[rule.name] = merged((*known[rule.name], *new))


def _networks(more: Ruleset, other: _Ranges) -> Iterator[Opening]:
    for rule in distinct((rule.network, plain(rule.services), rule.origin) for rule in more.ranges):
        for left, new in other.missing(spans.of_networks([rule.network], rule.network.version), rule.services):
            yield from _told(Kind.NETWORK, left, new, rule)


def _answers(more: Ruleset, less: Ruleset, other: _Ranges) -> Iterator[Opening]:
    """Where names may now resolve to, so that addresses open which no range does. What ranges open is told already."""
    services = merged(s for rule in more.names if asked(rule.name) for s in plain(rule.services))
    own = _Ranges(more)
    known = {version: _union([lifted(r) for r in less.ranges], version) for version in (4, 6)}
    for rule in more.ranges:
        version = rule.network.version
        new = spans.subtract(lifted(rule), known[version])
        if new.pairs and services:
            known[version] = spans.union([known[version], new])
            for left, unopened in other.missing(new, services):
                for rest, found in own.missing(left, unopened):
                    yield from _told(Kind.ANSWER, rest, found, rule)


def _told(kind: Kind, addresses: Spans, services: tuple[Service, ...], rule: RangeRule) -> Iterator[Opening]:
    if effective(services):
        for network in spans.networks(addresses):
            if outward(network).pairs:
                yield at_network(kind, network, services, rule.origin)


def _union(parts: Iterable[Spans], version: int) -> Spans:
    return spans.union([Spans(version, ()), *(part for part in parts if part.version == version)])


class _Ranges:
    """What the ranges of a ruleset open, for asking what they do not."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._groups = {
            version: [(plain(g.services), g.spans) for g in ruleset.groups if g.version == version]
            for version in (4, 6)
        }
        self._elements = {
            version: elements(s for own, _ in groups for s in own) for version, groups in self._groups.items()
        }
        self._opened: dict[tuple[int, Service], Spans] = {}
        self._pieces: dict[tuple[int, tuple[Service, ...]], list[tuple[Service, Spans]]] = {}

    def missing(self, addresses: Spans, services: tuple[Service, ...]) -> list[tuple[Spans, tuple[Service, ...]]]:
        """Those of the services, at those of the addresses, that no range opens: services with the same addresses together."""
        found: dict[tuple[spans.Pair, ...], list[Service]] = {}
        for piece, opened in self._cut(addresses.version, services):
            left = spans.subtract(addresses, opened)
            if left.pairs:
                found.setdefault(left.pairs, []).append(piece)
        return [(Spans(addresses.version, left), merged(pieces)) for left, pieces in found.items()]

    def _cut(self, version: int, services: tuple[Service, ...]) -> list[tuple[Service, Spans]]:
        """The services in pieces, each with the addresses at which all of it is open."""
        key = (version, services)
        if key not in self._pieces:
            known = self._elements[version]
            unknown = [(piece, Spans(version, ())) for piece in subtract(services, known)]
            shared = [
                (both, self._at(version, e)) for e in known for s in services if (both := _common(e, s)) is not None
            ]
            self._pieces[key] = [*unknown, *shared]
        return self._pieces[key]

    def _at(self, version: int, element: Service) -> Spans:
        key = (version, element)
        if key not in self._opened:
            groups = self._groups[version]
            self._opened[key] = _union((a for own, a in groups if any(s.contains(element) for s in own)), version)
        return self._opened[key]


def _common(one: Service, other: Service) -> Service | None:
    first, last = max(one.first, other.first), min(one.last, other.last)
    return Service(one.protocol, first, last) if one.protocol == other.protocol and first <= last else None
