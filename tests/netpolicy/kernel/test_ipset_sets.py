"""What is in the sets: types, lifetimes, names, counts; told by ipset itself."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from ipaddress import ip_network

import pytest
from knocking import ORIGIN, Guarded, carries, learned, rules, services, wait_until

from netpolicy.errors import UserError
from netpolicy.kernel.ipset import IpsetEnforcer
from netpolicy.ruleset import RangeRule
from netpolicy.services import EVERY

pytestmark = pytest.mark.kernel


def listing(one: Guarded, *words: str) -> str:
    return one.lab.host.run(["ipset", "list", *words]).text


@pytest.mark.requirement("F9")
def test_sets_of_each_type_are_there_and_decide(walled: Guarded, version: int) -> None:
    wide, ported, named = walled.fresh(version), walled.fresh(version), walled.fresh(version)
    walled.apply(rules({wide: "8000-8010/tcp", ported: "443/tcp"}, {"a.example": "443/tcp 9000-9010/tcp"}))
    walled.learn(learned("a.example", named, "443/tcp 9000-9010/tcp", 300))
    types = dict(re.findall(r"Name: (\S+)\nType: (\S+)", listing(walled, "-t")))
    assert set(types.values()) == {"hash:net", "hash:net,port", "hash:ip,port", "hash:ip"}
    for address, port in ((wide, 8005), (ported, 443), (named, 443), (named, 9001)):
        assert walled.tcp(address, port).passed
        assert walled.tcp(address, 22).refused
    sets = [name for name in types if re.search(rf"np\.[rp]{version}\.|-[nw]{version}", name)]
    assert len(sets) == 4
    for name in sets:
        walled.lab.host.run(["ipset", "flush", name])
    for address, port in ((wide, 8005), (ported, 443), (named, 443), (named, 9001)):
        assert walled.tcp(address, port).refused, "it was the set that let it pass"


@pytest.mark.requirement("F9")
def test_learned_elements_have_lifetimes_and_names(walled: Guarded, version: int) -> None:
    named = walled.fresh(version)
    walled.apply(rules(names={"a.example": "443/tcp", "b.example": "443/tcp"}))
    walled.learn(learned("a.example", named, "443/tcp", 1), learned("b.example", named, "443/tcp", 1))
    assert walled.tcp(named, 443).passed
    walled.learn(learned("a.example", named, "443/tcp", 300))
    line = next(line for line in listing(walled).splitlines() if line.startswith(f"{named},tcp:443 "))
    assert int(re.search(r"timeout (\d+)", line)[1]) > 290
    assert "a.example" in line
    [row] = walled.enforcer.learned(walled.attachment.id)
    assert (str(row[0]), *row[1:4]) == (named, 6, 443, 443)
    assert 290 < row[4] <= 300
    walled.learn(learned("b.example", named, "443/tcp", 1))
    wait_until(lambda: not walled.enforcer.learned(walled.attachment.id), "it ends")
    assert walled.tcp(named, 443).refused


@pytest.mark.requirement("F9")
def test_a_new_process_knows_what_was_learned(walled: Guarded, version: int) -> None:
    address, named = walled.fresh(version), walled.fresh(version)
    ruleset = rules({address: "443/tcp"}, {"a.example": "443/tcp"})
    walled.apply(ruleset)
    walled.learn(learned("a.example", named, "443/tcp"))
    live = [walled.connection(address, 443), walled.connection(named, 443)]
    assert walled.tcp(address, 80).refused
    counted = walled.enforcer.refused()[walled.attachment.id].packets
    walled.enforcer.close()
    assert walled.tcp(address, 80).refused, "with nobody there the rules stay"
    walled.enforcer = IpsetEnforcer("netpolicy", walled.lab.host.name)
    walled.enforcer.install("csp-")
    assert walled.enforcer.in_force(walled.attachment.id) == ruleset.id
    walled.apply(ruleset)
    assert all(carries(sock) for sock in live)
    assert walled.tcp(named, 443).passed
    assert walled.enforcer.refused()[walled.attachment.id].packets == counted + 1
    walled.apply(rules(names={"a.example": "443/tcp 80/tcp"}))
    assert walled.tcp(named, 80).passed
    walled.apply(rules(names={"b.example": "443/tcp"}))
    assert walled.tcp(named, 443).refused
    assert not any(carries(sock) for sock in live), "what is withdrawn is cut"


def test_refusals_are_counted_and_noted(walled: Guarded, version: int) -> None:
    address = walled.fresh(version)
    walled.apply(rules())
    for _ in range(3):
        assert walled.udp(address, 53530).refused
    assert walled.tcp(address, 443).refused
    assert not walled.ping(address).arrived
    first, *others = walled.enforcer.refusals(walled.attachment.id)
    assert (str(first.address), first.protocol, first.port, first.packets) == (address, 17, 53530, 3)
    icmp = 1 if version == 4 else 58
    assert {(r.protocol, r.port, r.packets) for r in others} >= {(6, 443, 1), (icmp, 0, 1)}
    assert walled.enforcer.refused()[walled.attachment.id].packets >= 5
    walled.apply(rules(mode="observe"))
    assert walled.tcp(address, 443).passed
    assert walled.tcp(address, 444).passed
    noted = {(r.protocol, r.port): r.packets for r in walled.enforcer.refusals(walled.attachment.id)}
    assert noted[6, 443] == 2
    assert noted[6, 444] == 1


def test_ranges_end_by_themselves(walled: Guarded, version: int) -> None:
    address, stays = walled.fresh(version), walled.fresh(version)
    end = float(int(time.time()) + 3)
    ended = RangeRule(ip_network(address), services("443/tcp"), ORIGIN, end)
    walled.apply(replace(rules({stays: "443/tcp"}), ranges=(*rules({stays: "443/tcp"}).ranges, ended)))
    assert walled.tcp(address, 443).passed
    wait_until(lambda: walled.tcp(address, 443).refused, "it ends")
    assert time.time() < end + 1
    assert walled.tcp(stays, 443).passed


def test_a_denial_wins_and_ipv6_can_be_off(walled: Guarded) -> None:
    ruleset = rules({"203.0.113.0/24": "1-65535/tcp", "2001:db8:a::/64": "1-65535/tcp"})
    denied = tuple(RangeRule(ip_network(n), EVERY, ORIGIN) for n in ("203.0.113.8/29", "2001:db8:a::8/125"))
    walled.apply(replace(ruleset, denied_ranges=denied))
    for there, not_there in (("203.0.113.7", "203.0.113.9"), ("2001:db8:a::7", "2001:db8:a::9")):
        assert walled.tcp(there, 443).passed
        assert walled.tcp(not_there, 443).refused
    walled.apply(replace(ruleset, ipv6=False))
    assert walled.tcp("203.0.113.9", 443).passed
    assert walled.tcp("2001:db8:a::7", 443).refused


def test_drift_in_sets_is_told_and_mended(walled: Guarded) -> None:
    ruleset = rules({"203.0.113.0/24": "443/tcp"})
    for _ in range(2):
        walled.apply(ruleset)
        assert walled.enforcer.drifted() == []
    name = next(name for name in listing(walled, "-n").split() if name.startswith("np.p4."))
    with pytest.raises(UserError, match="full"):
        walled.lab.host.run(["ipset", "add", name, "192.0.2.0/24,tcp:443"])
    walled.lab.host.run(["ipset", "flush", name])
    assert walled.tcp("203.0.113.9", 443).refused, "control: somebody shut it"
    assert walled.enforcer.drifted() == [f"ipset: set {name} has 0 elements, not 1"]
    walled.enforcer.install("csp-")
    walled.apply(ruleset)
    assert walled.enforcer.drifted() == []
    assert walled.tcp("203.0.113.9", 443).passed
