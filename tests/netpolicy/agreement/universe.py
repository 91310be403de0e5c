"""A world so small that random rules and flows meet, overlap, shadow each other and just miss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from hypothesis import strategies as st

from netpolicy.flow import PORTED, Address, Flow, Origin
from netpolicy.ruleset import HostRule, Learned, Mode, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service, merged

ORIGIN: Final = Origin("test", "test", "test")
POOLS: Final = {4: IPv4Network("203.0.113.0/29"), 6: IPv6Network("2001:db8:a::/125")}
#: In no pool: rarely touched by a denial.
FAR: Final = {4: IPv4Address("192.0.2.77"), 6: IPv6Address("2001:db8:a:77::1")}
WIDE: Final = {
    4: ("0.0.0.0/0", "203.0.0.0/8", "128.0.0.0/1", "203.0.113.0/24"),
    6: ("::/0", "2001:db8::/32", "2000::/3", "2001:db8:a::/64"),
}
PORTS: Final = (1, 52, 53, 54, 79, 80, 81, 442, 443, 444, 8000, 65535)
ICMP: Final = {4: 1, 6: 58}
NAMED: Final = (6, 17, 132, 136)
#: "Use for experimentation and testing" (RFC 3692): no rule can name it.
UNNAMED: Final = 253
#: A port of the host that every ruleset opens, so that every batch has a packet which must arrive.
OPEN: Final = Service(17, 9, 9)
#: Below a domain that only one example has, so that examples do not remember each other.
PATTERNS: Final = ("a", "b", "x.w", "y.x.w", "*.w", "*.x.w")
ASKED: Final = ("a", "b", "x.w", "y.x.w", "z.w")


@dataclass(frozen=True)
class Step:
    """A ruleset, what the gate answers once it is in force, and the flows that are tried then."""

    ruleset: Ruleset
    answers: tuple[tuple[str, Address], ...]
    flows: tuple[Flow, ...]


_ports = st.sampled_from(PORTS)


@st.composite
def _services(draw: st.DrawFn) -> tuple[Service, ...]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 9))
        protocol = draw(st.sampled_from((6, 6, 17, 17, 132, 136)))
        one, two = sorted((draw(_ports), draw(_ports)))
        if kind < 4:
            found.append(Service(protocol, one, one))
        elif kind < 7:
            found.append(Service(protocol, one, two))
        elif kind < 8:
            found.append(Service(protocol, 1, 65535))
        else:
            found.append(Service(draw(st.sampled_from((1, 58)))))
    return merged(found)


@st.composite
def _networks(draw: st.DrawFn, version: int) -> IPv4Network | IPv6Network:
    pool = POOLS[version]
    if draw(st.integers(0, 5)) == 0:
        text = draw(st.sampled_from(WIDE[version]))
        return IPv4Network(text) if version == 4 else IPv6Network(text)
    length = draw(st.integers(pool.prefixlen, pool.max_prefixlen))
    return draw(st.sampled_from(list(pool.subnets(new_prefix=length))))


_ends = st.sampled_from((None, None, None, "past", "future"))
_denied_services = st.one_of(st.just(EVERY), _services())


@st.composite
def _flows(draw: st.DrawFn, version: int, extra: tuple[Address, ...], aims: tuple[Service, ...]) -> Flow:
    pool = [*POOLS[version]] * 2
    address = draw(st.sampled_from([*pool, FAR[version], *(e for e in extra if e.version == version)]))
    aim = draw(st.sampled_from(aims)) if aims and draw(st.integers(0, 3)) else None
    if aim is None or aim.protocol == ICMP[10 - version]:
        protocol = draw(st.sampled_from((6, 6, 6, 17, 17, 17, ICMP[version], 132, 136, UNNAMED)))
        return Flow(protocol, draw(_ports) if protocol in PORTED else None, None, address)
    edges = [port for port in (aim.first, aim.last, aim.first - 1, aim.last + 1) if 1 <= port <= 65535]
    return Flow(aim.protocol, draw(st.sampled_from(edges)) if aim.protocol in PORTED else None, None, address)


@st.composite
def steps(draw: st.DrawFn, version: int, mode: Mode, extra: tuple[Address, ...], moment: float) -> Step:
    """A step whose flows are of one family; its rules are of both, mostly of that one.

    Args:
        extra: Addresses that have a meaning to the attachment: gateways, loopback, free networks.
        moment: Now, in seconds since 1970: rules end an hour before it or an hour after it.
    """
    ends = {None: None, "past": moment - 3600, "future": moment + 3600}
    families = st.sampled_from((version, version, version, version, 10 - version))

    def ranges(
        services: st.SearchStrategy[tuple[Service, ...]], most: int, *, ending: bool, least: int = 0
    ) -> tuple[RangeRule, ...]:
        return tuple(
            RangeRule(draw(_networks(draw(families))), draw(services), ORIGIN, ends[draw(_ends)] if ending else None)
            for _ in range(draw(st.integers(least, most)))
        )

    def names(services: st.SearchStrategy[tuple[Service, ...]], most: int, *, ending: bool) -> tuple[NameRule, ...]:
        return tuple(
            NameRule(draw(st.sampled_from(PATTERNS)), draw(services), ORIGIN, ends[draw(_ends)] if ending else None)
            for _ in range(draw(st.integers(0, most)))
        )

    denies = draw(st.integers(0, 2)) == 0
    pools = st.sampled_from([*POOLS[version], FAR[version]])
    ruleset = Ruleset(
        "random",
        mode=mode,
        names=names(_services(), 3, ending=True),
        ranges=ranges(st.one_of(_services(), _services(), st.just(EVERY)), 4, ending=True, least=1),
        denied_names=names(_denied_services, 2, ending=False) if denies else (),
        denied_ranges=ranges(_denied_services, 2, ending=False) if denies else (),
        host=tuple(HostRule(s, ORIGIN) for s in (OPEN, *(draw(_services()) if draw(st.booleans()) else ()))),
        ipv6=draw(st.integers(0, 6)) > 0,
    )
    answers = draw(st.lists(st.tuples(st.sampled_from(ASKED), pools), max_size=4))
    every = (*ruleset.names, *ruleset.ranges, *ruleset.denied_names, *ruleset.denied_ranges)
    aims = tuple(service for rule in every if rule.services is not EVERY for service in rule.services)
    flows = draw(st.lists(_flows(version, extra, aims), min_size=12, max_size=24))
    return Step(ruleset, tuple(answers), tuple(flows))


def placed(step: Step, serial: int) -> Step:
    """The same step with its names below the domain of one example."""

    def below(rules: tuple[NameRule, ...]) -> tuple[NameRule, ...]:
        return tuple(replace(rule, name=f"{rule.name}.e{serial}.example") for rule in rules)

    rules = step.ruleset
    return Step(
        replace(rules, names=below(rules.names), denied_names=below(rules.denied_names)),
        tuple((f"{name}.e{serial}.example", address) for name, address in step.answers),
        step.flows,
    )


def remembered(
    rules: Ruleset, before: frozenset[tuple[str, Address]], new: tuple[tuple[str, Address], ...]
) -> tuple[frozenset[tuple[str, Address]], list[Learned]]:
    """What the gate's answers have opened: those of before whose names are still allowed, and the new ones."""
    pairs = {
        (name, address)
        for name, address in (*before, *new)
        if rules.mode != "off" and rules.knows(name) and (rules.ipv6 or address.version == 4)
    }
    return frozenset(pairs), [
        Learned(name, address, rules.services_of(name), 3600) for name, address in sorted_pairs(pairs)
    ]


def sorted_pairs(pairs: set[tuple[str, Address]]) -> list[tuple[str, Address]]:
    """In an order of its own, for stable failures."""
    return sorted(pairs, key=lambda pair: (pair[0], pair[1].version, int(pair[1])))
