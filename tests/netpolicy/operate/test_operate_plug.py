"""A neighbour for probes: an address that nobody has, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operatekit import bridged

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab
from netpolicy.operate import plug
from netpolicy.ruleset import Network


@st.composite
def networks(draw: st.DrawFn) -> Network:
    version = draw(st.sampled_from((4, 6)))
    length = draw(st.integers(8, 32) if version == 4 else st.integers(32, 128))
    base = draw(st.integers(0, 2 ** (32 if version == 4 else 128) - 1))
    kind: Any = IPv4Network if version == 4 else IPv6Network
    network: Network = kind((base, length), strict=False)
    return network


@settings(max_examples=200, deadline=None)
@given(networks(), st.data())
def test_candidates_are_few_distinct_and_free(network: Network, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.integers(0, min(network.num_addresses - 1, 300)), max_size=40))
    taken = {network[-1 - offset] for offset in some}
    found = list(plug.candidates(network, taken))
    assert len(found) == len(set(found)) <= 32
    assert not taken & set(found)
    for address in found:
        assert address in network
        assert address != network.network_address
        if isinstance(network, IPv4Network):
            assert address != network.broadcast_address


@pytest.fixture
def bridge(lab: Lab) -> Iterator[tuple[Lab, Attachment]]:
    box = bridged(lab, "br-work")
    for address in (
        "10.99.0.2/29",
        "10.99.0.4/29",
        "10.99.0.6/29",
        "fd99::2/125",
        "fd99::4/125",
        "fd99::6/125",
        "fd99::7/125",
    ):
        box.run(["ip", "address", "add", address, "dev", "eth0", "nodad"])
    with Links(lab.host.name) as links:
        for address in ("10.99.0.1/29", "fd99::1/125"):
            links.address("br-work", address)
    nets = (ip_network("10.99.0.0/29"), ip_network("fd99::/125"))
    yield lab, Attachment("brwork", "br-work", "br-work", nets, (ip_address("10.99.0.1"), ip_address("fd99::1")))


def neighbour(lab: Lab, attachment: Attachment, taken: tuple[str, ...]) -> tuple[set[str], list[str]]:
    """The addresses that a neighbour takes, and the host's links meanwhile. In a thread of the lab's host."""

    def look() -> tuple[set[str], list[str]]:
        with plug.plugged(attachment, taken=[ip_address(text) for text in taken]) as made, Links() as links:
            return {str(address) for address in made.addresses}, links.names()

    return lab.host.call(look)


@pytest.mark.kernel
def test_nobody_loses_an_address(bridge: tuple[Lab, Attachment]) -> None:
    lab, attachment = bridge
    # All but one of each family are the gate's or a container's, or said to be taken though nobody answers.
    found, links = neighbour(lab, attachment, ("10.99.0.5", "fd99::5"))
    assert found == {"10.99.0.3", "fd99::3"}
    assert [name for name in links if name.startswith("npv")]
    left = lab.host.call(lambda: Path("/proc/thread-self/net/dev").read_text())
    assert "npv" not in left


@pytest.mark.kernel
@pytest.mark.parametrize("size", [1400, 9000])
def test_the_bridge_keeps_its_mtu(lab: Lab, size: int) -> None:
    box = bridged(lab, "br-work")
    lab.host.run(["ip", "link", "set", "pbr-work", "mtu", str(size)])
    gateways = box.gateways
    attachment = Attachment("brwork", "br-work", "br-work", box.networks, gateways)

    def look() -> tuple[int, int, bool]:
        with Links() as links:
            before = links.mtu("br-work")
            with plug.plugged(attachment):
                wire = next(name for name in links.names() if name.startswith("npv"))
                return before, links.mtu("br-work"), links.passes(wire)

    assert lab.host.call(look) == (size, size, True)


@pytest.mark.kernel
def test_a_full_network_is_said_to_be_full(bridge: tuple[Lab, Attachment]) -> None:
    lab, attachment = bridge
    with pytest.raises(UserError, match=r"no address of 10\.99\.0\.0/29 was found free") as raised:
        neighbour(lab, attachment, ("10.99.0.3", "10.99.0.5"))
    assert raised.value.code == "no-address"
    assert "npv" not in lab.host.call(lambda: Path("/proc/thread-self/net/dev").read_text())


@pytest.mark.kernel
def test_somebody_who_answers_is_heard(bridge: tuple[Lab, Attachment]) -> None:
    lab, _ = bridge
    assert lab.host.call(plug.in_use, "br-work", IPv4Address("10.99.0.2"))
    assert not lab.host.call(plug.in_use, "br-work", IPv4Address("10.99.0.3"))
