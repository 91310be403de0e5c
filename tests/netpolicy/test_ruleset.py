"""The one artefact: its JSON form, its id, and the arithmetic of services and networks below it."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import addresses, anything, documents, networks, ports

from netpolicy import compile_policy, spans
from netpolicy.flow import Origin
from netpolicy.policy import parse
from netpolicy.prefixes import Prefixes
from netpolicy.ruleset import HostRule, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service, elements, merged, subtract

HERE = Origin("test", "key", "text")
HTTPS = Service(6, 443, 443)

services = st.lists(
    st.builds(lambda protocol, a, b: Service(protocol, min(a, b), max(a, b)), st.sampled_from([6, 17]), ports, ports)
    | st.just(Service(1)),
    max_size=6,
)


def pairs(found: Any) -> set[tuple[int, int]]:
    """All (protocol, port) of services, near the edges that matter."""
    edges = {edge + d for s in found for edge in (s.first, s.last) for d in (-1, 0, 1)}
    return {(s.protocol, edge) for s in found for edge in edges if s.first <= edge <= s.last}


@given(services, services)
def test_services_are_merged_and_subtracted_like_sets(some: list[Service], others: list[Service]) -> None:
    edges = [(p, e + d) for s in some + others for p in (1, 6, 17) for e in (s.first, s.last) for d in (-1, 0, 1)]

    def has(found: Any, protocol: int, port: int) -> bool:
        return any(s.protocol == protocol and s.first <= port <= s.last for s in found)

    union, difference = merged(some), subtract(some, others)
    for protocol, port in edges:
        assert has(union, protocol, port) == has(some, protocol, port)
        assert has(difference, protocol, port) == (has(some, protocol, port) and not has(others, protocol, port))
    for found in (union, difference):
        assert merged(found) == found
        assert all(a.protocol != b.protocol or a.last + 1 < b.first for a, b in pairwise(found))


@given(services)
def test_elements_are_pieces_of_all_services(some: list[Service]) -> None:
    pieces = elements(some)
    assert merged(pieces) == merged(some)
    for piece in pieces:
        for service in some:
            assert service.contains(piece) or not pairs([service]) & pairs([piece])


def test_services_are_written_as_the_language_has_them() -> None:
    written = [Service(6, 443, 443), Service(17, 1, 65535), Service(6, 8, 9), Service(1), Service(58), Service(47)]
    assert [str(s) for s in written] == ["443/tcp", "*/udp", "8-9/tcp", "icmp", "icmpv6", "47"]
    assert Service(1).covers(1, None)
    assert Service(1).covers(1, 8), "protocols without ports ignore the port"
    assert not HTTPS.covers(6, None)
    assert not HTTPS.covers(17, 443)


@given(st.lists(networks(), max_size=12), addresses() | networks())
def test_prefixes_find_exactly_what_lies_around(found: list[Any], inner: Any) -> None:
    index: Prefixes[Any] = Prefixes()
    for network in found:
        index.add(network, network)
    wanted = ip_network(inner)
    around = [n for n in found if n.version == wanted.version and wanted.subnet_of(n)]
    got = list(index.around(inner))
    assert sorted(got) == sorted(around)
    assert [n.prefixlen for n in got] == sorted(n.prefixlen for n in around)


@given(st.lists(networks(), max_size=8), st.lists(networks(), max_size=8), addresses())
def test_spans_are_sets_of_addresses(some: list[Any], others: list[Any], address: Any) -> None:
    version = address.version
    parts = [spans.of_networks([n for n in part if n.version == version], version) for part in (some, others)]
    union = spans.union(parts)
    for found, listed in ((parts[0], some), (parts[1], others), (union, some + others)):
        assert (int(address) in found) == any(address in n for n in listed)
        assert all(a[1] + 1 < b[0] for a, b in pairwise(found.pairs))
    assert union.digest == spans.union(parts[::-1]).digest
    assert (union.digest == parts[0].digest) == (union.pairs == parts[0].pairs)


@given(st.lists(st.tuples(networks(), services), max_size=8), addresses(), st.sampled_from([80, 443, 8000]))
def test_ranges_are_grouped_without_losing_any(rows: list[Any], address: Any, port: int) -> None:
    ruleset = Ruleset("p", ranges=tuple(RangeRule(network, tuple(found), HERE) for network, found in rows))
    grouped = any(
        int(address) in group.spans and any(s.covers(6, port) for s in group.services)
        for group in ruleset.groups
        if group.version == address.version
    )
    assert grouped == any(s.covers(6, port) for s in ruleset.services_at(address))


@given(documents())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_ruleset_survives_json(document: dict[str, Any]) -> None:
    ruleset = compile_policy(parse(document, source="p.json"))
    again = Ruleset.from_json(json.loads(json.dumps(ruleset.to_json())))
    assert again == ruleset
    assert (again.id, again.warnings, again.to_json()) == (ruleset.id, ruleset.warnings, ruleset.to_json())


def test_the_id_is_about_the_meaning_alone() -> None:
    other = Origin("elsewhere", "x", "y", "because")
    whole = RangeRule(ip_network("192.0.2.0/24"), (HTTPS,), HERE)
    halves = tuple(RangeRule(ip_network(n), (HTTPS,), other) for n in ("192.0.2.128/25", "192.0.2.0/25"))
    names = (NameRule("a.example", (HTTPS, Service(6, 80, 80)), HERE),)
    split = (NameRule("a.example", (Service(6, 80, 80),), other), NameRule("a.example", (HTTPS,), other))
    one = Ruleset("one", names=names, ranges=(whole,), host=(HostRule(Service(6, 1, 2), HERE),))
    two = Ruleset(
        "two", names=split, ranges=halves, host=(HostRule(Service(6, 2, 2), other), HostRule(Service(6, 1, 1), HERE))
    )
    assert one.id == two.id
    assert len(one.id) == 12
    different = [
        Ruleset("one", mode="off", names=names, ranges=(whole,), host=one.host),
        Ruleset("one", names=names, ranges=(whole,)),
        Ruleset("one", names=names, ranges=halves[:1], host=one.host),
        Ruleset("one", names=split[:1], ranges=(whole,), host=one.host),
        Ruleset("one", names=names, ranges=(RangeRule(whole.network, (Service(17, 443, 443),), HERE),), host=one.host),
    ]
    assert len({one.id, *(ruleset.id for ruleset in different)}) == 6


def test_a_rule_inside_another_one_does_not_change_the_id() -> None:
    wide = RangeRule(ip_network("192.0.2.0/24"), (Service(6, 80, 90),), HERE)
    inner = RangeRule(ip_network("192.0.2.8/29"), (Service(6, 85, 85),), HERE)
    beside = RangeRule(ip_network("198.51.100.0/29"), (Service(6, 85, 85),), HERE)
    assert Ruleset("one", ranges=(wide, inner)).id == Ruleset("two", ranges=(wide,)).id
    assert Ruleset("one", ranges=(wide, beside)).id != Ruleset("two", ranges=(wide,)).id


def test_what_a_ruleset_opens_for_a_name_or_address() -> None:
    ruleset = Ruleset(
        "p",
        names=(NameRule("a.example", (HTTPS,), HERE), NameRule("a.example", (Service(6, 444, 444),), HERE)),
        ranges=(
            RangeRule(ip_network("192.0.2.0/24"), (HTTPS,), HERE),
            RangeRule(ip_network("192.0.2.7/32"), (Service(1),), HERE),
        ),
    )
    assert ruleset.services_of("a.example") == (Service(6, 443, 444),)
    assert ruleset.services_of("b.example") == ()
    assert ruleset.services_at(ip_address("192.0.2.7")) == (Service(1), HTTPS)
    assert ruleset.services_at(ip_address("2001:db8::1")) == ()


def test_denials_are_taken_from_what_is_open() -> None:
    ruleset = Ruleset(
        "p",
        names=(NameRule("*.example", (HTTPS,), HERE), NameRule("a.example", (Service(6, 22, 22),), HERE)),
        ranges=(RangeRule(ip_network("192.0.2.0/24"), (HTTPS,), HERE), RangeRule(ip_network("::/0"), (HTTPS,), HERE)),
        denied_names=(NameRule("a.example", (HTTPS,), HERE), NameRule("*.no.example", EVERY, HERE)),
        denied_ranges=(RangeRule(ip_network("192.0.2.128/25"), (HTTPS,), HERE),),
    )
    assert ruleset.services_of("b.example") == ruleset.services_of("*.example") == (HTTPS,)
    assert ruleset.services_of("a.example") == (Service(6, 22, 22),)
    assert not ruleset.knows("x.no.example")
    assert ruleset.knows("no.example")
    assert ruleset.exact_names == ("a.example",)
    assert [rule.name for rule in ruleset.rules_for("a.example")] == ["a.example", "*.example"]
    assert [rule.name for rule in ruleset.denials_for("x.no.example")] == ["*.no.example"]
    assert (
        ruleset.services_at(ip_address("192.0.2.1")) == ruleset.services_at(ip_address("::ffff:192.0.2.1")) == (HTTPS,)
    )
    assert ruleset.services_at(ip_address("192.0.2.130")) == ()
    assert (
        ruleset.denied_at(ip_address("192.0.2.130")) == ruleset.denied_at(ip_address("::ffff:192.0.2.130")) == (HTTPS,)
    )
    assert ruleset.services_at(ip_address("2001:db8::1")) == (HTTPS,)
    assert replace(ruleset, ipv6=False).services_at(ip_address("2001:db8::1")) == ()


def test_a_ruleset_at_a_moment_is_the_same_object_until_another_rule_ends() -> None:
    def until(name: str, end: float | None) -> NameRule:
        return NameRule(name, (HTTPS,), HERE, end)

    ruleset = Ruleset(
        "p",
        names=(until("a.example", 100.0), until("b.example", None)),
        ranges=(RangeRule(ip_network("192.0.2.0/24"), (HTTPS,), HERE, 200.0),),
    )
    assert (ruleset.next_end, ruleset.ends) == (100.0, (100.0, 200.0))
    assert ruleset.at(99.9) is ruleset
    later = ruleset.at(100)
    assert [rule.name for rule in later.names] == ["b.example"]
    assert later is ruleset.at(199)
    assert (later.next_end, len(later.ranges)) == (200.0, 1)
    assert ruleset.at(200).ranges == ()
    assert ruleset.at(150) == later, "whatever was asked for in between"
    assert Ruleset("p").next_end is None


def test_an_end_is_part_of_the_meaning() -> None:
    def with_ends(*ends: float | None) -> str:
        names = tuple(NameRule("a.example", (HTTPS,), HERE, end) for end in ends)
        networks = tuple(RangeRule(ip_network("192.0.2.0/24"), (HTTPS,), HERE, end) for end in ends)
        ids = {Ruleset("p", names=names).id, Ruleset("p", ranges=networks).id}
        assert len(ids) == 2
        return " ".join(sorted(ids))

    assert len({with_ends(None), with_ends(0), with_ends(100), with_ends(200)}) == 4
    assert with_ends(100) == with_ends(100.0) == with_ends(50, 100, 100.0)
    assert with_ends(None) == with_ends(100, None)


def test_a_ruleset_with_ends_and_denials_survives_json() -> None:
    ruleset = Ruleset(
        "p",
        "observe",
        names=(NameRule("*.example", (HTTPS,), HERE, 100.0),),
        denied_names=(NameRule("a.example", EVERY, HERE),),
        denied_ranges=(RangeRule(ip_network("192.0.2.0/24"), EVERY, HERE),),
        ipv6=False,
        on_drift="lock",
    )
    again = Ruleset.from_json(json.loads(json.dumps(ruleset.to_json())))
    assert (again, again.id) == (ruleset, ruleset.id)
    whole = Ruleset.from_json({**GOOD, "names": [["a.example", [[6, 1, 1]], ["s", "k", "t", None], 100]]})
    assert repr(whole.names[0].until) == "100.0"


GOOD = {
    "format": 2, "policy": "p", "mode": "enforce", "names": [], "ranges": [], "denied_names": [], "denied_ranges": [],
    "ipv6": True, "on_drift": "repair", "host": [], "warnings": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"ipv6": 1},
        {"on_drift": "open"},
        {"names": [["a.example", [], ["s", "k", "t", None], True]]},
        {"ranges": [["192.0.2.0/24", [], ["s", "k", "t", None], "soon"]]},
        {"ranges": [["192.0.2.0/24", [], ["s", "k", "t", None], float("inf")]]},
        {"denied_names": [["a.example", [], ["s", "k", "t", None], 100]]},
        {"denied_ranges": [["192.0.2.0/24", [], ["s", "k", "t", None], 100.0]]},
        {"mode": "open"},
        {"policy": 1},
        {"names": None},
        {"names": [["a.example", [[6, 443]], ["s", "k", "t"], None]]},
        {"names": [["a.example", [[6, 443, 80]], ["s", "k", "t", None], None]]},
        {"names": [["a.example", [["6", 443, 443]], ["s", "k", "t", None], None]]},
        {"names": [[1, [], ["s", "k", "t", None], None]]},
        {"ranges": [["192.0.2.1/24", [], ["s", "k", "t", None], None]]},
        {"ranges": [[3221225985, [], ["s", "k", "t", None], None]]},
        {"host": [[[6, 1, 70000], ["s", "k", "t", None]]]},
        {"host": [[[6, 1, 7], ["s"]]]},
        {"warnings": [1]},
    ],
)
def test_a_malformed_ruleset_is_refused(change: dict[str, Any]) -> None:
    assert Ruleset.from_json(GOOD).policy == "p"
    with pytest.raises(ValueError, match=r"."):
        Ruleset.from_json({**GOOD, **change})


@given(anything, st.sampled_from(sorted(GOOD)))
def test_any_json_is_a_ruleset_or_a_value_error(value: Any, key: str) -> None:
    for document in (value, {**GOOD, key: value}):
        try:
            found = Ruleset.from_json(document)
        except ValueError:
            continue
        assert Ruleset.from_json(found.to_json()) == found


def test_an_address_that_is_not_public_is_admitted_by_a_range_of_its_own() -> None:
    def of(*texts: str) -> Ruleset:
        return Ruleset("test", ranges=tuple(RangeRule(ip_network(text), (HTTPS,), HERE) for text in texts))

    private, public = ip_address("10.1.2.3"), ip_address("192.0.2.1")
    assert of("10.1.2.0/24").admits(private)
    for ranges in ((), ("10.1.3.0/24",), ("0.0.0.0/0",)):
        assert not of(*ranges).admits(private), ranges
        assert of(*ranges).admits(public), ranges
