"""Small rulesets, and every flow that could tell them apart: the universe in which comparisons are counted out."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from netpolicy.addresses import forbidden
from netpolicy.algebra import HOST, Kind, Opening
from netpolicy.decide import decide
from netpolicy.flow import Address, Flow, Origin
from netpolicy.patterns import covers
from netpolicy.ruleset import HostRule, Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service, subtract

NAMES = (
    "a.example",
    "b.example",
    "x.b.example",
    "*.example",
    "*.b.example",
    "*.x.b.example",
    "*.com",
    "app.localhost",
    "*.localhost",
    "Odd.example",
    "",
)
#: Nested and neighbouring, public and private, with the corners: metadata inside link-local, loopback, mapped, everything.
NETWORKS = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/0", "192.0.2.0/30", "192.0.2.0/31", "192.0.2.2/31", "192.0.2.1/32", "8.0.0.0/6", "10.0.0.0/8", "10.0.0.0/9",
        "10.128.0.0/9", "10.0.0.0/31", "10.0.0.1/32", "169.254.0.0/16", "169.254.169.254/32", "127.0.0.0/8", "127.0.0.1/32",
        "::/0", "::/96", "2001:db8::/126", "2001:db8::/127", "2001:db8::2/127", "fc00::/7", "fd00::/127", "fe80::/10", "::ffff:0:0/96",
        "::ffff:192.0.2.1/128",
    )
)  # fmt: skip
SERVICES = (
    Service(6, 53, 53), Service(6, 52, 54), Service(6, 1, 2), Service(6, 2, 3), Service(6, 3, 3), Service(6, 1, 3), Service(17, 53, 53),
    Service(17, 2, 2), Service(6, 0, 0), Service(6, 1, 65535), Service(1), Service(58), Service(1, 0, 9), Service(47, 5, 6), Service(47),
)  # fmt: skip

_asked = (
    "a.example",
    "b.example",
    "c.example",
    "x.b.example",
    "y.b.example",
    "z.x.b.example",
    "example",
    "www.example.com",
    "app.localhost",
)
#: One name of each region that the rules can make.
_RESOLVED = (
    "",
    "a.example",
    "b.example",
    "c.example",
    "x.b.example",
    "y.b.example",
    "z.x.b.example",
    "www.example.com",
)
_addresses = tuple(
    ip_address(text)
    for text in (
        "1.1.1.1", "192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3", "8.8.8.8", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.200.0.0",
        "169.254.1.1", "169.254.169.254", "127.0.0.1", "127.0.0.2", "224.0.0.1", "2001:db8::", "2001:db8::1", "2001:db8::2",
        "2001:db8::3", "2001:db9::", "::7", "fd00::1", "fd00::2", "fc00::1", "fe80::1", "fe80::2", "::ffff:192.0.2.1", "::1",
    )
)  # fmt: skip
_kinds = (
    (6, None),
    (6, 1),
    (6, 2),
    (6, 3),
    (6, 4),
    (6, 52),
    (6, 53),
    (17, 2),
    (17, 53),
    (1, None),
    (58, None),
    (47, None),
)
FLOWS = tuple(
    flow
    for protocol, port in _kinds
    for flow in (
        *(Flow(protocol, port, name=name) for name in _asked),
        *(Flow(protocol, port, address=address) for address in _addresses),
    )
)

_TO = {address: [flow for flow in FLOWS if flow.address == address] for address in _addresses}

_services = st.lists(st.sampled_from(SERVICES), min_size=1, max_size=2).map(tuple)
_denied = st.just(EVERY) | _services
_ends = st.sampled_from([None, None, 100.0, 200.0])
#: Before any rule ends, and when rules do.
MOMENTS = (None, 100.0, 200.0)


def _origins(kind: str) -> st.SearchStrategy[Origin]:
    return st.integers(0, 5).map(lambda number: Origin("p.json", f"{kind}[{number}]", "x"))


def _ranges(
    most: int, services: st.SearchStrategy[Any], kind: str, ends: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    rules = st.builds(RangeRule, st.sampled_from(NETWORKS), services, _origins(kind), ends)
    return st.lists(rules, max_size=most).map(tuple)


def _named(
    most: int, services: st.SearchStrategy[Any], kind: str, ends: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    rules = st.builds(NameRule, st.sampled_from(NAMES), services, _origins(kind), ends)
    return st.lists(rules, max_size=most).map(tuple)


def rulesets(*, distinct_origins: bool = False) -> st.SearchStrategy[Ruleset]:
    """Rulesets that nobody has tidied, also such as `compile` would never make."""
    found = st.builds(
        Ruleset,
        policy=st.just("p"),
        mode=st.sampled_from(["enforce"] * 6 + ["observe", "off"]),
        names=_named(3, _services, "allow", _ends),
        ranges=_ranges(4, _services, "allow", _ends),
        host=st.lists(st.builds(HostRule, st.sampled_from(SERVICES), _origins("host")), max_size=2).map(tuple),
        denied_names=_named(2, _denied, "deny", st.none()),
        denied_ranges=_ranges(2, _denied, "deny", st.none()),
        ipv6=st.sampled_from([True, True, True, False]),
    )
    return found.map(numbered) if distinct_origins else found


def numbered(ruleset: Ruleset) -> Ruleset:
    """The same rules, each with an origin of its own."""

    def origin(kind: str, index: int) -> Origin:
        return Origin("p.json", f"{kind}[{index}]", "x")

    return replace(
        ruleset,
        names=tuple(replace(r, origin=origin("names", i)) for i, r in enumerate(ruleset.names)),
        ranges=tuple(replace(r, origin=origin("ranges", i)) for i, r in enumerate(ruleset.ranges)),
        host=tuple(replace(r, origin=origin("host", i)) for i, r in enumerate(ruleset.host)),
        denied_names=tuple(replace(r, origin=origin("denied_names", i)) for i, r in enumerate(ruleset.denied_names)),
        denied_ranges=tuple(replace(r, origin=origin("denied_ranges", i)) for i, r in enumerate(ruleset.denied_ranges)),
    )


def without(ruleset: Ruleset, origins: set[Origin]) -> Ruleset:
    """The ruleset without the rules of these origins."""
    return replace(
        ruleset,
        names=tuple(r for r in ruleset.names if r.origin not in origins),
        ranges=tuple(r for r in ruleset.ranges if r.origin not in origins),
        host=tuple(r for r in ruleset.host if r.origin not in origins),
        denied_names=tuple(r for r in ruleset.denied_names if r.origin not in origins),
        denied_ranges=tuple(r for r in ruleset.denied_ranges if r.origin not in origins),
    )


Fate = tuple[float | None, str, Flow]


def reached(ruleset: Ruleset) -> set[Fate]:
    """Every (moment, world, flow) that passes; a world says which name resolves to which address, or that none does."""
    return {
        (moment, *fate) for moment in MOMENTS for fate in _reached(ruleset if moment is None else ruleset.at(moment))
    }


@lru_cache(8)
def _reached(ruleset: Ruleset) -> frozenset[tuple[str, Flow]]:
    plainly = {flow for flow in FLOWS if decide(ruleset, flow, attachment=HOST).allowed}
    found = {("", flow) for flow in plainly}
    opened: dict[tuple[tuple[Service, ...], Address], list[Flow]] = {}
    for name in _RESOLVED:
        services = ruleset.services_of(name)
        for address, flows in _TO.items():
            if not _learns(ruleset, name, address):
                passing = [flow for flow in flows if flow in plainly]
            else:
                # What names resolve to is all that tells those apart that have the same services.
                if (services, address) not in opened:
                    entry = Learned(name, address, services, 60)
                    opened[services, address] = [
                        f for f in flows if decide(ruleset, f, [entry], attachment=HOST).allowed
                    ]
                passing = opened[services, address]
            found.update((f"{name} is {address}", flow) for flow in passing)
    return frozenset(found)


def _learns(ruleset: Ruleset, name: str, address: Address) -> bool:
    """What the DNS gate does with an answer."""
    usable = subtract(ruleset.services_of(name), ruleset.denied_at(address))
    family = address.version == 4 or ruleset.ipv6
    permitted = [rule.network for rule in ruleset.ranges]
    return ruleset.mode == "enforce" and bool(usable) and family and forbidden(address, permitted) is None


def has(opening: Opening, world: str, flow: Flow) -> bool:
    """Whether a flow is one of an opening's."""
    covered = any(service.covers(flow.protocol, flow.port) for service in opening.services)
    match opening.kind:
        case Kind.NAME:
            # A name's flows go to whatever it resolves to.
            name = world.partition(" is ")[0] if flow.name is None and world else flow.name
            where = str(opening.where)
            return (
                covered and name is not None and covers(where, name) and not any(covers(p, name) for p in opening.apart)
            )
        case Kind.NETWORK:
            return covered and flow.address is not None and flow.address in opening.where  # type: ignore[operator]
        case Kind.ANSWER:
            return bool(world) and covered and flow.address is not None and flow.address in opening.where  # type: ignore[operator]
        case Kind.HOST:
            return covered and flow.address in HOST.gateways
        case Kind.EVERYTHING | Kind.OBSERVED:
            return flow.address not in HOST.gateways and (covered or not opening.services)
