"""The DNS gate's decisions, as transcripts over a clock that stands still."""

from __future__ import annotations

from ipaddress import ip_address

import dns.rcode
import pytest
from dnskit import FakeClock, answer, core, ede, query, read, response, rows, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.dns.core import DnsCore, Lookup, Ready, Relay
from netpolicy.dns.view import NameView
from netpolicy.dns.wire import Response
from netpolicy.flow import Address
from netpolicy.ruleset import Learned
from netpolicy.services import Service

A1, A2 = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def resolve(gate: DnsCore, name: str, got: Response, kind: str = "A", **how: int | None) -> tuple[list[Learned], bytes]:
    """The whole transcript of an allowed question."""
    step = gate.ask(query(name, kind, **how), udp=True)
    assert isinstance(step, Lookup)
    found = gate.digest(step, got)
    due = gate.due(step, found)
    gate.acknowledge(due)
    return due, gate.reply(step, found)


def ready(gate: DnsCore, data: bytes, *, udp: bool = True) -> bytes:
    step = gate.ask(data, udp=udp)
    assert isinstance(step, Ready)
    assert step.wire is not None
    return step.wire


@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "HTTPS", "ANY", "MX", "NULL", "PTR"])
@pytest.mark.parametrize("name", ["evil.example", "example", "x.api.example.org", "api.example.org.evil.example", "."])
def test_a_name_that_is_not_listed_is_denied_with_the_reason(name: str, kind: str) -> None:
    gate = core("api.example.org")
    got = read(ready(gate, query(name, kind)))
    assert got.rcode() == dns.rcode.NXDOMAIN
    assert got.authority[0][0].minimum == 5
    code, text = ede(got) or (0, "")
    assert code == 15
    assert text == f"{name} is not allowed by test.json; to allow it add it to firewall.domains"
    assert gate.counters.denied == 1


def test_letter_case_is_the_clients_own_and_never_leaves() -> None:
    gate = core("api.example.org")
    step = gate.ask(query("API.eXample.org"), udp=True)
    assert isinstance(step, Lookup)
    assert step.query.name == b"\3api\7example\3org\0"
    found = gate.digest(step, response("api.example.org", "A", "api.example.org. 60 A 192.0.2.1"))
    assert str(read(gate.reply(step, found)).question[0].name) == "API.eXample.org."


def test_an_answer_opens_exactly_its_addresses_and_services_before_it_leaves() -> None:
    gate = core("api.example.org:443", "api.example.org:8000-8010/udp")
    due, reply = resolve(
        gate, "api.example.org", response("api.example.org", "A", "api.example.org. 300 A 192.0.2.1 192.0.2.2")
    )
    services = (Service(6, 443, 443), Service(17, 8000, 8010))
    assert set(due) == {Learned("api.example.org", address, services, 360.0) for address in (A1, A2)}
    assert set(rows(read(reply))) == {"api.example.org. 300 IN A 192.0.2.1", "api.example.org. 300 IN A 192.0.2.2"}


@pytest.mark.parametrize(
    ("ttl", "client", "element"),
    [(0, 0, 90), (1, 1, 90), (30, 30, 90), (31, 31, 91), (3600, 3600, 3660), (86400, 3600, 3660)],
)
def test_lifetimes_are_clamped(ttl: int, client: int, element: int) -> None:
    due, reply = resolve(core("a.example"), "a.example", response("a.example", "A", f"a.example. {ttl} A 192.0.2.1"))
    assert [entry.seconds for entry in due] == [element]
    assert read(reply).answer[0].ttl == client


def test_the_shortest_ttl_of_a_chain_counts() -> None:
    got = response("a.example", "A", "a.example. 40 CNAME b.example.", "b.example. 300 A 192.0.2.1")
    due, reply = resolve(core("a.example"), "a.example", got)
    assert [entry.seconds for entry in due] == [100]
    assert rows(read(reply)) == ["a.example. 40 IN CNAME b.example.", "b.example. 40 IN A 192.0.2.1"]


def test_a_chain_is_followed_for_the_asked_name_only() -> None:
    gate = core("a.example")
    got = response(
        "a.example",
        "A",
        "a.example. 60 CNAME b.example.",
        "b.example. 60 CNAME c.example.",
        "c.example. 60 A 192.0.2.1",
        "other.example. 60 A 192.0.2.66",
    )
    due, reply = resolve(gate, "a.example", got)
    assert [(entry.name, entry.address) for entry in due] == [("a.example", A1)]
    assert "192.0.2.66" not in str(read(reply))
    assert read(ready(gate, query("c.example"))).rcode() == dns.rcode.NXDOMAIN


def test_a_chain_without_end_is_no_data() -> None:
    links = [f"n{i}.example. 60 CNAME n{(i + 1) % 3}.example." for i in range(3)]
    due, reply = resolve(core("n0.example"), "n0.example", response("n0.example", "A", *links))
    assert due == []
    assert read(reply).rcode() == dns.rcode.NOERROR


REBINDING = [
    ("A", address)
    for address in (
        "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.251", "168.63.129.16",
    )
] + [
    ("AAAA", address)
    for address in ("::", "::1", "fe80::1", "fd00:ec2::254", "fc00::1", "ff02::1", "64:ff9b::a00:1", "::ffff:10.0.0.1", "::ffff:192.0.2.1")
]  # fmt: skip


@pytest.mark.parametrize(("kind", "address"), REBINDING)
def test_addresses_that_are_not_public_are_taken_out(kind: str, address: str) -> None:
    gate = core("a.example")
    good = "192.0.2.1" if kind == "A" else "2001:db8::1"
    due, reply = resolve(gate, "a.example", response("a.example", kind, f"a.example. 60 {kind} {address} {good}"), kind)
    assert [str(entry.address) for entry in due] == [good]
    got = read(reply)
    assert rows(got) == [f"a.example. 60 IN {kind} {good}"]
    code, text = ede(got) or (0, "")
    assert code == 15
    assert text.startswith("taken out of the answer: ")
    assert gate.counters.stripped == 1


def test_an_answer_with_nothing_left_is_no_data_and_says_why() -> None:
    due, reply = resolve(core("a.example"), "a.example", response("a.example", "A", "a.example. 900 A 10.1.2.3"))
    got = read(reply)
    assert (due, rows(got), got.rcode()) == ([], [], dns.rcode.NOERROR)
    assert "10.1.2.3 is private" in (ede(got) or (0, ""))[1]
    assert got.authority[0].ttl <= 30


def test_a_range_of_the_policy_permits_its_own_addresses() -> None:
    gate = core("a.example", allow=["10.1.2.0/24:443"])
    due, reply = resolve(gate, "a.example", response("a.example", "A", "a.example. 60 A 10.1.2.3 10.1.3.3"))
    assert [str(entry.address) for entry in due] == ["10.1.2.3"]
    assert rows(read(reply)) == ["a.example. 60 IN A 10.1.2.3"]


@pytest.mark.parametrize("kind", ["TXT", "HTTPS", "SVCB", "MX", "ANY", "CNAME", "NS", "SRV", "NULL", "PTR", "DNSKEY"])
def test_other_types_of_an_allowed_name_are_no_data_without_asking(kind: str) -> None:
    gate = core("a.example")
    got = read(ready(gate, query("a.example", kind)))
    assert (got.rcode(), rows(got)) == (dns.rcode.NOERROR, [])
    assert str(got.authority[0].name) == "a.example."
    assert gate.counters.answered == 1


def test_an_upstreams_no_is_passed_on_and_kept_shortly() -> None:
    clock = FakeClock()
    gate = core("a.example", clock=clock)
    soa = "example. 7200 SOA ns.example. h.example. 1 2 3 4 900"
    _due, reply = resolve(gate, "a.example", response("a.example", "A", rcode=3, authority=soa))
    got = read(reply)
    assert got.rcode() == dns.rcode.NXDOMAIN
    assert got.authority[0].ttl == 30
    assert read(ready(gate, query("a.example"))).rcode() == dns.rcode.NXDOMAIN
    clock.at += 31
    assert isinstance(gate.ask(query("a.example"), udp=True), Lookup)


def test_a_known_answer_is_ready_with_what_is_left_of_its_ttl() -> None:
    clock = FakeClock()
    gate = core("a.example", clock=clock)
    resolve(gate, "a.example", response("a.example", "A", "a.example. 100 A 192.0.2.1"))
    clock.at += 60
    assert rows(read(ready(gate, query("A.example")))) == ["A.example. 40 IN A 192.0.2.1"]
    clock.at += 40
    assert isinstance(gate.ask(query("a.example"), udp=True), Lookup)


def test_an_answer_with_ttl_0_is_not_kept() -> None:
    gate = core("a.example")
    resolve(gate, "a.example", response("a.example", "A", "a.example. 0 A 192.0.2.1"))
    assert isinstance(gate.ask(query("a.example"), udp=True), Lookup)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5000), st.floats(0, 400)), min_size=1, max_size=12))
def test_a_clients_copy_never_outlives_the_element(questions: list[tuple[str, int, float]]) -> None:
    """Whatever the TTLs and the order, for both names of one address."""
    clock = FakeClock()
    gate = core("a.example", "b.example", clock=clock)
    kernel: dict[tuple[Address, Service], float] = {}
    for letter, ttl, pause in questions:
        clock.at += pause
        name = f"{letter}.example"
        step = gate.ask(query(name), udp=True)
        if isinstance(step, Lookup):
            found = step.known or gate.digest(step, response(name, "A", f"{name}. {ttl} A 192.0.2.1"))
            due = gate.due(step, found)
            for entry in due:
                for service in entry.services:
                    kernel[entry.address, service] = clock.at + entry.seconds
            gate.acknowledge(due)
            reply = gate.reply(step, found)
        else:
            assert step.wire is not None
            reply = step.wire
        given_ttl = read(reply).answer[0].ttl
        left = [until - clock.at for until in kernel.values()]
        assert len(left) == 2
        assert min(left) > given_ttl + 30


def test_a_shorter_answer_never_shortens_an_element() -> None:
    gate = core("long.example", "short.example")
    resolve(gate, "long.example", response("long.example", "A", "long.example. 3600 A 192.0.2.1"))
    due, _reply = resolve(gate, "short.example", response("short.example", "A", "short.example. 5 A 192.0.2.1"))
    assert due == []
    assert {
        entry.name for entry in gate.table.entries(NameView(rules("long.example", "short.example")), FakeClock())
    } == {
        "long.example",
        "short.example",
    }


def test_a_known_answer_whose_element_has_gone_is_told_to_the_kernel_again() -> None:
    """A cache that outlives the set resolves names that do not connect."""
    gate = core("a.example")
    resolve(gate, "a.example", response("a.example", "A", "a.example. 100 A 192.0.2.1"))
    gate.table.carry_over(NameView(rules()), FakeClock())
    step = gate.ask(query("a.example"), udp=True)
    assert isinstance(step, Lookup)
    assert step.known is not None
    assert [entry.address for entry in gate.due(step, step.known)] == [A1]


def test_another_ruleset_keeps_the_addresses_of_names_it_still_allows() -> None:
    clock = FakeClock()
    gate = core("keep.example", "drop.example", clock=clock)
    for name, address in (("keep.example", "192.0.2.1"), ("drop.example", "192.0.2.2")):
        resolve(gate, name, response(name, "A", f"{name}. 100 A {address}"))
    clock.at += 10
    kept = gate.adopt(NameView(rules("keep.example:8443")))
    assert kept == [Learned("keep.example", A1, (Service(6, 8443, 8443),), 150.0)]
    assert isinstance(gate.ask(query("keep.example"), udp=True), Lookup)
    assert read(ready(gate, query("drop.example"))).rcode() == dns.rcode.NXDOMAIN


def test_an_answer_known_by_the_former_ruleset_is_not_given_under_the_next() -> None:
    """The former one permitted an address that the next one takes out."""
    gate = core("a.example", allow=["10.1.2.0/24:443"])
    resolve(gate, "a.example", response("a.example", "A", "a.example. 60 A 10.1.2.3"))
    assert rows(read(ready(gate, query("a.example"))))
    gate.adopt(NameView(rules("a.example")))
    step = gate.ask(query("a.example"), udp=True)
    assert isinstance(step, Lookup)
    assert step.known is None


def test_while_locked_nothing_is_answered() -> None:
    gate = DnsCore(FakeClock())
    got = read(ready(gate, query("a.example")))
    assert got.rcode() == dns.rcode.SERVFAIL
    assert ede(got) == (14, "no policy has been applied yet")


@pytest.mark.requirement("F7")
def test_a_policy_that_is_off_forwards_everything() -> None:
    gate = core(enabled=False)
    data = query("anything.example", "TXT", ident=5)
    step = gate.ask(data, udp=True)
    assert isinstance(step, Relay)
    upstream = answer(query("anything.example", "TXT", ident=99), 'anything.example. 60 TXT "hello"')
    got = read(gate.relayed(step, upstream))
    assert (got.id, rows(got)) == (5, ['anything.example. 60 IN TXT "hello"'])


def test_a_failure_is_closed_and_says_why() -> None:
    gate = core("a.example")
    step = gate.ask(query("a.example"), udp=True)
    assert isinstance(step, Lookup)
    got = read(gate.failure(step, 22, "192.0.2.53:53: no answer"))
    assert got.rcode() == dns.rcode.SERVFAIL
    assert ede(got) == (22, "192.0.2.53:53: no answer")
    assert gate.counters.failed == 1


def test_a_big_answer_over_udp_is_cut_and_whole_over_tcp() -> None:
    gate = core("a.example")
    addresses = " ".join(f"192.0.2.{n}" for n in range(1, 61))
    _due, reply = resolve(gate, "a.example", response("a.example", "A", f"a.example. 60 A {addresses}"), edns=None)
    assert read(reply).flags & 0x0200
    assert len(rows(read(ready(gate, query("a.example", edns=None), udp=False)))) == 60


def test_one_answer_cannot_fill_the_kernel() -> None:
    addresses = " ".join(f"192.0.2.{n}" for n in range(1, 255))
    due, reply = resolve(core("a.example"), "a.example", response("a.example", "A", f"a.example. 60 A {addresses}"))
    assert len(due) == 64
    assert len(rows(read(reply))) in (0, 64)


def test_an_answer_fetched_beforehand_is_ready_at_once() -> None:
    gate = core("www.example")
    assert gate.view is not None
    allowed = gate.view.by_text("www.example")
    assert allowed is not None
    found = gate.prime(allowed, 1, [A1, ip_address("10.0.0.1")], ["cdn.example"], 120)
    gate.acknowledge(gate.due_for(allowed, found))
    assert rows(read(ready(gate, query("www.example")))) == [
        "www.example. 120 IN CNAME cdn.example.",
        "cdn.example. 120 IN A 192.0.2.1",
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_answered_or_ignored(data: bytes, udp: bool) -> None:
    step = core("a.example").ask(data, udp=udp)
    assert isinstance(step, Ready | Lookup)
    if isinstance(step, Ready) and step.wire is not None:
        assert step.wire[:2] == data[:2]
        assert step.wire[2] & 0x80


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_denied_name_is_never_answered_however_it_is_damaged(data: st.DataObject) -> None:
    """Only a question that reads as the allowed name is looked up; no reply without a lookup holds an address."""
    gate = core("a.example")
    message = bytearray(query(data.draw(st.sampled_from(["a.example", "b.example", "a.a.example", "A.EXAMPLE"]))))
    for _ in range(data.draw(st.integers(0, 3))):
        message[data.draw(st.integers(2, len(message) - 1))] = data.draw(st.integers(0, 255))
    step = gate.ask(bytes(message), udp=True)
    if isinstance(step, Lookup):
        assert step.query.name == b"\1a\7example\0"
        assert bytes(message[12:23]).lower() == b"\1a\7example\0"
    else:
        assert isinstance(step, Ready)
        assert step.wire is None or int.from_bytes(step.wire[6:8]) == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_upstream_answer_is_digested(data: st.DataObject) -> None:
    """Whatever well-formed records come back: only the chain's addresses count, and none that is not public."""
    names = ["a.example.", "b.example.", "c.example."]
    texts: list[str] = []
    for owner in data.draw(st.lists(st.sampled_from(names), max_size=6)):
        if data.draw(st.booleans()):
            texts.append(f"{owner} {data.draw(st.integers(0, 9000))} CNAME {data.draw(st.sampled_from(names))}")
        else:
            texts.append(f"{owner} {data.draw(st.integers(0, 9000))} A {data.draw(st.ip_addresses(v=4))}")
    gate = core("a.example")
    due, reply = resolve(gate, "a.example", response("a.example", "A", *texts))
    view = gate.view
    assert view is not None
    assert all(view.refuses(entry.address, entry.services) is None for entry in due)
    addresses = {line.split()[-1] for line in rows(read(reply)) if " A " in line}
    assert addresses == {str(entry.address) for entry in due}


def test_denied_names_are_remembered_up_to_a_limit() -> None:
    gate = core("a.example")
    for name in ("one.example", "two.example", "one.example", *(f"made-up-{n}.example" for n in range(2000))):
        ready(gate, query(name))
    assert list(gate.denied.items())[:2] == [("one.example", 2), ("two.example", 1)]
    assert len(gate.denied) == 1024
    assert gate.counters.denied == 2003


@pytest.mark.parametrize("alias", ["a\\032b.example", "\\001" * 40 + ".example"])
def test_an_alias_with_unusual_bytes_is_learned_and_not_kept(alias: str) -> None:
    """As text it has escapes, and may be longer than a name can be."""
    gate = core("www.example")
    assert gate.view is not None
    allowed = gate.view.by_text("www.example")
    assert allowed is not None
    found = gate.prime(allowed, 1, [A1], [alias], 120)
    assert [entry.address for entry in gate.due_for(allowed, found)] == [A1]
    assert isinstance(gate.ask(query("www.example"), udp=True), Lookup)


def test_what_the_kernel_holds_from_before_is_not_shortened() -> None:
    """A gate that starts again finds elements, not the names they are of; these are known when they are asked for."""
    clock = FakeClock()
    gate = core("a.example:443", clock=clock)
    gate.table.found([(A1, 6, 443, 443, 3000.0)], clock.at)
    assert (gate.table.names(clock.at), gate.table.addresses(clock.at)) == (set(), 0)
    due, _reply = resolve(gate, "a.example", response("a.example", "A", "a.example. 60 A 192.0.2.1"))
    assert due == []
    assert (gate.table.names(clock.at), gate.table.addresses(clock.at)) == ({"a.example"}, 1)
    clock.at += 3001
    assert (gate.table.names(clock.at), gate.table.addresses(clock.at)) == (set(), 0)
