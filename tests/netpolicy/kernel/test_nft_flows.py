"""Connections that are open while the policy changes: what is still allowed goes on, the rest is cut."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from knocking import (
    Guarded,
    bridged,
    carries,
    learned,
    neighbour_of,
    nft,
    open_server,
    passes,
    route_to,
    rules,
    wait_until,
)

from netpolicy.kernel import conntrack
from netpolicy.kernel.netlink import Netlink
from netpolicy.kernel.nftables import NftablesEnforcer

pytestmark = pytest.mark.kernel


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_flows_older_than_the_lock_are_cut(guard: Callable[..., Guarded], version: int, kind: int) -> None:
    one = guard(install=False)
    allowed, denied = one.fresh(version), one.fresh(version)
    with one.lab.nat():
        flows = {address: one.connection(address, 443, kind) for address in (allowed, denied)}
    one.enforcer.install("csp-")
    one.enforcer.attach(one.attachment, None)
    one.apply(rules({allowed: "443/tcp 443/udp"}))
    assert not carries(flows[denied])
    assert one.tcp(allowed, 443).passed
    assert one.tcp(denied, 443).refused


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_the_lock_stops_live_flows_at_once(guarded: Guarded, version: int, kind: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp 443/udp"}))
    live = guarded.connection(address, 443, kind)
    guarded.enforcer.attach(guarded.attachment, None)
    assert not carries(live)


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_withdrawn_range_is_cut_and_its_neighbours_live(guarded: Guarded, version: int, kind: int) -> None:
    kept, gone, narrowed = (guarded.fresh(version) for _ in range(3))
    both = "443/tcp 443/udp 80/tcp 80/udp"
    guarded.apply(rules({kept: both, gone: both, narrowed: both}))
    live, cut = guarded.connection(kept, 443, kind), guarded.connection(gone, 443, kind)
    port_kept, port_cut = guarded.connection(narrowed, 443, kind), guarded.connection(narrowed, 80, kind)
    guarded.apply(rules({kept: both, narrowed: "443/tcp 443/udp"}))
    assert [carries(flow) for flow in (live, cut, port_kept, port_cut)] == [True, False, True, False]


@pytest.mark.requirement("F1")
def test_a_withdrawn_name_is_cut(guarded: Guarded, version: int) -> None:
    one, two = guarded.fresh(version), guarded.fresh(version)
    guarded.apply(rules(names={"a.example": "443/tcp", "b.example": "443/tcp"}))
    guarded.learn(learned("a.example", one, "443/tcp"), learned("b.example", two, "443/tcp"))
    flows = [guarded.connection(one, 443), guarded.connection(two, 443)]
    guarded.apply(rules(names={"b.example": "443/tcp"}))
    assert [carries(flow) for flow in flows] == [False, True]


def test_a_flow_outlives_the_answer_it_was_opened_with(guarded: Guarded, version: int) -> None:
    """The address has expired; the connection goes on, also over a change of policy that keeps the name."""
    address = guarded.fresh(version)
    guarded.apply(rules(names={"a.example": "443/tcp"}))
    guarded.learn(learned("a.example", address, "443/tcp", seconds=0.5))
    live = guarded.connection(address, 443)
    wait_until(lambda: not guarded.enforcer.learned(guarded.attachment.id), "the element expires")
    assert guarded.tcp(address, 443).refused
    assert carries(live)
    guarded.apply(rules(names={"a.example": "443/tcp", "b.example": "443/tcp"}))
    assert carries(live)
    guarded.apply(rules(names={"b.example": "443/tcp"}))
    assert not carries(live)


def test_the_same_ruleset_again_cuts_nothing(guarded: Guarded, version: int) -> None:
    """Not even where a new process does not know what was learned and has expired."""
    address = guarded.fresh(version)
    ruleset = rules(names={"a.example": "443/tcp"})
    guarded.apply(ruleset)
    guarded.learn(learned("a.example", address, "443/tcp", seconds=0.5))
    live = guarded.connection(address, 443)
    wait_until(lambda: not guarded.enforcer.learned(guarded.attachment.id), "the element expires")
    guarded.enforcer.close()
    guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name)
    guarded.apply(ruleset)
    assert carries(live)


@pytest.mark.requirement("F7")
def test_switching_on_again_cuts_what_off_had_let_out(guarded: Guarded, version: int) -> None:
    kept, gone = guarded.fresh(version), guarded.fresh(version)
    guarded.apply(rules(mode="off"))
    flows = [guarded.connection(kept, 443), guarded.connection(gone, 443)]
    guarded.apply(rules({kept: "443/tcp"}))
    assert [carries(flow) for flow in flows] == [True, False]


def test_a_host_service_that_is_withdrawn_is_cut(guarded: Guarded, version: int) -> None:
    gateway = str(guarded.attachment.gateways[0 if version == 4 else 1])
    guarded.apply(rules(host="3000/tcp 3001/tcp"))
    with open_server(guarded, gateway, 3000) as kept, open_server(guarded, gateway, 3001) as gone:
        guarded.apply(rules(host="3000/tcp"))
        assert passes(*kept)
        assert not passes(*gone)


def test_the_own_networks_flows_and_a_siblings_are_left_alone(guard: Callable[..., Guarded], version: int) -> None:
    one, sibling = bridged(guard), guard()
    address = one.fresh(version)
    for each in (one, sibling):
        each.enforcer.attach(each.attachment, None)
        each.apply(rules({address: "443/tcp"}))
    theirs = sibling.connection(address, 443)
    with neighbour_of(one, 3) as other:
        inside = str(one.attachment.networks[0 if version == 4 else 1][3])
        with open_server(one, inside, 9000, other) as own:
            one.apply(rules())
            assert passes(*own)
    assert carries(theirs)


@pytest.mark.parametrize("published", [False, True])
def test_inbound_flows_older_than_the_lock_are_cut(
    guard: Callable[..., Guarded], version: int, published: bool
) -> None:
    """To the workload's own address, and by way of a published port of the host."""
    one = guard(install=False)
    route_to(one)
    address = one.box.v4 if version == 4 else one.box.v6
    uplink, family = ("198.51.100.2", "ip") if version == 4 else ("2001:db8:0:1::2", "ip6")
    target = f"{address}:9000" if version == 4 else f"[{address}]:9000"
    publish = (
        "add table inet theirs",
        "add chain inet theirs publish { type nat hook prerouting priority -100; }",
        f"add rule inet theirs publish {family} daddr {uplink} tcp dport 8080 dnat {family} to {target}",
        "add rule inet theirs publish ct state new",
    )
    nft(one.lab.host.name, stdin="\n".join(publish) + "\n")
    asked = (uplink, 8080) if published else (address, 9000)
    with open_server(one, address, 9000, one.box.name, one.lab.inet.name, asked) as (client, server):
        one.enforcer.install("csp-")
        assert tracked(one, address)
        one.enforcer.attach(one.attachment, None)
        assert not tracked(one, address)
        one.apply(rules({"0.0.0.0/0": "443/tcp", "::/0": "443/tcp"}))
        assert not passes(client, server)
        assert not passes(server, client)


def tracked(one: Guarded, address: str) -> bool:
    """Whether the host has a connection with the address at any end."""
    link, packed = Netlink(one.lab.host.name), ip_address(address).packed
    try:
        return bool(conntrack.entries(link, lambda entry: packed in (*entry.original[:2], *entry.reply[:2])))
    finally:
        link.close()
