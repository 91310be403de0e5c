"""Sets of addresses as ranges of numbers, against the ipaddress module."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, collapse_addresses, summarize_address_range

from hypothesis import given
from hypothesis import strategies as st

from netpolicy import spans
from netpolicy.spans import Spans

networks = st.builds(
    lambda number, length: IPv4Network((number & ~((1 << (32 - length)) - 1), length)),
    st.integers(0xCB007100, 0xCB0071FF) | st.sampled_from([0, 0xFFFFFFFF]),
    st.integers(22, 32) | st.just(0),
)


def as_networks(found: Spans) -> list[IPv4Network]:
    return [n for a, b in found.pairs for n in summarize_address_range(IPv4Address(a), IPv4Address(b))]


@given(st.lists(networks, max_size=12))
def test_joined_as_ipaddress_joins(chosen: list[IPv4Network]) -> None:
    assert as_networks(spans.of_networks(chosen, 4)) == list(collapse_addresses(chosen))


@given(st.lists(networks, max_size=6), st.lists(networks, max_size=6))
def test_union_and_digest_depend_on_the_addresses_alone(one: list[IPv4Network], two: list[IPv4Network]) -> None:
    parts = [spans.of_networks(one, 4), spans.of_networks(two, 4)]
    together = spans.of_networks([*two, *one], 4)
    assert spans.union(parts) == together
    assert spans.union(parts).digest == together.digest
    assert (parts[0].digest == parts[1].digest) == (parts[0].pairs == parts[1].pairs)


@given(st.lists(networks, max_size=6), st.lists(networks, max_size=6), st.integers(0xCB007000, 0xCB007200))
def test_intersection_and_difference(one: list[IPv4Network], two: list[IPv4Network], number: int) -> None:
    some, others = spans.of_networks(one, 4), spans.of_networks(two, 4)
    both, rest = spans.intersect(some, others), spans.subtract(some, others)
    assert (number in both) == (number in some and number in others)
    assert (number in rest) == (number in some and number not in others)
    assert spans.union([both, rest]) == some
    assert both == spans.intersect(others, some)
    assert bool(both) == any(a.overlaps(b) for a in one for b in two)


@given(st.lists(networks, max_size=6), st.integers(0xCB007000, 0xCB007200))
def test_membership(chosen: list[IPv4Network], number: int) -> None:
    address = IPv4Address(number)
    assert (number in spans.of_networks(chosen, 4)) == any(address in network for network in chosen)


def test_families_differ() -> None:
    assert (
        spans.of_networks([IPv4Network("0.0.0.0/32")], 4).digest != spans.of_networks([IPv6Network("::/128")], 6).digest
    )
    whole = spans.of_networks([IPv6Network("::/0")], 6)
    assert whole.pairs == ((0, (1 << 128) - 1),)
