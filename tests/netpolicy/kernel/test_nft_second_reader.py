"""The nft program reads what we wrote, and writes the same from text: two packers, one listing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from knocking import learned, nft, nft_json, rules

from netpolicy.attachment import Attachment
from netpolicy.kernel import netns
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.kernel.nftables.ranges import name_of

pytestmark = pytest.mark.kernel

ATTACHMENT = Attachment(
    "ab12",
    "project/mercury",
    "csp-0001",
    (ip_network("10.1.0.0/28"), ip_network("10.1.1.0/28"), ip_network("fd5c::/64")),
    (ip_address("10.1.0.1"), ip_address("fd5c::1")),
)
RULESET = rules(
    {
        "198.51.100.0/24": "80/tcp 443/udp",
        "192.0.2.0/25": "80/tcp 443/udp",
        "203.0.113.7": "icmp 1-65535/udp",
        "2001:db8::/32": "22/tcp icmpv6",
        "192.0.2.128/25": "22/tcp",
    },
    {"a.example": "443/tcp 8000-8010/tcp icmp"},
    host="3000/tcp 1-9/udp icmp",
    denied={"198.51.100.64/26": "*", "2001:db8:bad::/48": "22/tcp 1-9/udp"},
    until={"192.0.2.128/25": 4102444800.0},
)
#: The processes of the namespace itself, with a policy that is only observed.
OWN = Attachment(
    "own", "a/pod", "", (ip_network("10.9.0.0/24"),), (ip_address("10.9.0.1"), ip_address("fd5c:9::1")), "output"
)
OBSERVED = rules({"203.0.113.7": "443/tcp"}, {"*.b.example": "443/tcp"}, host="3000/tcp", mode="observe", ipv6=False)

#: The whole table as a person would write it. R4 to R6 and D4, D6 stand for the content-addressed names.
TEXT = """
table inet netpolicy {
  counter refused_ab12 { }
  counter refused_own { }
  set ported { type inet_proto; elements = { tcp, udp, udplite, sctp } }
  set d4_ab12 { type ipv4_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout; timeout 10m; }
  set d6_ab12 { type ipv6_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout; timeout 10m; }
  set d4_own { type ipv4_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout; timeout 10m; }
  set d6_own { type ipv6_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout; timeout 10m; }
  set c4_own { type ipv4_addr . inet_proto . inet_service . inet_service; size 16384; flags timeout; timeout 10m; }
  set c6_own { type ipv6_addr . inet_proto . inet_service . inet_service; size 16384; flags timeout; timeout 10m; }
  set n4_own {
    type ipv4_addr . inet_proto . inet_service; size 65536; flags timeout
    elements = { 203.0.113.10 . tcp . 443 timeout 1h comment "x.y.b.example" }
  }
  set n6_own { type ipv6_addr . inet_proto . inet_service; size 65536; flags timeout; }
  set R4E { type ipv4_addr; flags interval,timeout; elements = { 192.0.2.128/25 timeout 20000d } }
  set D4 { type ipv4_addr; flags interval; elements = { 198.51.100.64/26 } }
  set D6 { type ipv6_addr; flags interval; elements = { 2001:db8:bad::/48 } }
  map senders { type ifname : verdict; elements = { "csp-0001" : goto src_ab12 } }
  map outbound { type ifname : verdict; elements = { "csp-0001" : goto out_ab12 } }
  map inbound { type ifname : verdict; elements = { "csp-0001" : goto in_ab12 } }
  map to_host { type ifname : verdict; elements = { "csp-0001" : goto host_ab12 } }
  map dns { type ifname : verdict; elements = { "csp-0001" : goto dns_ab12 } }
  map source_nat { type ifname : verdict; elements = { "csp-0001" : goto nat_ab12 } }
  set n4_ab12 {
    type ipv4_addr . inet_proto . inet_service; size 65536; flags timeout
    elements = { 203.0.113.9 . tcp . 443 timeout 1h comment "a.example" }
  }
  set n6_ab12 { type ipv6_addr . inet_proto . inet_service; size 65536; flags timeout; }
  set w4_ab12_1_0_0 { type ipv4_addr; size 65536; flags timeout; elements = { 203.0.113.9 timeout 1h comment "a.example" } }
  set w6_ab12_1_0_0 { type ipv6_addr; size 65536; flags timeout; }
  set w4_ab12_6_8000_8010 {
    type ipv4_addr; size 65536; flags timeout; elements = { 203.0.113.9 timeout 1h comment "a.example" }
  }
  set w6_ab12_6_8000_8010 { type ipv6_addr; size 65536; flags timeout; }
  set R4B { type ipv4_addr; flags interval; elements = { 203.0.113.7 } }
  set R4 { type ipv4_addr; flags interval; elements = { 192.0.2.0/25, 198.51.100.0/24 } }
  set R6 { type ipv6_addr; flags interval; elements = { 2001:db8::/32 } }

  chain from {
    type filter hook prerouting priority -450; policy accept;
    iifname vmap @senders
    iifname "csp-*" meta nfproto ipv4 fib saddr . iif oif missing drop comment "no policy attached"
    iifname "csp-*" ip6 saddr != fe80::/10 ip6 saddr != :: fib saddr . iif oif missing drop comment "no policy attached"
  }
  chain forward {
    type filter hook forward priority filter - 1; policy accept;
    iifname vmap @outbound
    oifname vmap @inbound
    iifname "csp-*" goto refuse comment "no policy attached"
    oifname "csp-*" goto refuse comment "no policy attached"
  }
  chain input {
    type filter hook input priority filter - 1; policy accept;
    iifname vmap @to_host
    iifname "csp-*" goto neighbours comment "no policy attached"
  }
  chain prerouting { type nat hook prerouting priority dstnat - 10; policy accept; iifname vmap @dns; }
  chain postrouting { type nat hook postrouting priority srcnat - 10; policy accept; iifname vmap @source_nat; }
  chain refuse {
    fib saddr . iif oif missing drop
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
  chain pass {
    oifname vmap @inbound
    oifname "csp-*" goto refuse
    ct state new,untracked accept
    drop
  }
  chain refuse_own {
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
  chain pass_own {
    ct state new,untracked accept
    drop
  }
  chain neighbours {
    icmpv6 type nd-neighbor-solicit accept
    icmpv6 type nd-neighbor-advert accept
    goto refuse
  }
  chain src_ab12 {
    ip saddr != 10.1.0.0/28 ip saddr != 10.1.1.0/28 counter name "refused_ab12" drop
    ip6 saddr != fd5c::/64 ip6 saddr != fe80::/10 ip6 saddr != :: counter name "refused_ab12" drop
  }
  chain out_ab12 {
    oifname "csp-0001" accept comment "ruleset ID enforce dns 5300 | project/mercury"
    ip saddr != 10.1.0.0/28 ip saddr != 10.1.1.0/28 counter name "refused_ab12" drop
    ip6 saddr != fd5c::/64 counter name "refused_ab12" drop
    ct state established accept
    ct state related meta l4proto icmp ct original ip saddr 10.1.0.0/28 accept
    ct state related meta l4proto icmp ct original ip saddr 10.1.1.0/28 accept
    ct state related meta l4proto ipv6-icmp ct original ip6 saddr fd5c::/64 accept
    ip daddr @D4 goto no_ab12 comment "denied"
    tcp dport 22 ip6 daddr @D6 goto no_ab12 comment "denied"
    udp dport 1-9 ip6 daddr @D6 goto no_ab12 comment "denied"
    ip daddr . meta l4proto . tcp dport @n4_ab12 goto pass
    meta l4proto icmp ip daddr @w4_ab12_1_0_0 goto pass
    tcp dport 8000-8010 ip daddr @w4_ab12_6_8000_8010 goto pass
    ip6 daddr . meta l4proto . tcp dport @n6_ab12 goto pass
    meta l4proto icmp ip6 daddr @w6_ab12_1_0_0 goto pass
    tcp dport 8000-8010 ip6 daddr @w6_ab12_6_8000_8010 goto pass
    meta l4proto icmp ip daddr @R4B goto pass
    udp dport 1-65535 ip daddr @R4B goto pass
    tcp dport 22 ip daddr @R4E goto pass
    tcp dport 80 ip daddr @R4 goto pass
    udp dport 443 ip daddr @R4 goto pass
    tcp dport 22 ip6 daddr @R6 goto pass
    meta l4proto ipv6-icmp ip6 daddr @R6 goto pass
    goto no_ab12
  }
  chain in_ab12 {
    ct state established accept
    ct state related meta l4proto icmp ct original ip saddr 10.1.0.0/28 accept
    ct state related meta l4proto icmp ct original ip saddr 10.1.1.0/28 accept
    ct state related meta l4proto ipv6-icmp ct original ip6 saddr fd5c::/64 accept
    goto refuse
  }
  chain host_ab12 {
    icmpv6 type nd-neighbor-solicit accept
    icmpv6 type nd-neighbor-advert accept
    icmpv6 type mld-listener-query drop
    icmpv6 type mld-listener-report drop
    icmpv6 type mld-listener-done drop
    icmpv6 type nd-router-solicit drop
    icmpv6 type nd-router-advert drop
    icmpv6 type nd-redirect drop
    icmpv6 type mld2-listener-report drop
    ip saddr != 10.1.0.0/28 ip saddr != 10.1.1.0/28 counter name "refused_ab12" drop
    ip6 saddr != fd5c::/64 counter name "refused_ab12" drop
    ct state established accept
    ct state related meta l4proto icmp ct original ip saddr 10.1.0.0/28 accept
    ct state related meta l4proto icmp ct original ip saddr 10.1.1.0/28 accept
    ct state related meta l4proto ipv6-icmp ct original ip6 saddr fd5c::/64 accept
    ip daddr 10.1.0.1 meta l4proto icmp accept
    ip daddr 10.1.0.1 tcp dport 3000 accept
    ip daddr 10.1.0.1 udp dport 1-9 accept
    ip daddr 10.1.0.1 tcp dport 5300 accept
    ip daddr 10.1.0.1 udp dport 5300 accept
    ip6 daddr fd5c::1 meta l4proto icmp accept
    ip6 daddr fd5c::1 tcp dport 3000 accept
    ip6 daddr fd5c::1 udp dport 1-9 accept
    ip6 daddr fd5c::1 tcp dport 5300 accept
    ip6 daddr fd5c::1 udp dport 5300 accept
    meta pkttype != host drop
    jump note_ab12
    goto refuse
  }
  chain dns_ab12 {
    udp dport 53 ip daddr != 10.1.0.0/28 ip daddr != 10.1.1.0/28 dnat ip to 10.1.0.1:5300
    udp dport 53 ip daddr 10.1.0.1 dnat ip to 10.1.0.1:5300
    tcp dport 53 ip daddr != 10.1.0.0/28 ip daddr != 10.1.1.0/28 dnat ip to 10.1.0.1:5300
    tcp dport 53 ip daddr 10.1.0.1 dnat ip to 10.1.0.1:5300
    udp dport 53 ip6 daddr != fd5c::/64 dnat ip6 to [fd5c::1]:5300
    udp dport 53 ip6 daddr fd5c::1 dnat ip6 to [fd5c::1]:5300
    tcp dport 53 ip6 daddr != fd5c::/64 dnat ip6 to [fd5c::1]:5300
    tcp dport 53 ip6 daddr fd5c::1 dnat ip6 to [fd5c::1]:5300
  }
  chain nat_ab12 {
    meta nfproto ipv4 oifname != "csp-0001" masquerade
    meta nfproto ipv6 oifname != "csp-0001" masquerade
  }
  chain no_ab12 {
    jump note_ab12
    goto refuse
  }
  chain note_ab12 {
    counter name "refused_ab12"
    meta nfproto ipv4 meta l4proto @ported add @d4_ab12 { ip daddr . meta l4proto . th dport counter }
    meta nfproto ipv4 meta l4proto != @ported add @d4_ab12 { ip daddr . meta l4proto . 0 counter }
    meta nfproto ipv6 meta l4proto @ported add @d6_ab12 { ip6 daddr . meta l4proto . th dport counter }
    meta nfproto ipv6 meta l4proto != @ported add @d6_ab12 { ip6 daddr . meta l4proto . 0 counter }
  }

  chain output { type filter hook output priority filter - 1; policy accept; goto out_own comment "own"; }
  chain own_dns { type nat hook output priority -110; policy accept; goto dns_own comment "own"; }
  chain own_input { type filter hook input priority filter - 1; policy accept; goto in_own comment "own"; }
  chain own_leaving { type filter hook postrouting priority filter - 1; policy accept; goto wire_own comment "own"; }
  chain out_own {
    oifname "lo" accept comment "ruleset OWNID observe dns 5301 | a/pod"
    ip daddr 127.0.0.0/8 accept
    ip6 daddr ::1 accept
    icmpv6 type mld-listener-report accept
    icmpv6 type mld-listener-done accept
    icmpv6 type nd-router-solicit accept
    icmpv6 type nd-neighbor-solicit accept
    icmpv6 type nd-neighbor-advert accept
    icmpv6 type mld2-listener-report accept
    ip daddr 10.9.0.1 tcp dport 3000 accept comment "the host"
    ip6 daddr fd5c:9::1 tcp dport 3000 accept comment "the host"
    ct state established accept
    ct state related meta l4proto icmp accept
    ct state related meta l4proto ipv6-icmp accept
    ct state related tcp flags rst accept
    ip daddr 10.9.0.1 goto host_own
    ip6 daddr fd5c:9::1 goto host_own
    ip daddr 10.9.0.0/24 accept
    ip daddr 0.0.0.0/8 goto host_own
    ip daddr 224.0.0.0/4 goto host_own
    ip daddr 255.255.255.255 goto host_own
    ip6 daddr :: goto host_own
    ip6 daddr fe80::/10 goto host_own
    ip6 daddr ff00::/8 goto host_own
    meta nfproto ipv6 goto no_own comment "IPv6 is off"
    ip daddr . meta l4proto . tcp dport @n4_own goto pass_own
    ip6 daddr . meta l4proto . tcp dport @n6_own goto pass_own
    tcp dport 443 ip daddr @R4B goto pass_own
    goto no_own
  }
  chain dns_own {
    meta nfproto ipv4 udp dport 53 dnat ip to 127.0.0.1:5301
    meta nfproto ipv4 tcp dport 53 dnat ip to 127.0.0.1:5301
    meta nfproto ipv6 udp dport 53 dnat ip6 to [::1]:5301
    meta nfproto ipv6 tcp dport 53 dnat ip6 to [::1]:5301
  }
  chain in_own {
    iifname != "lo" ct state new tcp flags & (fin | syn | rst | ack) != syn drop
    iifname != "lo" ct state new meta nfproto ipv4 meta l4proto @ported ip saddr . meta l4proto . th sport . th dport @c4_own drop
    iifname != "lo" ct state new meta nfproto ipv6 meta l4proto @ported ip6 saddr . meta l4proto . th sport . th dport @c6_own drop
  }
  chain wire_own {
    oifname != "lo" ip daddr 127.0.0.0/8 drop
    oifname != "lo" ip6 daddr ::1 drop
  }
  chain host_own {
    jump note_own
    goto refuse_own
  }
  chain no_own {
    jump note_own
    goto pass_own comment "observed"
  }
  chain note_own {
    counter name "refused_own"
    meta nfproto ipv4 meta l4proto @ported add @d4_own { ip daddr . meta l4proto . th dport counter }
    meta nfproto ipv4 meta l4proto != @ported add @d4_own { ip daddr . meta l4proto . 0 counter }
    meta nfproto ipv6 meta l4proto @ported add @d6_own { ip6 daddr . meta l4proto . th dport counter }
    meta nfproto ipv6 meta l4proto != @ported add @d6_own { ip6 daddr . meta l4proto . 0 counter }
  }
}
"""


@pytest.fixture
def namespaces() -> Iterator[tuple[int, int]]:
    made = (netns.anonymous(), netns.anonymous())
    yield made
    for namespace in made:
        os.close(namespace)


def normal(listing: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Objects by kind, sorted by name (rules by chain, in their order), without what only says when."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in listing:
        for kind, body in row.items():
            for noise in ("handle", "index", "flags") if kind == "table" else ("handle", "index"):
                body.pop(noise, None)
            # What ends in 2100 has a lifetime that depends on the moment.
            text = re.sub(r'"expires": \d+|"timeout": \d{7,}', "", json.dumps(body, sort_keys=True))
            name = body.get("chain") if kind == "rule" else body.get("name", "")
            found.setdefault(kind, []).append((str(name), text))
    found.pop("metainfo", None)
    return {kind: [text for _, text in sorted(rows, key=lambda row: row[0])] for kind, rows in found.items()}


def test_what_we_write_is_what_nft_writes(namespaces: tuple[int, int]) -> None:
    ours, theirs = namespaces
    enforcer = NftablesEnforcer("netpolicy", ours)
    enforcer.install("csp-")
    enforcer.attach(ATTACHMENT, 5300)
    enforcer.apply(ATTACHMENT, RULESET, 5300)
    enforcer.apply(OWN, OBSERVED, 5301)
    enforcer.learn("ab12", [learned("a.example", "203.0.113.9", "443/tcp 8000-8010/tcp icmp", 3600)])
    enforcer.learn("own", [learned("x.y.b.example", "203.0.113.10", "443/tcp", 3600)])
    enforcer.close()
    text = TEXT.replace("ruleset ID", f"ruleset {RULESET.id}").replace("OWNID", OBSERVED.id)
    names = {name_of(g): f"D{g.version}" for g in RULESET.denied_groups}
    for group in RULESET.groups:
        many, ends = len(group.spans.pairs) == 2, group.until is not None
        names[name_of(group)] = "R6" if group.version == 6 else "R4" if many else "R4E" if ends else "R4B"
    for name, short in names.items():
        text = re.sub(rf"\b{short}\b", name, text)
    nft(theirs, stdin=text)
    mine = normal(nft_json(ours, "list", "table", "inet", "netpolicy"))
    reference = normal(nft_json(theirs, "list", "table", "inet", "netpolicy"))
    assert mine.keys() == reference.keys()
    for kind, rows in reference.items():
        assert mine[kind] == rows, kind


def test_what_nft_lists_it_can_read_back(namespaces: tuple[int, int]) -> None:
    """For people who save a host's rules and load them again."""
    ours, theirs = namespaces
    enforcer = NftablesEnforcer("netpolicy", ours)
    enforcer.install("csp-")
    enforcer.apply(ATTACHMENT, RULESET, 5300)
    enforcer.close()
    listing = nft(ours, "list", "ruleset").replace("\tflags \n\n", "")  # nft 1.0.6 cannot write "persist"
    nft(theirs, stdin=listing)

    def lasting(text: str) -> str:
        return re.sub(r" expires \w+", "", text)

    assert lasting(nft(theirs, "list", "ruleset")) == lasting(listing)


def test_locked(namespaces: tuple[int, int]) -> None:
    enforcer = NftablesEnforcer("netpolicy", namespaces[0])
    enforcer.install("csp-")
    enforcer.apply(ATTACHMENT, RULESET, 5300)
    enforcer.attach(ATTACHMENT, 5300)
    enforcer.close()
    bodies = {
        chain: re.findall(r"^\t\t(.*)$", nft(namespaces[0], "list", "chain", "inet", "netpolicy", chain), re.MULTILINE)
        for chain in ("out_ab12", "no_ab12", "in_ab12", "dns_ab12", "nat_ab12")
    }
    drop = [
        'ip saddr != 10.1.0.0/28 ip saddr != 10.1.1.0/28 counter name "refused_ab12" drop',
        'ip6 saddr != fd5c::/64 counter name "refused_ab12" drop',
    ]
    assert bodies == {
        "out_ab12": [*drop, 'goto no_ab12 comment "locked | project/mercury"'],
        "no_ab12": ["jump note_ab12", "goto refuse"],
        "in_ab12": ["goto refuse"],
        "dns_ab12": [],
        "nat_ab12": [],
    }


def test_a_kernel_that_cannot_look_back(namespaces: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nft_fib the lock by prefix is silent: a refusal could be sent to a forged sender."""
    from netpolicy.kernel.nftables import expressions

    unknown = expressions.expression("no-such-expression")
    monkeypatch.setattr(expressions, "route_back_missing", lambda: (unknown,))
    enforcer = NftablesEnforcer("netpolicy", namespaces[0])
    enforcer.install("csp-")
    enforcer.close()
    listing = nft(namespaces[0], "list", "table", "inet", "netpolicy")
    assert listing.count('"csp-*" drop comment "no policy attached"') == 2
    assert "nd-neighbor-advert accept\n\t\tdrop" in listing
    assert "fib" not in listing
