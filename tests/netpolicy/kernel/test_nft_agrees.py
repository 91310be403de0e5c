"""What `decide` says is what a packet meets: random small policies, random flows, the verdict taken at the receiver."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from knocking import ORIGIN, Guarded

from netpolicy.decide import decide
from netpolicy.flow import Address, Flow
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab, Packet
from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import Service, merged

pytestmark = pytest.mark.kernel

#: Everything happens among a few addresses and ports, so that rules and flows meet, overlap and just miss each other.
POOLS = (IPv4Network("203.0.113.0/29"), IPv6Network("2001:db8:a::/125"))
PORTS = (52, 53, 54, 79, 80, 81, 442, 443, 444, 8000)
NAMES = ("a.example", "b.example", "c.example")

REMEMBERED: set[tuple[str, Address]] = set()

addresses = st.sampled_from([address for pool in POOLS for address in pool])
networks = st.one_of(
    [
        st.sampled_from(
            [
                subnet
                for length in range(pool.prefixlen, pool.max_prefixlen + 1)
                for subnet in pool.subnets(new_prefix=length)
            ]
        )
        for pool in POOLS
    ]
    + [st.sampled_from([IPv4Network("0.0.0.0/0"), IPv6Network("::/0")])]
)
ports = st.sampled_from(PORTS)
spans = st.builds(
    lambda protocol, one, two: Service(protocol, min(one, two), max(one, two)), st.sampled_from([6, 17]), ports, ports
)
services = st.lists(
    st.one_of(
        st.builds(lambda protocol, port: Service(protocol, port, port), st.sampled_from([6, 17]), ports),
        spans,
        st.sampled_from([Service(1), Service(58), Service(6, 1, 65535)]),
    ),
    min_size=1,
    max_size=3,
).map(merged)
rulesets = st.builds(
    lambda mode, names, ranges: Ruleset(
        "random",
        mode,
        tuple(NameRule(name, allowed, ORIGIN) for name, allowed in names),
        tuple(RangeRule(network, allowed, ORIGIN) for network, allowed in ranges),
    ),
    st.sampled_from(["enforce", "enforce", "enforce", "off"]),
    st.lists(st.tuples(st.sampled_from(NAMES), services), max_size=3),
    st.lists(st.tuples(networks, services), max_size=4),
)
flows = st.one_of(
    st.builds(
        lambda address, protocol, port: Flow(protocol, port, None, address), addresses, st.sampled_from([6, 17]), ports
    ),
    addresses.map(lambda address: Flow(1 if address.version == 4 else 58, None, None, address)),
)
answers = st.lists(st.tuples(st.sampled_from(NAMES), addresses), max_size=4)


@pytest.fixture(scope="module")
def wire() -> Iterator[Guarded]:
    """One lab for all examples; each example puts its policy in force over the one before."""
    with Lab() as lab:
        box = lab.add_workload("csp-agrees")
        enforcer = NftablesEnforcer("netpolicy", lab.host.name)
        one = Guarded(lab, box, enforcer, box.attachment())
        enforcer.install("csp-")
        enforcer.attach(one.attachment, None)
        REMEMBERED.clear()
        enforcer.apply(one.attachment, Ruleset("warm", "off"), None)
        for pool in POOLS:
            assert one.tcp(str(pool[0]), 443).passed, "control: with the policy off everything arrives"
        yield one
        one.close()


@pytest.mark.requirement("F1")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(ruleset=rulesets, asked=st.lists(flows, min_size=4, max_size=10), answered=answers)
def test_packets_meet_what_decide_says(
    wire: Guarded, ruleset: Ruleset, asked: list[Flow], answered: list[tuple[str, Address]]
) -> None:
    # Nobody listens at this port: a redirected query arrives nowhere, which is what `decide` says of port 53.
    wire.enforcer.apply(wire.attachment, ruleset, 5300)
    new = [Learned(name, address, ruleset.services_of(name), 3600) for name, address in answered]
    wire.enforcer.learn(wire.attachment.id, new)
    # What an earlier example learned stays in force for the names that are still allowed, with their new services.
    answers_in_force = {pair for pair in REMEMBERED if ruleset.services_of(pair[0])}
    if ruleset.mode == "enforce":
        answers_in_force |= {pair for pair in answered if ruleset.services_of(pair[0])}
    REMEMBERED.clear()
    REMEMBERED.update(answers_in_force)
    learned = [Learned(name, address, ruleset.services_of(name), 3600) for name, address in answers_in_force]
    with contextlib.ExitStack() as stack:
        sent = [(flow, send(wire, flow, stack)) for flow in asked]
        arrived = wire.lab.receiver.packets()
        for flow, nonce in sent:
            verdict = decide(ruleset, flow, learned, attachment=wire.attachment)
            expected = verdict.allowed and not (flow.port == 53 and flow.protocol in (6, 17))
            event(f"{ruleset.mode}: {'allowed' if expected else 'denied'}")
            assert any(opens(packet, flow, nonce) for packet in arrived) is expected, f"{flow}: {verdict}"
    wire.lab.receiver.forget()


def send(wire: Guarded, flow: Flow, stack: contextlib.ExitStack) -> bytes:
    """Send the first packet of a flow without waiting for anything; returns bytes by which it is known."""
    assert flow.address is not None
    v4 = flow.address.version == 4
    family = socket.AF_INET if v4 else socket.AF_INET6
    nonce = secrets.token_bytes(12)
    if flow.protocol == 6:
        sock = stack.enter_context(wire.box.socket(family, socket.SOCK_STREAM))
        sock.setblocking(False)
        sock.connect_ex((str(flow.address), flow.port))
        return struct.pack(">HH", sock.getsockname()[1], flow.port or 0)  # source NAT keeps a port that is free
    if flow.protocol == 17:
        sock = stack.enter_context(wire.box.socket(family, socket.SOCK_DGRAM))
        sock.sendto(nonce, (str(flow.address), flow.port))
    else:
        protocol = socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6
        sock = stack.enter_context(wire.box.socket(family, socket.SOCK_DGRAM, protocol))
        sock.sendto(struct.pack(">BBHHH", 8 if v4 else 128, 0, 0, 0, 1) + nonce, (str(flow.address), 0))
    return nonce


def opens(packet: Packet, flow: Flow, nonce: bytes) -> bool:
    """Whether the packet is the flow's first."""
    if nonce not in packet.data or packet.destination != str(flow.address):
        return False
    header = 20 if packet.data[0] >> 4 == 4 else 40
    return flow.protocol != 6 or packet.data[header + 13] & 0x12 == 0x02  # SYN without ACK
