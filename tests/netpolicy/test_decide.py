"""What happens to one flow: told in examples, and held against an oracle that knows no ruleset."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import documents, flows, learned

from netpolicy import compile_policy, decide, parse_flow
from netpolicy.addresses import plain, unroutable
from netpolicy.attachment import Attachment
from netpolicy.flow import Flow, Identity, Layer, Verdict
from netpolicy.policy import Policy, parse, target
from netpolicy.ruleset import Learned, Ruleset
from netpolicy.services import Service

BRIDGE = Attachment(
    "m1",
    "project/mercury",
    "csp-0",
    (ip_network("10.213.0.0/28"), ip_network("fd5c:ace0::/64")),
    (ip_address("10.213.0.1"), ip_address("fd5c:ace0::1")),
)
POLICY = parse(
    {
        "presets": {"github": False},
        "domains": ["a.example", "b.example:8080", "c.example/icmp"],
        "allow": [{"host": "192.0.2.0/24", "ports": [443, "5000-5010/udp"], "reason": "the lab"}, "2001:db8::/32:443"],
        "host_access": [5432],
    },
    source=".cspace.json",
)
RULES = compile_policy(POLICY)
A = ip_address("203.0.113.7")


def ask(text: str, *entries: Learned, ruleset: Ruleset = RULES, **more: Any) -> Verdict:
    return decide(ruleset, parse_flow(text), entries, **more)


def told(verdict: Verdict) -> tuple[bool, str]:
    return verdict.allowed, verdict.layer.value


@pytest.mark.requirement("F6")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example", (True, "dns")),
        ("a.example:80", (True, "dns")),
        ("a.example:22", (True, "dns")),
        ("a.example:8080", (False, "port")),
        ("a.example:443/udp", (False, "protocol")),
        ("a.example/icmp", (False, "protocol")),
        ("b.example:8080", (True, "dns")),
        ("b.example", (False, "port")),
        ("c.example/icmp", (True, "dns")),
        ("c.example", (False, "protocol")),
        ("www.a.example", (False, "dns")),
        ("example", (False, "dns")),
        ("192.0.2.9", (True, "address")),
        ("192.0.2.9:5005/udp", (True, "address")),
        ("192.0.2.9:5011/udp", (False, "port")),
        ("192.0.2.9:22", (False, "port")),
        ("192.0.2.9/icmp", (False, "protocol")),
        ("192.0.3.9", (False, "address")),
        ("2001:db8::9", (True, "address")),
        ("2001:db9::9", (False, "address")),
        ("::ffff:192.0.2.9", (True, "address")),
        ("8.8.8.8:53/udp", (False, "dns")),
        ("8.8.8.8:53", (False, "dns")),
        ("a.example:53/udp", (False, "dns")),
        ("8.8.8.8:853", (False, "address")),
        ("127.0.0.1:5432", (True, "local")),
        ("[::1]:5432", (True, "local")),
        ("0.0.0.0:5432", (True, "local")),
        ("localhost:3000", (True, "local")),
        ("app.localhost:3000", (True, "local")),
        ("224.0.0.251:5353/udp", (False, "local")),
        ("fe80::1", (False, "local")),
    ],
)
def test_verdicts_and_their_layers(text: str, expected: tuple[bool, str]) -> None:
    assert told(ask(text)) == expected


def test_an_allowed_name_says_by_which_rule() -> None:
    verdict = ask("a.example")
    assert verdict.explanation == "a.example (.cspace.json, firewall.domains[0]) allows a.example:443/tcp"
    assert str(verdict.rule) == "a.example (.cspace.json, firewall.domains[0])"
    assert (verdict.identity, verdict.suggestion) == (Identity.IP, None)
    literal = ask("192.0.2.9:5005/udp")
    assert literal.explanation == (
        "192.0.2.9 lies in 192.0.2.0/24, and "
        "192.0.2.0/24 (443/tcp, 5000-5010/udp) (.cspace.json, firewall.allow[0]) allows 5005/udp there"
    )
    assert literal.rule is not None
    assert literal.rule.reason == "the lab"


def test_a_denial_says_why_and_what_to_add() -> None:
    unknown = ask("x.example:8443")
    assert (unknown.rule, unknown.identity, unknown.suggestion) == (None, Identity.NONE, "x.example:8443/tcp")
    assert unknown.explanation == "no rule names x.example, so the gate answers that it does not exist"
    port = ask("a.example:8443")
    assert port.explanation == "a.example is allowed, but not at this port, only with 22/tcp, 80/tcp, 443/tcp"
    assert (port.suggestion, str(port.rule)) == ("a.example:8443/tcp", "a.example (.cspace.json, firewall.domains[0])")
    assert (
        ask("a.example:443/udp").explanation
        == "a.example is allowed, but not with udp, only with 22/tcp, 80/tcp, 443/tcp"
    )
    address = ask("[2001:db9::1]:25")
    assert address.suggestion == "[2001:db9::1]:25/tcp"
    assert (
        address.explanation == "no rule has the address 2001:db9::1; it opens only while an allowed name resolves to it"
    )
    assert ask("8.8.8.8/icmp").suggestion == "8.8.8.8/icmp"
    assert ask("2001:db9::1/icmp").suggestion == "2001:db9::1/icmp"


def test_where_no_rule_could_help_nothing_is_suggested() -> None:
    dns = ask("8.8.8.8:53/udp")
    assert dns.suggestion is None
    assert (
        dns.explanation
        == "the gate itself answers queries to port 53, whichever server they name: nothing reaches 8.8.8.8"
    )
    assert ask("a.example:53").explanation.endswith("nothing reaches a.example")
    assert ask("224.0.0.251:5353/udp").suggestion is None
    assert decide(RULES, Flow(47, address=A)).suggestion is None
    assert decide(RULES, Flow(6, None, "x.example")).suggestion is None
    assert decide(RULES, Flow(6, 1, address=ip_address("2001:db8::1%eth0"))).suggestion is None
    assert decide(RULES, Flow(6, 443, "_x.example")).suggestion is None


def test_the_name_is_read_as_dns_reads_it() -> None:
    assert decide(RULES, Flow(6, 443, "A.Example.")).allowed
    assert not decide(RULES, Flow(6, 443)).allowed


def test_a_learned_address_opens_what_its_name_opens() -> None:
    entry = Learned("b.example", A, (Service(6, 8080, 8080),), 60)
    verdict = ask("203.0.113.7:8080", entry)
    assert told(verdict) == (True, "address")
    assert verdict.explanation == (
        "203.0.113.7 is an address of b.example, and b.example:8080 (.cspace.json, firewall.domains[1]) allows 8080/tcp there"
    )
    closed = ask("203.0.113.7:443", entry)
    assert told(closed) == (False, "port")
    assert str(closed.rule) == "b.example:8080 (.cspace.json, firewall.domains[1])"
    assert told(ask("203.0.113.7:8080/udp", entry)) == (False, "protocol")
    assert told(ask("203.0.113.8:8080", entry)) == (False, "address")
    orphan = Learned("gone.example", A, (Service(6, 1, 1),), 60)
    assert str(ask("203.0.113.7:1", orphan).rule) == "gone.example (dns, learned)"


def test_a_name_is_allowed_where_every_address_of_it_is() -> None:
    inside = Learned("b.example", ip_address("192.0.2.9"), (Service(6, 8080, 8080),), 60)
    outside = replace(inside, address=A)
    verdict = ask("b.example:443", inside)
    assert told(verdict) == (True, "address")
    assert verdict.explanation.endswith("allows 443/tcp there, and b.example resolves to nothing else")
    assert told(ask("b.example:443", inside, outside)) == (False, "port")
    assert told(ask("x.example:443", replace(inside, name="x.example"))) == (False, "dns")


@pytest.mark.requirement("F7")
def test_off_lets_everything_out() -> None:
    off = compile_policy(replace(POLICY, enabled=False))
    verdict = ask("x.example:25", ruleset=off)
    assert (told(verdict), verdict.rule, verdict.identity) == ((True, "off"), None, Identity.NONE)
    assert verdict.explanation == "the policy .cspace.json is switched off: everything passes"
    assert told(ask("8.8.8.8:53/udp", ruleset=off)) == (True, "off")
    assert told(ask("224.0.0.251:5353/udp", ruleset=off)) == (False, "local")
    assert told(ask("10.213.0.1:22", ruleset=off, attachment=BRIDGE)) == (False, "local")


@pytest.mark.requirement("F13")
def test_the_own_network_is_free_and_the_host_is_not() -> None:
    assert told(ask("10.213.0.5:9999", attachment=BRIDGE)) == (True, "local")
    assert told(ask("[fd5c:ace0::5]:9999/udp", attachment=BRIDGE)) == (True, "local")
    assert told(ask("10.213.0.5:9999")) == (False, "address")
    assert told(ask("10.213.0.17:9999", attachment=BRIDGE)) == (False, "address")
    assert told(ask("192.0.2.9", attachment=BRIDGE)) == (True, "address")
    assert told(ask("10.213.0.1:53/udp", attachment=BRIDGE)) == (True, "local")
    opened = ask("[fd5c:ace0::1]:5432", attachment=BRIDGE)
    assert opened.explanation == "fd5c:ace0::1 is the host, and 5432 (.cspace.json, firewall.host_access[0]) opens it"
    closed = ask("10.213.0.1:22", attachment=BRIDGE)
    assert (closed.allowed, closed.suggestion) == (False, None)
    assert closed.explanation == "10.213.0.1 is the host, of which only ports in firewall.host_access are open"
    assert told(ask("10.213.0.1/icmp", attachment=BRIDGE)) == (False, "local")


def oracle(policy: Policy, flow: Flow, entries: list[Learned]) -> bool:
    """The same question, answered from the policy's own words, one rule after the other."""
    if flow.name is not None and flow.name.endswith("localhost"):
        return True
    address = None if flow.address is None else plain(flow.address)
    if address is not None and (address.is_loopback or int(address) == 0):
        return True
    if address is not None and unroutable(ip_network(address)):
        return False
    if not policy.enabled:
        return True
    if flow.port == 53 and flow.protocol in (6, 17):
        return False

    def serves(services: tuple[Service, ...]) -> bool:
        if not services:
            wanted = [80, 443] + [22] * (policy.ssh is not False)
            return flow.protocol == 6 and flow.port in wanted
        if flow.protocol in (1, 58):
            return any(s.protocol == flow.protocol for s in services)
        if flow.protocol not in (6, 17, 132, 136) or flow.port is None:
            return False
        return any(s.protocol == flow.protocol and s.first <= flow.port <= s.last for s in services)

    written = [rule.target for rule in (*policy.domains, *policy.allow)]
    written += [target.parse(text) for preset in policy.active for text in (*preset.names, *preset.ranges)]
    if policy.ssh == "any":
        written += [target.parse("0.0.0.0/0:22"), target.parse("::/0:22")]

    def reaches(where: Any) -> bool:
        in_range = any(not isinstance(t.host, str) and where in t.host and serves(t.services) for t in written)
        return in_range or any(e.address == where and serves(e.services) for e in entries)

    if address is not None:
        return reaches(address)
    own = [t for t in written if t.host == flow.name]
    if any(serves(t.services) for t in own):
        return True
    known = [e.address for e in entries if e.name == flow.name]
    return bool(own and known) and all(reaches(plain(a)) and not unroutable(ip_network(a)) for a in known)


@given(documents(), st.lists(flows(), min_size=1, max_size=12), st.lists(learned(), max_size=4))
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_decide_agrees_with_the_policys_own_words(
    document: dict[str, Any], asked: list[Flow], known: list[Learned]
) -> None:
    policy = parse(document, source="p.json")
    ruleset = compile_policy(policy)
    for flow in asked:
        verdict = decide(ruleset, flow, known)
        assert verdict.allowed == oracle(policy, flow, known), (str(flow), verdict)
        assert verdict.explanation
        assert (verdict.identity is Identity.NONE) or verdict.allowed
        assert verdict.suggestion is None or not verdict.allowed


@given(documents(), flows())
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_adding_the_suggestion_allows_the_flow(document: dict[str, Any], flow: Flow) -> None:
    verdict = decide(compile_policy(parse(document, source="p.json")), flow)
    if verdict.suggestion is not None:
        more = {**document, "allow": [*document.get("allow", []), verdict.suggestion]}
        assert decide(compile_policy(parse(more, source="p.json")), flow).allowed
    elif not verdict.allowed:
        senseless = flow.protocol in (1, 47, 58) or flow.port is None  # such as ICMPv6 to an IPv4 address
        assert senseless or verdict.layer is Layer.LOCAL or flow.port == 53
