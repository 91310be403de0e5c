"""Denials, rules that end, wildcards, IPv6 off, policies that are only observed, and what was refused: at an interface."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from knocking import CLOCK, Guarded, Knock, carries, learned, listener, nft, nft_json, rules, wait_until

from netpolicy.attachment import Refusal
from netpolicy.flow import Address
from netpolicy.kernel.nftables import NftablesEnforcer

pytestmark = pytest.mark.kernel

REFUSED = Knock("ECONNREFUSED", arrived=False)


class Wall:
    """A clock whose calendar can be moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return CLOCK.monotonic()

    def now(self) -> float:
        return CLOCK.now() + self.ahead


@pytest.mark.requirement("F6")
def test_a_denial_wins_over_ranges_and_learned_addresses(guarded: Guarded, version: int) -> None:
    inside, named, free = (guarded.fresh(version) for _ in range(3))
    everything = {"0.0.0.0/0": "1-65535/tcp 443/udp", "::/0": "1-65535/tcp 443/udp"}
    guarded.apply(rules(everything, {"a.example": "22/tcp"}))
    guarded.learn(learned("a.example", named, "22/tcp"))
    live = [guarded.connection(inside, 443), guarded.connection(named, 22), guarded.connection(free, 443)]
    guarded.apply(rules(everything, {"a.example": "22/tcp"}, denied={inside: "*", named: "22/tcp"}))
    assert [carries(sock) for sock in live] == [False, False, True], "what is denied now is cut"
    assert guarded.tcp(inside, 443) == REFUSED
    assert guarded.udp(inside, 443).refused
    assert guarded.tcp(named, 22) == REFUSED
    assert guarded.tcp(named, 443).passed, "another port is not denied"
    assert guarded.tcp(free, 443).passed
    guarded.apply(rules(everything, {"a.example": "22/tcp"}))
    assert guarded.tcp(inside, 443).passed, "control: nothing else keeps it"
    assert guarded.tcp(named, 22).passed


@pytest.mark.requirement("F6")
def test_a_denied_name_loses_its_services(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    names = {"*.example": "443/tcp 80/tcp"}
    guarded.apply(rules(names=names))
    guarded.learn(learned("a.example", address, "443/tcp 80/tcp"))
    assert guarded.tcp(address, 80).passed
    guarded.apply(rules(names=names, denied_names={"a.example": "80/tcp"}))
    assert guarded.tcp(address, 80) == REFUSED
    assert guarded.tcp(address, 443).passed


@pytest.mark.requirement("F6")
def test_names_below_a_wildcard(guarded: Guarded, version: int) -> None:
    """Services of a name come from itself and all wildcards above it; ports that touch make one span."""
    wide, narrow, apex = (guarded.fresh(version) for _ in range(3))
    guarded.apply(
        rules(names={"*.example": "443/tcp 1-9/udp", "*.b.example": "444/tcp", "c.b.example": "8000-8010/tcp"})
    )
    guarded.learn(
        learned("x.example", wide, "443/tcp 1-9/udp"),
        learned("c.b.example", narrow, "443-444/tcp 8000-8010/tcp 1-9/udp"),
        learned("example", apex, "443/tcp"),
    )
    assert [guarded.tcp(wide, port).passed for port in (443, 444, 8000)] == [True, False, False]
    assert [guarded.tcp(narrow, port).passed for port in (443, 444, 8005, 8011)] == [True, True, True, False]
    assert guarded.udp(narrow, 9).passed
    assert guarded.tcp(apex, 443) == REFUSED
    guarded.apply(rules(names={"*.b.example": "444/tcp"}))
    assert [guarded.tcp(narrow, port).passed for port in (443, 444, 8005)] == [False, True, False]
    assert guarded.tcp(wide, 443) == REFUSED


@pytest.mark.requirement("F6")
def test_a_range_ends_in_the_kernel_with_nobody_there(guarded: Guarded, version: int) -> None:
    ending, lasting = guarded.fresh(version), guarded.fresh(version)
    until = CLOCK.now() + 3
    ruleset = rules(dict.fromkeys((ending, lasting), "443/tcp"), until={ending: until})
    guarded.apply(ruleset)
    assert guarded.tcp(ending, 443).passed
    wait_until(lambda: CLOCK.now() > until - 1.5, "half of its life has gone")
    guarded.apply(ruleset)
    guarded.enforcer.close()
    guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name)
    guarded.apply(ruleset)
    assert lifetime(guarded, version) <= until + 0.1, "to apply it again does not lengthen it"
    guarded.enforcer.close()
    wait_until(lambda: CLOCK.now() > until + 0.1, "it ends")
    assert guarded.tcp(ending, 443) == REFUSED
    assert guarded.tcp(lasting, 443).passed
    guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name)
    guarded.apply(ruleset)
    assert guarded.tcp(ending, 443) == REFUSED, "what is over is left out"


def lifetime(one: Guarded, version: int) -> float:
    """When the elements of the set with an end go, in seconds since 1970."""
    sets = [row["set"] for row in nft_json(one.lab.host.name, "list", "sets") if "set" in row]
    (found,) = (s for s in sets if s["name"].startswith(f"r{version}_") and "timeout" in s.get("flags", ()))
    (element,) = found["elem"]
    return CLOCK.now() + float(element["elem"]["expires"])


@pytest.mark.requirement("F6")
def test_connections_of_a_rule_that_ended_are_cut(guarded: Guarded, version: int) -> None:
    ending, lasting = guarded.fresh(version), guarded.fresh(version)
    clock = Wall()
    guarded.enforcer.close()
    guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name, clock=clock)
    guarded.enforcer.install("csp-")
    ruleset = rules(dict.fromkeys((ending, lasting), "443/tcp"), until={ending: CLOCK.now() + 1000})
    guarded.apply(ruleset)
    live = [guarded.connection(ending, 443), guarded.connection(lasting, 443)]
    guarded.apply(ruleset)
    assert all(carries(sock) for sock in live)
    clock.ahead = 1001
    guarded.apply(ruleset)
    assert [carries(sock) for sock in live] == [False, True]
    assert guarded.tcp(ending, 443) == REFUSED


@pytest.mark.requirement("F6")
def test_a_learned_address_does_not_outlive_the_rules_of_its_name(guarded: Guarded, version: int) -> None:
    address, other = guarded.fresh(version), guarded.fresh(version)
    end = CLOCK.now() + 100
    names = {"a.example": "443/tcp", "*.example": "80/tcp"}
    guarded.apply(rules(names=names, until={"a.example": end}))
    guarded.learn(learned("a.example", address, "443/tcp 80/tcp", 3600), learned("b.example", other, "80/tcp", 3600))

    def left() -> dict[tuple[Address, int], float]:
        return {(row[0], row[2]): row[4] for row in guarded.enforcer.learned(guarded.attachment.id)}

    for _ in range(2):
        seconds = left()
        assert 90 < seconds[ip_address(address), 443] <= 100
        assert seconds[ip_address(address), 80] > 3500, "that service has no end"
        assert seconds[ip_address(other), 80] > 3500
        guarded.apply(rules(names=names | {"c.example": "1/tcp"}, until={"a.example": end}))


@pytest.mark.requirement("F1")
def test_ipv6_off(guarded: Guarded) -> None:
    v4, v6, named = guarded.fresh(4), guarded.fresh(6), guarded.fresh(6)
    ranges, names = {v4: "443/tcp", v6: "443/tcp"}, {"a.example": "443/tcp"}
    guarded.apply(rules(ranges, names))
    guarded.learn(learned("a.example", named, "443/tcp"))
    live = [guarded.connection(address, 443) for address in (v4, v6, named)]
    guarded.apply(rules(ranges, names, ipv6=False))
    assert [carries(sock) for sock in live] == [True, False, False]
    guarded.learn(learned("a.example", named, "443/tcp"))
    assert [row[0].version for row in guarded.enforcer.learned(guarded.attachment.id)] == []
    assert guarded.tcp(v4, 443).passed
    assert guarded.tcp(v6, 443) == REFUSED
    assert guarded.tcp(named, 443) == REFUSED
    assert guarded.udp(v6, 443).refused


@pytest.mark.requirement("F1")
def test_observed_only(guarded: Guarded, version: int) -> None:
    """What would be refused passes and is noted; the host, and what comes in, stay as they are."""
    open_to, denied, never = (guarded.fresh(version) for _ in range(3))
    gateway = str(guarded.attachment.gateways[0 if version == 4 else 1])
    ruleset = rules({open_to: "443/tcp", denied: "443/tcp"}, denied={denied: "*"})
    guarded.apply(ruleset)
    assert [guarded.tcp(a, 443).passed for a in (open_to, denied, never)] == [True, False, False]
    guarded.apply(replace(ruleset, mode="observe"))
    count = guarded.enforcer.refused()[guarded.attachment.id].packets
    live = guarded.connection(never, 8080)
    with listener(guarded.lab.host.name, gateway, 3000):
        assert guarded.tcp(gateway, 3000).outcome == "ECONNREFUSED"
    assert [guarded.tcp(a, 443).passed for a in (open_to, denied, never)] == [True, True, True]
    assert guarded.udp(never, 53).passed
    seen = {(r.address, r.protocol, r.port): r.packets for r in guarded.enforcer.refusals(guarded.attachment.id)}
    assert seen[ip_address(never), 6, 8080] == 1
    assert seen[ip_address(denied), 6, 443] == 2
    assert (ip_address(open_to), 6, 443) not in seen
    assert guarded.enforcer.refused()[guarded.attachment.id].packets == count + 5
    guarded.apply(ruleset)
    assert not carries(live), "what was only let go is cut when the policy is enforced"


@pytest.mark.requirement("F1")
def test_what_was_refused(guarded: Guarded, version: int) -> None:
    tcp, udp, echo = (guarded.fresh(version) for _ in range(3))
    gateway = guarded.attachment.gateways[0 if version == 4 else 1]
    assert guarded.tcp(tcp, 443) == REFUSED, "locked"
    guarded.apply(rules())
    for _ in range(2):
        assert guarded.tcp(tcp, 443) == REFUSED
    assert guarded.udp(udp, 8125).refused
    assert guarded.ping(echo).refused
    assert guarded.tcp(str(gateway), 22) == REFUSED
    number = 1 if version == 4 else 58
    assert guarded.enforcer.refusals(guarded.attachment.id) == sorted(
        [
            Refusal(ip_address(tcp), 6, 443, 3),
            Refusal(ip_address(udp), 17, 8125, 1),
            Refusal(ip_address(echo), number, 0, 1),
            Refusal(gateway, 6, 22, 1),
        ],
        key=lambda one: (-one.packets, one.address.packed, one.protocol, one.port),
    )


def test_the_list_of_refusals_is_bounded(guarded: Guarded) -> None:
    guarded.apply(rules())
    with guarded.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for n in range(6000):
            sock.sendto(b"", (f"203.0.113.{n % 250 + 1}", n // 250 + 1000))
    assert len(guarded.enforcer.refusals(guarded.attachment.id)) == 4096
    assert guarded.enforcer.refused()[guarded.attachment.id].packets >= 6000, "all are counted"
    assert guarded.tcp(guarded.fresh(4), 443) == REFUSED, "and still refused"


@pytest.mark.requirement("F2")
@pytest.mark.parametrize("published", [False, True])
def test_published_ports(guard: Callable[..., Guarded], version: int, published: bool) -> None:
    """What somebody translates to the workload comes in where the attachment says so, and else not."""
    one = guard()
    one.attachment = replace(one.attachment, published=published)
    inside = one.box.v4 if version == 4 else one.box.v6
    family, uplink = ("ip", "198.51.100.2") if version == 4 else ("ip6", "2001:db8:0:1::2")
    target = inside if version == 4 else f"[{inside}]"
    nft(
        one.lab.host.name,
        stdin="add table inet theirs\n"
        "add chain inet theirs publish { type nat hook prerouting priority -100; }\n"
        f"add rule inet theirs publish {family} daddr {uplink} tcp dport 8080 dnat {family} to {target}:9000\n",
    )
    one.apply(rules())
    with listener(one.box.name, inside, 9000):
        found = one.tcp(uplink, 8080, node=one.lab.inet).outcome
        assert (found == "answered") is published
        assert one.tcp(inside, 9000, node=one.lab.host).outcome == "answered", "control: it listens"


def test_what_was_learned_does_not_come_back(guarded: Guarded, version: int) -> None:
    """Neither after a time with the policy off, nor, for IPv6, after one without IPv6."""
    address, named = guarded.fresh(version), {"a.example": "443/tcp"}
    between = [rules(names=named, mode="off"), *([rules(names=named, ipv6=False)] if version == 6 else [])]
    for other in between:
        guarded.apply(rules(names=named))
        guarded.learn(learned("a.example", address, "443/tcp"))
        assert guarded.tcp(address, 443).passed
        guarded.apply(other)
        guarded.apply(rules(names=named))
        assert guarded.tcp(address, 443) == REFUSED
        assert guarded.enforcer.learned(guarded.attachment.id) == []
