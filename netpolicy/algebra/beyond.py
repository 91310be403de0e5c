"""The one question under all comparisons: what does this ruleset open that the other one does not, and from when on?

Rules only end, so both open less and less. What the one opens beyond the other begins at once, or when a rule of the other ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

from netpolicy import patterns, spans
from netpolicy.algebra.normal import answerable, asked, common, effective, lifted, outward, plain
from netpolicy.algebra.openings import Kind, Opening, at_host, at_name, at_network
from netpolicy.algebra.pieces import Open, Piece, Told, without
from netpolicy.algebra.regions import Regions
from netpolicy.decide import decide
from netpolicy.flow import PROTOCOLS, Flow, Origin
from netpolicy.prefixes import Prefixes
from netpolicy.ruleset import NameRule, RangeRule, Ruleset, end
from netpolicy.services import Service, merged, subtract
from netpolicy.spans import Spans

_HTTPS = (PROTOCOLS["tcp"], 443)
_DNS = (Service(PROTOCOLS["tcp"], 53, 53), Service(PROTOCOLS["udp"], 53, 53))
_ALL_IPV6 = ip_network("::/0")
#: What is given out (IANA: IPv6 global unicast address assignments).
_UNICAST = spans.of_networks([ip_network("2000::/3")], 6)
#: To any name server.
_QUERY = Flow(PROTOCOLS["udp"], 53, name="example.com")


def beyond(more: Ruleset, less: Ruleset) -> Iterator[Opening]:
    """What `more` opens and `less` does not, by the rules of `more`: host, names, networks, addresses in answers."""
    yield from _host(more, less)
    match more.mode, less.mode:
        case (_, "off") | ("enforce" | "observe", "observe"):
            return
        case "off", "observe":
            # Only an observed policy leaves queries to the gate.
            yield Opening(Kind.EVERYTHING, None, _DNS, None, _QUERY)
        case "off", _:
            yield Opening(Kind.EVERYTHING, None, (), None, _unknown(less))
        case "observe", _:
            yield Opening(Kind.OBSERVED, None, (), None, _unknown(less))
        case _:
            yield from _by_rules(more, less)


def _host(more: Ruleset, less: Ruleset) -> Iterator[Opening]:
    known = plain(rule.service for rule in less.host)
    for rule in more.host:
        new = subtract(plain([rule.service]), known)
        if effective(new):
            yield Opening(Kind.HOST, None, new, rule.origin, at_host(new))
        known = merged((*known, *new))


def _unknown(ruleset: Ruleset) -> Flow:
    """A flow to a name that the ruleset does not open: no rule is for names of two of these endings."""
    endings = ("com", *(f"test{number}" for number in range(len(ruleset.names) + 1)))
    tried = (
        Flow(*_HTTPS, name=name) for name in ("example.com", "www.example.com", *(f"example.{e}" for e in endings))
    )
    return next(flow for flow in tried if not decide(ruleset, flow).allowed)


def _by_rules(more: Ruleset, less: Ruleset) -> Iterator[Opening]:
    names, networks, answers = _Names(), Told(), Told()
    for since in (None, *less.ends):
        one, other = (more, less) if since is None else (more.at(since), less.at(since))
        yield from names.new(one, other, since)
        yield from _networks(one, other, networks, since)
        yield from _answers(one, other, answers, since)


class _Names:
    """What names open, told once."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[Service, ...]] = {}

    def new(self, more: Ruleset, less: Ruleset, since: float | None) -> Iterator[Opening]:
        """What is open beyond now, and was not before."""
        regions = Regions(more, less)
        found: dict[str, tuple[Service, ...]] = {}
        for name in regions.all:
            opened = plain(more.services_of(name))
            missing = subtract(opened, plain(less.services_of(name))) if opened else ()
            new = subtract(missing, self._before.get(name, ()))
            if effective(new):
                found[name] = new
            self._before[name] = missing
        left = dict(found)
        # The longest lasting first, so that an opening ends when its rule does.
        for rule in sorted(more.names, key=lambda rule: end(rule.until), reverse=True):
            if asked(rule.name):
                for name in (rule.name, *regions.inside(rule.name)):
                    if name in left:
                        yield from _at_region(name, rule, regions, found, left, since)


def _at_region(
    name: str,
    rule: NameRule,
    regions: Regions,
    found: dict[str, tuple[Service, ...]],
    left: dict[str, tuple[Service, ...]],
    since: float | None,
) -> Iterator[Opening]:
    """What a rule opens in a region, and in those within that it opens as well."""
    services = common(left[name], plain(rule.services))
    if not effective(services):
        return
    left[name] = subtract(left[name], services)
    apart: list[str] = []
    for inner in regions.inside(name):
        if effective(subtract(services, found.get(inner, ()))):
            apart.append(inner)
        elif not any(patterns.within(inner, outer) for outer in apart):
            left[inner] = subtract(left[inner], services)
    apart = [inner for inner in apart if not any(patterns.within(inner, outer) for outer in apart if outer != inner)]
    example = at_name(regions.example(name), services)
    yield Opening(Kind.NAME, name, services, rule.origin, example, tuple(apart), since, rule.until)


def _networks(more: Ruleset, less: Ruleset, told: Told, since: float | None) -> Iterator[Opening]:
    own, other = ({version: Open(ruleset, version) for version in (4, 6)} for ruleset in (more, less))
    for rule in _distinct(more):
        version = rule.network.version
        opened = without([(spans.of_networks([rule.network], version), rule.services)], own[version].denied)
        missing = [piece for part in opened for piece in other[version].missing(*part)]
        yield from _told(Kind.NETWORK, told.new(missing, version), rule.origin, since, rule.until)
    told.remember()


def _distinct(ruleset: Ruleset) -> Iterator[RangeRule]:
    """The allowing ranges, each reduced to the services that no network around it has for as long."""
    known: Prefixes[Service] = Prefixes()
    for rule in sorted(ruleset.ranges, key=lambda rule: (-end(rule.until), rule.network.prefixlen)):
        new = subtract(plain(rule.services), known.around(rule.network))
        if new and (rule.network.version == 4 or ruleset.ipv6):
            known.add(rule.network, *new)
            yield replace(rule, services=new)


def _answers(more: Ruleset, less: Ruleset, told: Told, since: float | None) -> Iterator[Opening]:
    """Where names may resolve to by the one and not by the other, so that addresses open which no range does.

    It is about names that both open: what the other does not open by name is told already, wherever it resolves to.
    """
    patterns = (name for name in Regions(more, less).all if more.knows(name))
    both = merged(s for name in patterns for s in common(plain(more.services_of(name)), plain(less.services_of(name))))
    for version in (4, 6):
        if not effective(both) or (version == 6 and not more.ipv6):
            continue
        own, other = Open(more, version), Open(less, version)
        for addresses, services, origin, until in _differing(more, less, version, both):
            pieces = without([(addresses, services)], own.denied)
            # What ranges open is told already.
            pieces = [left for piece in pieces for left in other.missing(*piece)]
            pieces = told.new([left for piece in pieces for left in own.missing(*piece)], version)
            if version == 6 and not less.ipv6:
                yield from _by_ipv6(pieces, since)
            else:
                yield from _told(Kind.ANSWER, pieces, origin, since, until)
            told.remember()


def _by_ipv6(pieces: list[Piece], since: float | None) -> Iterator[Opening]:
    """That names may have IPv6 addresses at all, told as one."""
    usable = [(addresses, found) for addresses, services in pieces if (found := effective(services))]
    if usable:
        addresses, services = usable[0]
        likely = spans.intersect(addresses, _UNICAST) or addresses
        example = at_network(next(spans.networks(likely)), services)
        every = merged(s for _, found in usable for s in found)
        yield Opening(Kind.ANSWER, _ALL_IPV6, every, None, example, (), since)


def _differing(
    more: Ruleset, less: Ruleset, version: int, services: tuple[Service, ...]
) -> Iterator[tuple[Spans, tuple[Service, ...], Origin | None, float | None]]:
    """Addresses to which names may resolve by the one; by the other not, or not with some services. With the rule behind it."""
    if version == 6 and not less.ipv6:
        yield answerable(more.ranges, version), services, None, None
        return
    known = answerable(less.ranges, version)
    for rule in sorted(more.ranges, key=lambda rule: end(rule.until), reverse=True):
        if rule.network.version == version:
            new = spans.subtract(lifted(rule), known)
            if new.pairs:
                yield new, services, rule.origin, rule.until
    denials = [denial for denial in less.denied_ranges if denial.network.version == version]
    found = answerable(more.ranges, version) if denials else Spans(version, ())
    for denial in denials:
        inside = spans.intersect(spans.of_networks([denial.network], version), found)
        yield inside, common(services, plain(denial.services)), denial.origin, None


def _told(
    kind: Kind, pieces: list[Piece], origin: Origin | None, since: float | None, until: float | None
) -> Iterator[Opening]:
    for addresses, services in pieces:
        if effective(services):
            for network in spans.networks(addresses):
                if outward(network).pairs:
                    example = at_network(network, services)
                    yield Opening(kind, network, services, origin, example, (), since, until)
