"""Small rulesets, and every flow that could tell them apart: the universe in which comparisons are counted out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from netpolicy.addresses import forbidden
from netpolicy.algebra import HOST, Kind, Opening
from netpolicy.decide import decide
from netpolicy.flow import Flow, Origin
from netpolicy.ruleset import HostRule, Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import Service

NAMES = ("a.example", "b.example", "app.localhost", "Odd.example", "")
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

_names = (*(name for name in NAMES if name), "unknown.example")
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
        *(Flow(protocol, port, name=name) for name in _names),
        *(Flow(protocol, port, address=address) for address in _addresses),
    )
)

_TO = {address: [flow for flow in FLOWS if flow.address == address] for address in _addresses}

_services = st.lists(st.sampled_from(SERVICES), min_size=1, max_size=2).map(tuple)
_origins = st.integers(0, 5).map(lambda number: Origin("p.json", f"allow[{number}]", "x"))


def rulesets(*, distinct_origins: bool = False) -> st.SearchStrategy[Ruleset]:
    """Rulesets that nobody has tidied, also such as `compile` would never make."""
    found = st.builds(
        Ruleset,
        policy=st.just("p"),
        mode=st.sampled_from(["enforce", "enforce", "enforce", "off"]),
        names=st.lists(st.builds(NameRule, st.sampled_from(NAMES), _services, _origins), max_size=3).map(tuple),
        ranges=st.lists(st.builds(RangeRule, st.sampled_from(NETWORKS), _services, _origins), max_size=4).map(tuple),
        host=st.lists(st.builds(HostRule, st.sampled_from(SERVICES), _origins), max_size=2).map(tuple),
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
    )


def without(ruleset: Ruleset, origins: set[Origin]) -> Ruleset:
    """The ruleset without the rules of these origins."""
    return replace(
        ruleset,
        names=tuple(r for r in ruleset.names if r.origin not in origins),
        ranges=tuple(r for r in ruleset.ranges if r.origin not in origins),
        host=tuple(r for r in ruleset.host if r.origin not in origins),
    )


def reached(ruleset: Ruleset) -> set[tuple[str, Flow]]:
    """Every (world, flow) that passes; a world says which name resolves to which address, or that none does."""
    plainly = {flow for flow in FLOWS if decide(ruleset, flow, attachment=HOST).allowed}
    found = {("", flow) for flow in plainly}
    permitted = [rule.network for rule in ruleset.ranges]
    for name in ("", "a.example", "b.example"):
        for address, flows in _TO.items():
            entries: list[Learned] = []
            if ruleset.mode == "enforce" and name in ruleset.by_name and forbidden(address, permitted) is None:
                entries = [Learned(name, address, ruleset.services_of(name), 60)]
            for flow in flows:
                if flow in plainly or (entries and decide(ruleset, flow, entries, attachment=HOST).allowed):
                    found.add((f"{name} is {address}", flow))
    return found


def has(opening: Opening, world: str, flow: Flow) -> bool:
    """Whether a flow is one of an opening's."""
    covered = any(service.covers(flow.protocol, flow.port) for service in opening.services)
    match opening.kind:
        case Kind.NAME:
            # A name's flows go to whatever it resolves to.
            return covered and (
                world.startswith(f"{opening.where} is ") if flow.name is None else flow.name == opening.where
            )
        case Kind.NETWORK:
            return covered and flow.address is not None and flow.address in opening.where  # type: ignore[operator]
        case Kind.ANSWER:
            return bool(world) and covered and flow.address is not None and flow.address in opening.where  # type: ignore[operator]
        case Kind.HOST:
            return covered and flow.address in HOST.gateways
        case Kind.EVERYTHING:
            return flow.address not in HOST.gateways
