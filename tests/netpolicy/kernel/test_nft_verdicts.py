"""What a packet meets: each refusal beside the same attempt that the policy allows, over both families."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from knocking import Guarded, Knock, bridged, learned, listener, neighbour_of, rules

from netpolicy.kernel.links import Links

pytestmark = pytest.mark.kernel

EVERYTHING = {"0.0.0.0/0": "1-65535/tcp 1-65535/udp icmp", "::/0": "1-65535/tcp 1-65535/udp icmpv6"}


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_allowed_range_passes_and_its_neighbour_is_refused(guarded: Guarded, version: int, protocol: str) -> None:
    inside, outside = guarded.fresh(version), guarded.fresh(version)
    guarded.apply(rules({inside: f"443/{protocol}"}))
    knock = getattr(guarded, protocol)
    assert knock(inside, 443).passed
    assert knock(outside, 443).refused
    assert knock(inside, 444).refused


@pytest.mark.requirement("F1")
def test_tcp_is_refused_by_a_reset(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(address, 80) == Knock("ECONNREFUSED", arrived=False)


@pytest.mark.requirement("F1")
def test_the_protocol_is_part_of_the_rule(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    assert guarded.udp(address, 443).refused
    guarded.apply(rules({address: "443/udp"}))
    assert guarded.udp(address, 443).passed
    assert guarded.tcp(address, 443).refused


@pytest.mark.requirement("F1")
def test_ping(guarded: Guarded, version: int) -> None:
    allowed, other = guarded.fresh(version), guarded.fresh(version)
    guarded.apply(rules({allowed: "icmp" if version == 4 else "icmpv6"}))
    assert guarded.ping(allowed).passed
    assert guarded.ping(other).refused
    assert guarded.tcp(allowed, 443).refused


@pytest.mark.requirement("F1")
def test_a_port_span_ends_where_it_says(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "8000-8010/tcp"}))
    assert [guarded.tcp(address, port).passed for port in (7999, 8000, 8010, 8011)] == [False, True, True, False]


@pytest.mark.requirement("F1")
def test_the_edges_of_a_range(guarded: Guarded, version: int) -> None:
    network = ip_network("203.0.113.64/27" if version == 4 else "2001:db8:77::/64")
    guarded.apply(rules({str(network): "443/tcp"}))
    first, last = network[0], network[-1]
    inside = [guarded.tcp(str(address), 443).passed for address in (first, last)]
    outside = [guarded.tcp(str(address), 443).passed for address in (first - 1, last + 1)]
    assert (inside, outside) == ([True, True], [False, False])


@pytest.mark.requirement("F1")
def test_the_whole_address_space_as_a_range(guarded: Guarded, version: int) -> None:
    guarded.apply(rules({"0.0.0.0/0" if version == 4 else "::/0": "443/tcp"}))
    assert guarded.tcp(guarded.fresh(version), 443).passed
    assert guarded.tcp(guarded.fresh(10 - version), 443).refused, "the other family has no rule"


@pytest.mark.requirement("F1")
def test_a_protocol_nobody_named_is_refused(guarded: Guarded, version: int) -> None:
    """SCTP and a made-up protocol, written by root in a raw socket."""
    address = guarded.fresh(version)
    guarded.apply(rules(EVERYTHING))
    for protocol, arrives in ((17, True), (132, False), (253, False)):
        nonce = secrets.token_hex(8).encode()
        header = struct.pack(">HHHH", 40000, 443, 8 + len(nonce), 0)
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with guarded.box.socket(family, socket.SOCK_RAW, protocol) as sock:
            if version == 6 and protocol == 17:
                sock.setsockopt(socket.IPPROTO_IPV6, 7, 6)  # IPV6_CHECKSUM at offset 6
            sock.sendto(header + nonce, (address, 0))
        assert bool(guarded.lab.receiver.saw(nonce)) is arrives, protocol


@pytest.mark.requirement("F1")
def test_learned_addresses(guarded: Guarded, version: int) -> None:
    """A name's single port, its span of ports, and a protocol without ports."""
    ping = "icmp" if version == 4 else "icmpv6"
    address, other = guarded.fresh(version), guarded.fresh(version)
    guarded.apply(rules(names={"a.example": f"443/tcp 8000-8010/tcp {ping}"}))
    assert guarded.tcp(address, 443).refused
    guarded.learn(learned("a.example", address, f"443/tcp 8000-8010/tcp {ping}"))
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(address, 8005).passed
    assert guarded.ping(address).passed
    assert guarded.tcp(address, 80).refused
    assert guarded.tcp(address, 8011).refused
    assert guarded.udp(address, 443).refused
    assert guarded.tcp(other, 443).refused


@pytest.mark.requirement("F3")
def test_own_network_and_own_host_services(guard: Callable[..., Guarded], version: int) -> None:
    """Two workloads on one bridge reach each other; the host's side answers only on the ports that are opened."""
    one = bridged(guard)
    gateway = str(one.attachment.gateways[0 if version == 4 else 1])
    neighbour = str(one.attachment.networks[0 if version == 4 else 1][3])
    with neighbour_of(one, 3) as other:
        one.enforcer.attach(one.attachment, None)
        one.apply(rules(host="3000/tcp"))
        with listener(other, neighbour, 9000):
            assert one.tcp(neighbour, 9000).outcome == "answered"
        for port, expected in ((3000, "answered"), (3001, "ECONNREFUSED"), (22, "ECONNREFUSED")):
            with listener(one.lab.host.name, gateway, port):
                assert one.tcp(gateway, port).outcome == expected, port


@pytest.mark.requirement("F13")
def test_other_addresses_of_the_host_are_refused_even_where_a_range_has_them(guarded: Guarded, version: int) -> None:
    """The uplink's address is the host's, too: a service that listens everywhere is not reached through it."""
    uplink = "198.51.100.2" if version == 4 else "2001:db8:0:1::2"
    gateway = str(guarded.attachment.gateways[0 if version == 4 else 1])
    guarded.apply(rules(EVERYTHING, host="3000/tcp"))
    everywhere = "0.0.0.0" if version == 4 else "::"
    with listener(guarded.lab.host.name, everywhere, 3000):
        assert guarded.tcp(gateway, 3000).outcome == "answered"
        assert guarded.tcp(uplink, 3000).outcome == "ECONNREFUSED"
    with listener(guarded.lab.host.name, everywhere, 3001):
        assert guarded.tcp(gateway, 3001).outcome == "ECONNREFUSED"


@pytest.mark.requirement("F1")
def test_siblings_do_not_reach_each_other(guard: Callable[..., Guarded], version: int) -> None:
    one, two, locked = guard(), guard(), guard()
    for each in (one, two):
        each.enforcer.attach(each.attachment, None)
        each.apply(rules(EVERYTHING))
    assert one.tcp(one.fresh(version), 443).passed
    for other in (two, locked):
        address = other.box.v4 if version == 4 else other.box.v6
        with listener(other.box.name, address, 9000):
            assert one.tcp(address, 9000).outcome == "ECONNREFUSED"
            assert other.enforcer.refused()[one.attachment.id].packets == 0, (
                "into a sibling is not counted as out of one"
            )
            if other is two:
                assert one.tcp(address, 9000, node=one.lab.host).outcome == "answered", (
                    "control: the sibling does listen"
                )


@pytest.mark.requirement("F1")
def test_nothing_new_comes_in_by_forwarding(guarded: Guarded, version: int) -> None:
    guarded.apply(rules(EVERYTHING))
    address = guarded.box.v4 if version == 4 else guarded.box.v6
    with Links(guarded.lab.inet.name) as links:
        via = "198.51.100.2" if version == 4 else "2001:db8:0:1::2"
        links.route(str(guarded.attachment.networks[0 if version == 4 else 1]), via=via)
    with listener(guarded.box.name, address, 9000):
        assert guarded.tcp(address, 9000, node=guarded.lab.inet).outcome == "ECONNREFUSED"
        guarded.enforcer.detach(guarded.attachment.id)
        guarded.enforcer.install(None)
        assert guarded.tcp(address, 9000, node=guarded.lab.inet).outcome == "answered", "control: the way is there"


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("state", ["unattached", "locked", "enforced"])
def test_a_forged_sender_carries_nothing_out(guard: Callable[..., Guarded], version: int, state: str) -> None:
    """Root in the workload writes another sender. Neither the packet nor a refusal of it, which quotes it, gets anywhere."""
    one = guard()
    target, denied = one.fresh(version), one.fresh(version)
    own = one.box.v4 if version == 4 else one.box.v6
    foreign = one.fresh(version)  # an address of the internet: the refusal would be routed there
    with Links(one.box.name) as links:
        links.address("eth0", f"{foreign}/{32 if version == 4 else 128}")
    if state != "unattached":
        one.enforcer.attach(one.attachment, None)
    if state == "enforced":
        one.apply(rules({target: "443/udp"}))
    for source, destination in ((own, target), (foreign, target), (foreign, denied)):
        nonce = secrets.token_hex(8).encode()
        with one.box.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.sendto(nonce, (destination, 443))
        expected = state == "enforced" and source == own
        assert bool(one.lab.receiver.saw(nonce)) is expected, (source, destination)
        if source == foreign:
            assert not one.lab.receiver.arrived(foreign)


@pytest.mark.requirement("F7")
def test_off_lets_everything_out_but_nothing_in(guard: Callable[..., Guarded], version: int) -> None:
    one, sibling = guard(), guard()
    one.enforcer.attach(one.attachment, None)
    address = one.fresh(version)
    one.apply(rules())
    assert one.tcp(address, 443).refused
    one.apply(rules(mode="off"))
    assert one.tcp(address, 443).passed
    assert one.udp(address, 4000).passed
    assert one.ping(address).passed
    target = sibling.box.v4 if version == 4 else sibling.box.v6
    with listener(sibling.box.name, target, 9000):
        assert one.tcp(target, 9000).outcome == "ECONNREFUSED"
    gateway = str(one.attachment.gateways[0 if version == 4 else 1])
    with listener(one.lab.host.name, gateway, 3000):
        assert one.tcp(gateway, 3000).outcome == "ECONNREFUSED"


@pytest.mark.requirement("F1")
def test_source_nat_hides_the_workload(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    sources = {packet.source for packet in guarded.lab.receiver.arrived(address)}
    assert sources == {"198.51.100.2" if version == 4 else "2001:db8:0:1::2"}


@pytest.mark.requirement("F1")
def test_what_is_refused_is_counted(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    before = guarded.enforcer.refused()[guarded.attachment.id].packets
    assert guarded.tcp(address, 443).passed
    assert guarded.enforcer.refused()[guarded.attachment.id].packets == before
    assert guarded.tcp(address, 80).refused
    assert guarded.enforcer.refused()[guarded.attachment.id].packets == before + 1
    guarded.apply(rules())
    assert guarded.enforcer.refused()[guarded.attachment.id].packets == before + 1, "a new policy goes on counting"


def test_interfaces_of_others_are_not_touched(guard: Callable[..., Guarded], version: int) -> None:
    one, stranger = guard(), guard("eth-other", install=False)
    one.enforcer.attach(one.attachment, None)
    address = one.fresh(version)
    assert one.tcp(address, 443).refused
    with one.lab.nat():
        assert stranger.tcp(address, 443).passed
        assert one.tcp(one.fresh(version), 443).refused
