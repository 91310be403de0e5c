"""What a packet meets: each refusal beside the same attempt that the policy allows, over both families."""

from __future__ import annotations

import secrets
import select
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from knocking import Guarded, Knock, bridged, learned, listener, neighbour_of, route_to, rules

from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.kernel.nftables import expressions

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
@pytest.mark.parametrize("state", ["unattached", "locked", "enforced", "off"])
def test_nothing_new_comes_in_by_forwarding(guard: Callable[..., Guarded], version: int, state: str) -> None:
    one = guard()
    route_to(one)
    if state != "unattached":
        one.enforcer.attach(one.attachment, None)
    if state in ("enforced", "off"):
        one.apply(rules(EVERYTHING, mode="off" if state == "off" else "enforce"))
    address = one.box.v4 if version == 4 else one.box.v6
    with listener(one.box.name, address, 9000):
        assert one.tcp(address, 9000, node=one.lab.inet).outcome == "ECONNREFUSED"
    assert received(one, address) == []
    one.enforcer.detach(one.attachment.id)
    one.enforcer.install(None)
    assert received(one, address) == [b"hello"], "control: the way is there"


def received(one: Guarded, address: str) -> list[bytes]:
    """What arrives at the workload of a datagram from the internet: a refusal that comes back is not enough."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with one.box.socket(family, socket.SOCK_DGRAM) as inside, one.lab.inet.socket(family, socket.SOCK_DGRAM) as outside:
        inside.bind((address, 9001))
        outside.connect((address, 9001))
        outside.send(b"hello")
        heard, _, _ = select.select([inside, outside], [], [], 5)
        assert heard, "neither an arrival nor a refusal"
        return [inside.recv(100)] if inside in heard else []


@pytest.mark.requirement("F1")
def test_the_host_is_closed_while_nothing_is_attached(guard: Callable[..., Guarded], version: int) -> None:
    one = guard()
    gateway = str(one.attachment.gateways[0 if version == 4 else 1])
    with listener(one.lab.host.name, gateway, 3000):
        assert one.tcp(gateway, 3000).outcome == "ECONNREFUSED", "and by a reset: neighbours are still found"
        one.enforcer.install(None)
        assert one.tcp(gateway, 3000).outcome == "answered"


@pytest.mark.requirement("F1")
def test_siblings_without_the_prefix_do_not_reach_each_other(guard: Callable[..., Guarded], version: int) -> None:
    one, two = guard("one-wire"), guard("two-wire")
    for each in (one, two):
        each.enforcer.attach(each.attachment, None)
        each.apply(rules(EVERYTHING))
    target = two.box.v4 if version == 4 else two.box.v6
    with listener(two.box.name, target, 9000):
        assert one.tcp(target, 9000).outcome == "ECONNREFUSED"
        assert one.tcp(target, 9000, node=one.lab.host).outcome == "answered", "control: it listens"


@pytest.mark.requirement("F1")
def test_what_cannot_be_tracked_does_not_leave_untranslated(guarded: Guarded, version: int) -> None:
    """A TCP segment without any flag, by root, to an allowed address: the kernel calls it invalid and would not translate it."""
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed  # and neighbours know each other: nothing waits on the way
    guarded.lab.receiver.forget()
    for flags, arrives in ((0x02, True), (0x00, False)):
        with guarded.box.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, 6) as sock:
            own = guarded.box.v4 if version == 4 else guarded.box.v6
            sock.sendto(segment(own, address, 443, flags), (address, 0))
        arrived = guarded.lab.receiver.arrived(address, 443, 6)
        assert bool(arrived) is arrives
        guarded.lab.receiver.forget()


def segment(source: str, destination: str, port: int, flags: int) -> bytes:
    """A TCP header with a right checksum (RFC 9293 3.1)."""
    bare = struct.pack(">HHIIBBHHH", 40001, port, 1, 0, 5 << 4, flags, 1024, 0, 0)
    ends = ip_address(source).packed + ip_address(destination).packed
    words = ends + struct.pack(">HH", 6, len(bare)) + bare
    total = sum(struct.unpack(f">{len(words) // 2}H", words))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return bare[:16] + struct.pack(">H", ~total & 0xFFFF) + bare[18:]


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("state", ["unattached", "locked", "enforced"])
def test_a_forged_sender_carries_nothing_out(guard: Callable[..., Guarded], version: int, state: str) -> None:
    """Root in the workload writes another sender. Neither the packet nor a refusal of it, which quotes it, gets anywhere."""
    one = guard()
    target, denied = one.fresh(version), one.fresh(version)
    own = one.box.v4 if version == 4 else one.box.v6
    # Neighbours know each other from here on: nothing waits on the way while we look for it.
    assert one.tcp(denied, 443).outcome == "ECONNREFUSED"
    assert one.tcp(denied, 443, node=one.lab.host).passed
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


@pytest.mark.requirement("F1")
def test_a_forged_sender_where_the_kernel_cannot_look_back(
    guard: Callable[..., Guarded], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without nft_fib attachments still know their own senders, and the lock by prefix is silent."""
    monkeypatch.setattr(expressions, "route_back_missing", lambda: (expressions.expression("no-such-expression"),))
    one, locked = guard(), guard()
    one.enforcer.attach(one.attachment, None)
    target, foreign = one.fresh(version), one.fresh(version)
    one.apply(rules({target: "443/udp"}))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for each in (one, locked):
        with Links(each.box.name) as links:
            links.address("eth0", f"{foreign}/{32 if version == 4 else 128}")
        with each.box.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((foreign, 0))
            sock.sendto(b"forged", (target, 443))
            sock.sendto(b"forged", (one.fresh(version), 443))
    assert not one.lab.receiver.saw(b"forged")
    one.box.run(["ip", "address", "del", f"{foreign}/{32 if version == 4 else 128}", "dev", "eth0"])
    assert one.udp(target, 443).passed
    assert one.tcp(target, 443).outcome == "ECONNREFUSED"


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


def test_routed_traffic_within_the_own_network_is_not_translated(guard: Callable[..., Guarded], version: int) -> None:
    one = bridged(guard)
    one.enforcer.attach(one.attachment, None)
    one.apply(rules())
    index = 0 if version == 4 else 1
    inside, gateway = str(one.attachment.networks[index][3]), str(one.attachment.gateways[index])
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with neighbour_of(one, 3) as other, netns.socket_in(other, family, socket.SOCK_DGRAM) as server:
        server.settimeout(5)
        server.bind((inside, 9000))
        with Links(one.box.name) as links:
            links.route(f"{inside}/{32 if version == 4 else 128}", via=gateway)
        with one.box.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", (inside, 9000))
        assert server.recvfrom(100)[1][0] == (one.box.v4 if version == 4 else one.box.v6)


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
