"""Labels below a wildcard carry little: new names are few, short and ordinary."""

from __future__ import annotations

import dns.rcode
import pytest
from dnskit import FakeClock, core, ede, query, read, response, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.dns.budget import A_MINUTE, BURST, REPEATS, REPEATS_A_MINUTE, Budget
from netpolicy.dns.core import DnsCore, Lookup, Ready, Relay
from netpolicy.dns.view import NameView
from netpolicy.dns.wire import REFUSED, name_to_wire

WILD = ["*.example.org:443"]


def asked(gate: DnsCore, names: list[str]) -> int:
    """How many of these questions leave."""
    return sum(isinstance(gate.ask(query(name), udp=True), Lookup) for name in names)


def fresh(count: int, begin: int = 0) -> list[str]:
    return [f"n{begin + n}.example.org" for n in range(count)]


def test_new_names_are_a_burst_and_then_so_many_a_minute() -> None:
    clock = FakeClock()
    gate = core(allow=WILD, clock=clock)
    assert asked(gate, fresh(500)) == BURST
    assert gate.counters.limited == 500 - BURST
    assert (gate.counters.denied, gate.counters.answered) == (0, 0)
    clock.at += 60
    assert asked(gate, fresh(500, 1000)) == A_MINUTE
    clock.at += 1
    assert asked(gate, fresh(5, 2000)) == 0
    clock.at += 1
    assert asked(gate, fresh(5, 3000)) == 1
    clock.at += 86400
    assert asked(gate, fresh(500, 4000)) == BURST


def test_over_budget_it_says_so_and_nothing_is_kept_as_a_no() -> None:
    gate = core(allow=WILD)
    asked(gate, fresh(BURST))
    step = gate.ask(query("late.example.org"), udp=True)
    assert isinstance(step, Ready)
    got = read(step.wire)
    assert (got.rcode(), got.authority) == (dns.rcode.REFUSED, [])
    code, text = ede(got) or (0, "")
    assert code == 15
    assert text.startswith("too many new names below example.org: 100 at once, then 30 a minute; ask again later")
    assert gate.denied == {"late.example.org": 1}


def test_names_that_resolved_and_other_types_of_a_name_are_free() -> None:
    clock = FakeClock()
    gate = core(allow=WILD, clock=clock)
    for name in fresh(60):
        step = gate.ask(query(name), udp=True)
        assert isinstance(step, Lookup)
        gate.digest(step, response(name, "A", f"{name}. 0 A 192.0.2.1"))
        assert isinstance(gate.ask(query(name, "AAAA"), udp=True), Lookup)
    gate.adopt(NameView(rules(allow=WILD)))
    assert asked(gate, fresh(40, 1000)) == 40
    assert asked(gate, fresh(1, 2000)) == 0
    clock.at += 70
    assert asked(gate, fresh(60)) == 60, "what resolved stays free"
    assert asked(gate, fresh(100, 1000)) == 35, "what did not costs again"


def test_a_choice_among_known_names_is_not_told_without_end() -> None:
    """A zone whose answers must not be kept (or that gives none) would hear of each question."""
    clock = FakeClock()
    gate = core("free.example.org", allow=WILD, clock=clock)
    names = fresh(8)
    for name, ttl in zip(names, (0, 0, 0, 0, 0, 0, 0, 300), strict=True):
        step = gate.ask(query(name), udp=True)
        assert isinstance(step, Lookup)
        gate.due(step, answer := gate.digest(step, response(name, "A", f"{name}. {ttl} A 192.0.2.1")))
        gate.acknowledge(gate.due(step, answer))
    assert asked(gate, names[:7] * 1000) == REPEATS
    step = gate.ask(query(names[0]), udp=True)
    assert isinstance(step, Ready)
    code, text = ede(read(step.wire)) or (0, "")
    assert (read(step.wire).rcode(), code) == (dns.rcode.REFUSED, 15)
    assert text.startswith("too many questions for names below example.org whose answers cannot be kept: 600 at once")
    kept = gate.ask(query(names[7]), udp=True)
    assert isinstance(kept, Ready)
    assert len(read(kept.wire).answer) == 1, "what can be answered from memory is free"
    assert asked(gate, fresh(1, 1000)) == 1, "new names have a budget of their own"
    assert asked(gate, ["free.example.org"] * 2000) == 2000, "exact names cost nothing"
    clock.at += 6
    assert asked(gate, names[:7] * 1000) == REPEATS_A_MINUTE // 10


def test_exact_names_cost_nothing() -> None:
    gate = core("free.example.org", allow=WILD)
    asked(gate, fresh(BURST))
    assert asked(gate, ["free.example.org"]) == 1


@pytest.mark.parametrize(
    ("part", "fits"),
    [
        ("a", True),
        ("a.b.c.d", True),
        ("a.b.c.d.e", False),
        ("x" * 63, True),
        ("x" * 31 + "." + "y" * 31, True),
        ("x" * 31 + "." + "y" * 32, False),
        ("_dmarc.under_score-1", True),
        ("wei\\195rd", False),
        ("sp\\032ace", False),
    ],
)
def test_the_part_below_is_short_and_ordinary(part: str, fits: bool) -> None:
    gate = core(allow=WILD)
    step = gate.ask(query(f"{part}.example.org"), udp=True)
    assert isinstance(step, Lookup) == fits
    if isinstance(step, Ready):
        assert read(step.wire).rcode() == dns.rcode.NXDOMAIN
        assert gate.counters.limited == 1


def test_the_nearest_wildcard_counts() -> None:
    gate = core(allow=[*WILD, "*.d.c.b.a.example.org:443"])
    assert asked(gate, ["x.y.d.c.b.a.example.org", "x.y.c.b.a.example.org"]) == 1


def test_observed_it_is_counted_and_passes() -> None:
    gate = core(allow=WILD, mode="observe")
    assert asked(gate, fresh(BURST)) == BURST
    assert isinstance(gate.ask(query("late.example.org"), udp=True), Relay)
    assert gate.observed == {"late.example.org": 1}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 200), st.integers(0, 300), st.booleans()), max_size=60))
def test_no_course_of_questions_gets_more_new_names_than_the_rate(course: list[tuple[float, int, bool]]) -> None:
    budget, now, passed = Budget(), 0.0, 0
    for pause, number, resolves in course:
        now += pause
        name = name_to_wire(f"n{number}.example.org")
        known = dict(budget._known)
        if budget.spend(name, "example.org", now) is None:
            passed += known.get(name, 0) <= now
            if resolves:
                budget.resolved(name)
        assert passed <= BURST + now * A_MINUTE / 60 + 1e-6
    assert REFUSED == 5


def test_what_is_remembered_is_bounded_and_the_longest_unasked_is_forgotten() -> None:
    budget = Budget()
    for n in range(5000):
        budget.resolved(name_to_wire(f"n{n}.example.org"))
        assert budget.spend(name_to_wire("n0.example.org"), "example.org", float(n)) is None
    assert len(budget._known) == 4096
    assert budget._new._left == BURST
