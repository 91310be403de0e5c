"""Which addresses a public name must not answer with."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpolicy.addresses import FORBIDDEN, forbidden, plain, plain_network, unroutable


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("10.1.2.3", "private (10.0.0.0/8)"),
        ("172.16.0.1", "private (172.16.0.0/12)"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("127.0.0.53", "loopback"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "cloud metadata service"),
        ("168.63.129.16", "cloud metadata service"),
        ("100.100.100.200", "cloud metadata service"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("198.18.0.1", "benchmarking"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("64:ff9b::8.8.8.8", "NAT64"),
        ("64:ff9b:1::1", "local NAT64"),
        ("2002:0a00:0001::", "6to4"),
        ("2001:0:1::", "Teredo"),
        ("fd00::1", "unique local"),
        ("fd00:ec2::254", "cloud metadata service"),
        ("fc00::1", "unique local"),
        ("fe80::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::fb", "multicast"),
        ("100::1", "discard-only"),
    ],
)
def test_forbidden_answers_say_what_they_are(text: str, what: str) -> None:
    assert what in (forbidden(ip_address(text)) or "")


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "2001:db8::1",
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "2606:50c0::1",
        "64:ff9c::1",
    ],
)
def test_public_and_documentation_addresses_are_ordinary(text: str) -> None:
    assert forbidden(ip_address(text)) is None


def test_only_a_range_inside_the_block_lifts_it() -> None:
    address = ip_address("10.1.2.3")
    assert forbidden(address, [ip_network("10.1.0.0/16")]) is None
    assert forbidden(address, [ip_network("10.0.0.0/8")]) is None
    assert forbidden(address, [ip_network("10.2.0.0/16")]) is not None
    assert forbidden(address, [ip_network("0.0.0.0/0"), ip_network("::/0")]) is not None
    metadata = ip_address("169.254.169.254")
    assert forbidden(metadata, [ip_network("169.254.0.0/16")]) is not None
    assert forbidden(metadata, [ip_network("169.254.169.254/32")]) is None
    assert forbidden(ip_address("fd00::1"), [ip_network("fd00::/64")]) is None


def test_every_block_has_a_source_and_names_its_own_addresses() -> None:
    for network, what, source in FORBIDDEN:
        assert what
        assert source
        assert forbidden(network.network_address) is not None
        assert forbidden(network.broadcast_address) is not None


@given(st.ip_addresses())
def test_the_list_is_looked_up_exactly(address: object) -> None:
    inside = any(address in network for network, _what, _source in FORBIDDEN)  # type: ignore[operator]
    assert (forbidden(address) is not None) == inside  # type: ignore[arg-type]


def test_mapped_addresses_are_the_addresses_they_map() -> None:
    assert plain(ip_address("::ffff:192.0.2.1")) == ip_address("192.0.2.1")
    assert plain(ip_address("2001:db8::1")) == ip_address("2001:db8::1")
    assert plain(ip_address("192.0.2.1")) == ip_address("192.0.2.1")
    assert plain_network(ip_network("::ffff:192.0.2.0/120")) == ip_network("192.0.2.0/24")
    assert plain_network(ip_network("::ffff:0:0/96")) == ip_network("0.0.0.0/0")
    assert plain_network(ip_network("2001:db8::/120")) == ip_network("2001:db8::/120")
    assert plain_network(ip_network("::/0")) == ip_network("::/0")
    assert plain_network(ip_network("10.0.0.0/8")) == ip_network("10.0.0.0/8")


def test_networks_that_never_leave_the_link_are_known() -> None:
    assert unroutable(ip_network("127.0.0.0/8")) == "127.0.0.0/8 is loopback (127.0.0.0/8)"
    assert unroutable(ip_network("239.1.2.3/32")) == "239.1.2.3/32 is multicast (224.0.0.0/4)"
    assert unroutable(ip_network("::1/128")) == "::1/128 is loopback (::1/128)"
    for routable in ("0.0.0.0/0", "::/0", "10.0.0.0/8", "169.254.169.254/32", "fd00::/8", "240.0.0.0/4"):
        assert unroutable(ip_network(routable)) is None
