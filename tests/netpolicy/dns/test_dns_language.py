"""What the parts of the policy language mean to a question: wildcards, denials, ends, no IPv6, a policy that is only observed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import dns.rcode
import pytest
from dnskit import FakeClock, answer, core, ede, query, read, response, rows, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.dns.core import DnsCore, Lookup, Ready, Relay
from netpolicy.dns.view import NameView
from netpolicy.dns.wire import name_to_wire
from netpolicy.ruleset import Learned, Ruleset
from netpolicy.services import Service

A1 = ip_address("192.0.2.1")
NESTED = rules("b.a.b", allow=["*.b.a:443", "*.c.a:80", "a.b.a:22"], deny=["c.b.a", "*.a.c.a"])
NESTED_VIEW = NameView(NESTED)


def under(ruleset: Ruleset, clock: FakeClock | None = None) -> DnsCore:
    gate = DnsCore(clock or FakeClock())
    gate.adopt(NameView(ruleset))
    return gate


def ended(ruleset: Ruleset, until: float) -> Ruleset:
    return replace(ruleset, names=tuple(replace(rule, until=until) for rule in ruleset.names))


def refusal(gate: DnsCore, name: str, kind: str = "A") -> tuple[int, str]:
    step = gate.ask(query(name, kind), udp=True)
    assert isinstance(step, Ready), step
    got = read(step.wire)
    assert rows(got) == []
    return got.rcode(), (ede(got) or (0, ""))[1]


def looked_up(gate: DnsCore, name: str, *records: str, kind: str = "A") -> tuple[list[Learned], list[str]]:
    step = gate.ask(query(name, kind), udp=True)
    assert isinstance(step, Lookup), step
    found = gate.digest(step, response(name, kind, *records))
    due = gate.due(step, found)
    gate.acknowledge(due)
    return due, rows(read(gate.reply(step, found)))


@pytest.mark.requirement("F6")
def test_a_wildcard_answers_below_and_never_for_the_apex() -> None:
    gate = core(allow=["*.example.org:443"])
    due, got = looked_up(gate, "api.example.org", "api.example.org. 60 A 192.0.2.1")
    assert due == [Learned("api.example.org", A1, (Service(6, 443, 443),), 120.0)]
    assert got == ["api.example.org. 60 IN A 192.0.2.1"]
    assert isinstance(gate.ask(query("API.eu.Example.org"), udp=True), Lookup)
    for name in ("example.org", "org", "xexample.org", "api.example.org.evil.example", "."):
        code, text = refusal(gate, name)
        assert (code, text.split()[1:3]) == (dns.rcode.NXDOMAIN, ["is", "not"])


def test_a_dot_inside_a_label_is_no_separator() -> None:
    gate = core(allow=["*.example.org:443"])
    assert refusal(gate, "api\\.example.org")[0] == dns.rcode.NXDOMAIN
    assert "labels of letters, digits and hyphens" in refusal(gate, "a\\.b.example.org")[1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(".".join))
def test_the_wire_form_finds_what_the_ruleset_says(name: str) -> None:
    found = NESTED_VIEW.allowed(name_to_wire(name))
    assert (found.services if found else ()) == NESTED.services_of(name)


def test_a_denied_name_is_not_answered_and_its_rule_is_named() -> None:
    gate = core(allow=["*.example.org:443"], deny=["private.example.org", {"host": "mail.example.org", "ports": [25]}])
    code, text = refusal(gate, "private.example.org")
    assert (code, gate.counters.denied) == (dns.rcode.NXDOMAIN, 1)
    assert text == "private.example.org is denied by test.json: private.example.org (firewall.deny[0])"
    assert isinstance(gate.ask(query("mail.example.org"), udp=True), Lookup), "another port of it is open"


def test_addresses_that_are_wholly_denied_are_taken_out() -> None:
    gate = core("a.example:443", deny=["192.0.2.0/28", {"host": "192.0.2.64/28", "ports": [25]}])
    due, got = looked_up(gate, "a.example", "a.example. 60 A 192.0.2.1 192.0.2.65 192.0.2.130")
    assert {str(entry.address) for entry in due} == {"192.0.2.65", "192.0.2.130"}
    assert len(got) == 2
    step = gate.ask(query("a.example"), udp=True)
    assert isinstance(step, Ready)
    assert ede(read(step.wire)) == (15, "taken out of the answer: 192.0.2.1 is denied (192.0.2.0/28)")


def test_without_ipv6_there_are_no_addresses_of_it() -> None:
    gate = core("a.example", ipv6=False)
    assert refusal(gate, "a.example", "AAAA") == (dns.rcode.NOERROR, "")
    assert refusal(gate, "b.example", "AAAA")[0] == dns.rcode.NXDOMAIN
    assert looked_up(gate, "a.example", "a.example. 60 A 192.0.2.1")[1]


def test_addresses_denied_by_the_next_ruleset_are_not_carried_over() -> None:
    gate = core("a.example")
    looked_up(gate, "a.example", "a.example. 60 A 192.0.2.1 192.0.2.130")
    kept = gate.adopt(NameView(rules("a.example", deny=["192.0.2.0/28"])))
    assert [str(entry.address) for entry in kept] == ["192.0.2.130"]


def test_an_ended_rule_is_not_answered_and_what_was_learned_ends_with_it() -> None:
    clock = FakeClock()
    gate = under(ended(rules("a.example"), clock.now() + 50), clock)
    due, got = looked_up(gate, "a.example", "a.example. 3600 A 192.0.2.1")
    assert [entry.seconds for entry in due] == [50.0]
    assert got == ["a.example. 50 IN A 192.0.2.1"]
    clock.at += 20
    step = gate.ask(query("a.example"), udp=True)
    assert isinstance(step, Ready), "no renewal could gain anything"
    assert read(step.wire).answer[0].ttl == 30
    [carried] = gate.adopt(NameView(ended(rules("a.example"), clock.now() + 5)))
    assert carried.seconds == 5
    clock.at += 5
    assert refusal(gate, "a.example")[0] == dns.rcode.NXDOMAIN


def test_the_last_of_the_rules_for_a_name_counts() -> None:
    clock = FakeClock()
    first = ended(rules("a.b.example:443"), clock.now() + 50)
    gate = under(replace(first, names=(*first.names, *rules(allow=["*.b.example:443"]).names)), clock)
    due, _ = looked_up(gate, "a.b.example", "a.b.example. 3600 A 192.0.2.1")
    assert [entry.seconds for entry in due] == [3660.0]
    # What a rule opens that is denied altogether keeps nothing alive.
    gate = under(
        replace(
            first,
            names=(*first.names, *rules(allow=["*.b.example:25"]).names),
            denied_names=rules(deny=["*.b.example:25"]).denied_names,
        ),
        clock,
    )
    due, _ = looked_up(gate, "a.b.example", "a.b.example. 3600 A 192.0.2.1")
    assert [entry.seconds for entry in due] == [50.0]


def test_observed_everything_is_answered_what_is_allowed_is_learned_and_the_rest_is_listed() -> None:
    gate = core("a.example", mode="observe", deny=["192.0.2.0/28"], ipv6=False)
    records = "a.example. 60 A 192.0.2.1 192.0.2.130 10.0.0.1"
    due, got = looked_up(gate, "a.example", records)
    assert [str(entry.address) for entry in due] == ["192.0.2.130"]
    assert len(got) == 3
    step = gate.ask(query("a.example"), udp=True)
    assert isinstance(step, Ready)
    assert ede(read(step.wire)) is None
    for name, kind in (("a.example", "AAAA"), ("a.example", "TXT"), ("b.example", "A"), ("b.example", "MX")):
        assert isinstance(gate.ask(query(name, kind), udp=True), Relay)
    assert (gate.counters.observed, gate.observed) == (2, {"b.example": 2})
    assert (gate.counters.denied, gate.counters.stripped, gate.denied) == (0, 0, {})
    step = gate.ask(query("b.example", "TXT", ident=5), udp=True)
    assert isinstance(step, Relay)
    got_back = gate.relayed(step, answer(query("b.example", "TXT"), 'b.example. 60 TXT "hello"'))
    assert rows(read(got_back)) == ['b.example. 60 IN TXT "hello"']


def test_addresses_of_ipv6_are_not_carried_over_where_it_is_off() -> None:
    gate = core("a.example")
    looked_up(gate, "a.example", "a.example. 60 AAAA 2001:db8::1", kind="AAAA")
    assert gate.adopt(NameView(rules("a.example", ipv6=False))) == []


def test_what_was_learned_is_not_told_again_for_a_rule_that_has_ended() -> None:
    clock = FakeClock()
    gate = under(rules("a.example"), clock)
    looked_up(gate, "a.example", "a.example. 60 A 192.0.2.1")
    assert gate.adopt(NameView(ended(rules("a.example"), clock.now()))) == []


def test_a_pattern_that_no_question_can_carry_stays_closed() -> None:
    [rule] = rules(allow=["*.example.org:443"]).names
    long = replace(rule, name=f"*.{'x' * 64}.org")
    view = NameView(replace(rules(), names=(long, replace(rule, name="x" * 64), rule)))
    assert view.allowed(name_to_wire("a.example.org")) is not None
    assert view.allowed(name_to_wire("a.org")) is None


def test_memory_is_bounded_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netpolicy.dns.view._MOST_JUDGED", 8)
    monkeypatch.setattr("netpolicy.dns.core._MOST_KEPT", 8)
    clock = FakeClock()
    gate = under(rules(allow=["*.example.org:443"]), clock)
    assert gate.view is not None
    for n in range(50):
        name = f"n{n}.example.org"
        looked_up(gate, name, f"{name}. {60 if n < 8 else 300} A 192.0.2.1")
        clock.at += 2
        assert len(gate._cache) <= 8
        assert len(gate.view._judged) <= 8
    assert ("n49.example.org" in str(gate._cache)) or len(gate._cache) == 8
    for batch in range(4):
        many = [ip_address(f"198.51.{n // 250 + 5 * batch}.{n % 250}") for n in range(1100)]
        gate.table.record([Learned("b.example.org", address, (Service(6, 1, 1),), 5.0) for address in many], clock.at)
        clock.at += 1000
    assert len(gate.table._elements) <= 2200
