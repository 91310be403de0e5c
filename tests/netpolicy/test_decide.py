"""What happens to one flow: told in examples, and held against an oracle that knows no ruleset."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import MOMENTS, ROLES, flows, learned, policies

from netpolicy import compile_policy, decide, parse_flow
from netpolicy.addresses import plain, unroutable
from netpolicy.attachment import Attachment
from netpolicy.flow import Flow, Identity, Layer, Origin, Verdict
from netpolicy.policy import Policy, parse, target
from netpolicy.policy.model import Role
from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service, subtract

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
    assert told(ask("b.example:443", replace(inside, name="a.example"))) == (False, "port")
    assert told(ask("x.example:443", replace(inside, name="x.example"))) == (False, "dns")


def test_no_rule_opens_what_never_leaves_the_link() -> None:
    senseless = Ruleset(
        "p", ranges=(ranged("127.0.0.1/32", HTTPS), ranged("224.0.0.0/8", HTTPS), ranged("0.0.0.0/0", HTTP))
    )
    assert told(ask("127.0.0.1:22", ruleset=senseless)) == (True, "local")
    assert told(ask("224.0.0.1:443", ruleset=senseless)) == (False, "local")
    assert told(ask("224.0.0.1:80", ruleset=senseless)) == (False, "local")
    assert ask("224.0.0.1:80").explanation == (
        "224.0.0.1 is multicast (224.0.0.0/4), which never leaves the workload's own link"
    )
    assert told(ask("0.0.0.1:80", ruleset=senseless)) == (False, "local")
    assert told(ask("0.0.0.0:22", ruleset=senseless)) == (True, "local")
    assert told(ask("255.255.255.255:80", ruleset=senseless)) == (False, "local")
    assert told(ask("255.255.255.254:80", ruleset=senseless)) == (True, "address")
    assert told(ask("224.0.0.1:80", Learned("a.example", ip_address("224.0.0.1"), (HTTP,), 60), ruleset=senseless)) == (
        False,
        "local",
    )


@pytest.mark.requirement("F7")
def test_off_lets_everything_out() -> None:
    off = compile_policy(replace(POLICY, mode="off"))
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


def origin(text: str) -> Origin:
    return Origin("p.json", text, text)


def named(name: str, *services: Service) -> NameRule:
    return NameRule(name, services, origin(name))


def ranged(network: str, *services: Service) -> RangeRule:
    return RangeRule(ip_network(network), services, origin(network))


HTTP, HTTPS = Service(6, 80, 80), Service(6, 443, 443)
DENYING = Ruleset(
    "p.json",
    names=(
        named("*.example", HTTP, HTTPS),
        named("*.deep.example", Service(1)),
        named("a.example", Service(6, 22, 22)),
    ),
    ranges=(ranged("192.0.2.0/24", HTTPS), ranged("192.0.2.0/28", HTTP), ranged("2001:db8::/32", HTTPS)),
    denied_names=(named("no.example", *EVERY), named("a.example", HTTP), named("*.ads.example", HTTP, HTTPS)),
    denied_ranges=(ranged("192.0.2.128/25", *EVERY), ranged("192.0.2.8/29", HTTP), ranged("203.0.113.0/24", HTTPS)),
)


@pytest.mark.requirement("F6")
@pytest.mark.parametrize(
    ("text", "expected", "rule"),
    [
        ("b.example", (True, "dns"), "*.example"),
        ("c.b.example:80", (True, "dns"), "*.example"),
        ("example", (False, "dns"), None),
        ("notexample", (False, "dns"), None),
        ("x.deep.example", (True, "dns"), "*.example"),
        ("x.deep.example/icmp", (True, "dns"), "*.deep.example"),
        ("deep.example/icmp", (False, "protocol"), "*.example"),
        ("a.example:22", (True, "dns"), "a.example"),
        ("a.example:443", (True, "dns"), "*.example"),
        ("a.example:80", (False, "port"), "a.example"),
        ("no.example", (False, "dns"), "no.example"),
        ("no.example:22", (False, "dns"), "no.example"),
        ("x.no.example", (True, "dns"), "*.example"),
        ("x.ads.example", (False, "dns"), "*.ads.example"),
        ("x.ads.example:22", (False, "dns"), "*.ads.example"),
        ("192.0.2.1:80", (True, "address"), "192.0.2.0/28"),
        ("192.0.2.9:80", (False, "address"), "192.0.2.8/29"),
        ("192.0.2.9:443", (True, "address"), "192.0.2.0/24"),
        ("192.0.2.9:22", (False, "port"), "192.0.2.0/24"),
        ("192.0.2.200:443", (False, "address"), "192.0.2.128/25"),
        ("203.0.113.5:443", (False, "address"), "203.0.113.0/24"),
        ("203.0.113.5:80", (False, "address"), None),
        ("2001:db8::1", (True, "address"), "2001:db8::/32"),
    ],
)
def test_denials_and_wildcards(text: str, expected: tuple[bool, str], rule: str | None) -> None:
    verdict = ask(text, ruleset=DENYING)
    assert told(verdict) == expected
    assert (verdict.rule and verdict.rule.text) == rule


def test_what_a_rule_denies_cannot_be_added() -> None:
    whole = ask("no.example", ruleset=DENYING)
    assert (whole.suggestion, whole.explanation) == (
        None,
        "no.example (p.json, no.example) denies no.example:443/tcp, so the gate answers that the name does not exist",
    )
    part = ask("a.example:80", ruleset=DENYING)
    assert (part.suggestion, part.explanation) == (None, "a.example (p.json, a.example) denies a.example:80/tcp")
    address = ask("192.0.2.9:80", ruleset=DENYING)
    assert address.explanation == "192.0.2.8/29 (p.json, 192.0.2.8/29) denies 80/tcp at 192.0.2.9"
    assert address.suggestion is None


def test_a_service_that_is_not_denied_itself_can_be_added() -> None:
    taken = ask("x.ads.example:22", ruleset=DENYING)
    assert (taken.suggestion, taken.explanation) == (
        "x.ads.example:22/tcp",
        "*.ads.example (p.json, *.ads.example) denies what rules allow of x.ads.example, "
        "so the gate answers that the name does not exist",
    )
    more = replace(DENYING, names=(*DENYING.names, named("x.ads.example", Service(6, 22, 22))))
    assert ask("x.ads.example:22", ruleset=more).allowed
    emptied = replace(DENYING, ranges=(ranged("203.0.113.0/25", HTTPS),))
    there = ask("203.0.113.5:80", ruleset=emptied)
    assert there.explanation == ("203.0.113.0/24 (p.json, 203.0.113.0/24) denies what rules allow of 203.0.113.5")
    assert (told(there), there.suggestion) == ((False, "address"), "203.0.113.5:80/tcp")


def test_a_denied_address_stays_closed_whatever_resolves_to_it() -> None:
    entry = Learned("b.example", ip_address("203.0.113.5"), (HTTP, HTTPS), 60)
    assert told(ask("203.0.113.5:80", entry, ruleset=DENYING)) == (True, "address")
    assert told(ask("203.0.113.5:443", entry, ruleset=DENYING)) == (False, "address")
    assert told(ask("b.example:80", entry, ruleset=DENYING)) == (True, "dns")
    closed = ask("b.example:443", entry, ruleset=DENYING)
    assert told(closed) == (False, "address")
    assert closed.explanation.endswith(" denies 443/tcp at 203.0.113.5, and b.example resolves to nothing else")
    elsewhere = replace(entry, address=A.__class__("198.51.100.7"))
    assert told(ask("b.example:443", entry, elsewhere, ruleset=DENYING)) == (True, "dns")


def test_without_ipv6_nothing_leaves_by_it() -> None:
    off = replace(DENYING, ipv6=False)
    verdict = ask("2001:db8::1", ruleset=off)
    assert (told(verdict), verdict.rule, verdict.suggestion) == ((False, "address"), None, None)
    assert verdict.explanation == "2001:db8::1 is an IPv6 address, and the policy p.json has IPv6 switched off"
    entry = Learned("b.example", ip_address("2001:db8::1"), (HTTP, HTTPS), 60)
    assert told(ask("2001:db8::1", entry, ruleset=off)) == (False, "address")
    assert told(ask("b.example", entry, ruleset=off)) == (False, "address")
    assert told(ask("::1", ruleset=off)) == (True, "local")
    assert told(ask("[fd5c:ace0::5]:9999", ruleset=off, attachment=BRIDGE)) == (True, "local")
    assert told(ask("[2001:db8::1]:53/udp", ruleset=off)) == (False, "dns")
    assert told(ask("2001:db8::1", ruleset=replace(off, mode="off"))) == (True, "off")
    assert told(ask("::ffff:192.0.2.1", ruleset=off)) == (True, "address"), "it is sent as IPv4"


@pytest.mark.parametrize(
    "text", ["example", "no.example", "a.example:80", "x.ads.example:22", "192.0.2.9:80", "198.51.100.1", "2001:db9::1"]
)
def test_an_observed_policy_lets_pass_what_it_would_refuse(text: str) -> None:
    refused = ask(text, ruleset=DENYING)
    observed = ask(text, ruleset=replace(DENYING, mode="observe"))
    assert (told(refused)[0], told(observed)) == (False, (True, "observe"))
    assert observed.explanation == f"observed only; it would be refused: {refused.explanation}"
    assert (observed.rule, observed.suggestion) == (refused.rule, refused.suggestion)
    assert observed.identity is Identity.NONE


def test_observing_keeps_what_is_local_and_dns() -> None:
    observed = replace(DENYING, mode="observe")
    assert told(ask("b.example", ruleset=observed)) == (True, "dns")
    assert told(ask("8.8.8.8:53/udp", ruleset=observed)) == (False, "dns")
    assert told(ask("b.example:53", ruleset=observed)) == (False, "dns")
    assert told(ask("224.0.0.251:5353/udp", ruleset=observed)) == (False, "local")
    assert told(ask("10.213.0.1:22", ruleset=observed, attachment=BRIDGE)) == (False, "local")
    entry = Learned("x.example", ip_address("192.0.2.1"), (HTTP, HTTPS), 60)
    assert told(ask("x.example:22", entry, ruleset=observed)) == (True, "observe")
    assert told(ask("2001:db9::1", ruleset=replace(observed, ipv6=False))) == (True, "observe")


def test_a_ruleset_is_judged_as_it_is_until_it_is_asked_for_at_a_moment() -> None:
    ending = replace(DENYING, names=(replace(DENYING.names[0], until=100.0),))
    assert ask("b.example", ruleset=ending).allowed
    assert ask("b.example", ruleset=ending.at(99)).allowed
    assert told(ask("b.example", ruleset=ending.at(100))) == (False, "dns")


def test_in_its_own_namespace_every_query_is_turned_to_the_gate() -> None:
    inside = Attachment("o1", "pod", "", (ip_network("10.9.0.0/16"),), (ip_address("192.0.2.77"),), "output")
    for server in ("127.0.0.11:53/udp", "[::1]:53", "192.0.2.77:53/udp", "10.9.0.1:53/udp", "8.8.8.8:53/udp"):
        assert told(ask(server, attachment=inside)) == (False, "dns")
        assert told(ask(server, attachment=inside, ruleset=replace(RULES, mode="off")))[0], server
    assert told(ask("127.0.0.11:5432", attachment=inside)) == (True, "local")
    assert told(ask("10.9.0.1:5432", attachment=inside)) == (True, "local")
    assert told(ask("192.0.2.77:5432", attachment=inside)) == (True, "local")
    assert told(ask("192.0.2.77:443", attachment=inside)) == (False, "local")


def test_a_verdict_is_a_value_although_its_words_come_late() -> None:
    def fresh() -> Verdict:
        return ask("x.example:8443")

    plain_one = Verdict(
        False, Layer.DNS, None, Identity.NONE,
        "no rule names x.example, so the gate answers that it does not exist", "x.example:8443/tcp",
    )  # fmt: skip
    assert fresh() == plain_one
    assert hash(fresh()) == hash(plain_one)
    assert repr(fresh()) == repr(plain_one)
    assert asdict(fresh()) == asdict(plain_one)
    assert json.dumps(asdict(fresh()))
    for copied in (copy.copy(fresh()), copy.deepcopy(fresh()), pickle.loads(pickle.dumps(fresh())), replace(fresh())):
        assert copied == plain_one
    assert replace(fresh(), suggestion=None) == replace(plain_one, suggestion=None)
    with pytest.raises(AttributeError, match="cannot assign"):
        fresh().allowed = True  # type: ignore[misc]
    with pytest.raises(AttributeError, match="a verdict has no 'colour'"):
        fresh().colour  # type: ignore[attr-defined]  # noqa: B018


def test_a_ruleset_is_copied_without_what_was_made_of_it() -> None:
    ask("192.0.2.9")
    again = pickle.loads(pickle.dumps(RULES))
    assert again == RULES
    assert "places" in vars(RULES)
    assert "places" not in vars(again)
    assert told(ask("127.0.0.1:1", ruleset=again, attachment=BRIDGE)) == (True, "local")


def serves(services: tuple[Service, ...], flow: Flow) -> bool:
    if flow.protocol in (1, 58):
        return any(s.protocol == flow.protocol for s in services)
    if flow.protocol not in (6, 17, 132, 136):
        return False
    return any(s.protocol == flow.protocol and s.first <= (flow.port or 0) <= s.last for s in services)


def is_for(host: Any, name: str) -> bool:
    return isinstance(host, str) and (name.endswith(host[1:]) if host.startswith("*.") else name == host)


def oracle(policy: Policy, role: str, now: float, flow: Flow, entries: list[Learned]) -> bool:
    """The same question, answered from the policy's own words, one rule after the other."""
    if flow.name is not None and flow.name.endswith("localhost"):
        return True

    def local(where: Any) -> bool:
        return unroutable(ip_network(where)) is not None

    address = None if flow.address is None else plain(flow.address)
    if address is not None and local(address):
        return bool(address.is_loopback or int(address) == 0)
    if policy.mode == "off":
        return True
    if flow.port == 53 and flow.protocol in (6, 17):
        return False
    if policy.mode == "observe":
        return True

    def said(rules: Any, bare: tuple[Service, ...]) -> list[tuple[Any, tuple[Service, ...]]]:
        now_ours = [r for r in rules if (not r.roles or role in r.roles) and (r.until is None or r.until > now)]
        return [(rule.target.host, rule.target.services or bare) for rule in now_ours]

    bare = tuple(Service(6, port, port) for port in ([80, 443] if policy.ssh is False else [22, 80, 443]))
    opening = said((*policy.domains, *policy.allow), bare)
    of_presets = [target.parse(text) for preset in policy.active for text in (*preset.names, *preset.ranges)]
    opening += [(found.host, found.services or bare) for found in of_presets]
    if policy.ssh == "any":
        opening += [(ip_network(everywhere), (Service(6, 22, 22),)) for everywhere in ("0.0.0.0/0", "::/0")]
    denying = said(policy.deny, EVERY)

    def has(rules: Any, where: Any) -> bool:
        return any(not isinstance(host, str) and where in host and serves(own, flow) for host, own in rules)

    def refused(where: Any) -> bool:
        return (where.version == 6 and not policy.ipv6) or has(denying, where)

    def reaches(where: Any) -> bool:
        learned = any(e.address == where and serves(e.services, flow) for e in entries)
        return not refused(where) and (learned or has(opening, where))

    if address is not None:
        return reaches(address)
    assert flow.name is not None
    own, taken = ([s for host, own in rules if is_for(host, flow.name) for s in own] for rules in (opening, denying))
    known = [plain(e.address) for e in entries if e.name == flow.name]
    if serves(tuple(own), flow) and not serves(tuple(taken), flow):
        return not known or not all(refused(a) and not local(a) for a in known)
    return bool(subtract(own, taken) and known) and all(reaches(a) and not local(a) for a in known)


@given(
    policies(), st.lists(flows(), min_size=1, max_size=12), st.lists(learned(), max_size=4),
    st.sampled_from(ROLES), st.sampled_from(MOMENTS),
)  # fmt: skip
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_decide_agrees_with_the_policys_own_words(
    document: dict[str, Any], asked: list[Flow], known: list[Learned], role: Role, now: float
) -> None:
    policy = parse(document, source="p.json")
    ruleset = compile_policy(policy, role=role).at(now)
    assert ruleset == compile_policy(policy, role=role, now=now)
    for flow in asked:
        verdict = decide(ruleset, flow, known)
        assert verdict.allowed == oracle(policy, role, now, flow, known), (str(flow), verdict)
        assert verdict.explanation
        assert (verdict.identity is Identity.NONE) or verdict.allowed
        assert verdict.suggestion is None or not verdict.allowed or verdict.layer is Layer.OBSERVE


@given(policies(), flows())
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_adding_the_suggestion_allows_the_flow(document: dict[str, Any], flow: Flow) -> None:
    document = {**document, "mode": "enforce"}
    document.pop("enabled", None)
    ruleset = compile_policy(parse(document, source="p.json"))
    verdict = decide(ruleset, flow)
    if verdict.suggestion is not None:
        more = {**document, "allow": [*document.get("allow", []), verdict.suggestion]}
        assert decide(compile_policy(parse(more, source="p.json")), flow).allowed
    elif not verdict.allowed:
        denied = verdict.rule is not None and verdict.rule.key.startswith("firewall.deny")
        off = flow.address is not None and flow.address.version == 6 and not ruleset.ipv6
        senseless = flow.protocol in (1, 47, 58) or flow.port is None  # such as ICMPv6 to an IPv4 address
        assert denied or off or senseless or verdict.layer is Layer.LOCAL or flow.port == 53
