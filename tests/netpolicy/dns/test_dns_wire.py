"""Reading and writing messages, with dnspython as the second reader, and any bytes at all."""

from __future__ import annotations

import contextlib
import itertools
import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from dnskit import answer, ede, query, read, response, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.dns import wire
from netpolicy.dns.reading import read_query, read_response
from netpolicy.dns.wire import ExtendedError, Record, WireError, name_to_text, name_to_wire
from netpolicy.dns.writing import truncate, write_error, write_query, write_reply

LABEL = st.binary(min_size=1, max_size=12)
NAME = st.lists(LABEL, max_size=6).map(lambda labels: dns.name.Name([*labels, b""]))


def test_a_query_is_read_as_dnspython_wrote_it() -> None:
    got = read_query(query("Api.GitHub.com", "AAAA", ident=4711, edns=4096))
    assert got is not None
    assert (got.id, got.type, got.payload) == (4711, 28, 4096)
    assert got.name == b"\3api\6github\3com\0"
    assert got.question.startswith(b"\3Api\6GitHub\3com\0")


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        pytest.param(query("a.example")[:11] + b"", None, id="no header"),
        pytest.param(answer(query("a.example")), None, id="a response"),
        pytest.param(query("a.example", edns=None)[:-1], wire.FORMERR, id="cut short"),
        pytest.param(
            query("a.example", edns=None)[:4] + b"\0\2" + query("a.example")[6:], wire.FORMERR, id="two questions"
        ),
        pytest.param(query("a.example")[:4] + b"\0\0" + query("a.example")[6:], wire.FORMERR, id="no question"),
        pytest.param(b"\0\7\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", wire.FORMERR, id="compressed question"),
        pytest.param(b"\0\7\x01\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\3", wire.REFUSED, id="class CH"),
        pytest.param(b"\0\7\x29\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", wire.NOTIMP, id="opcode update"),
        pytest.param(
            query("a.example", edns=None)[:10] + b"\0\1" + query("a.example", edns=None)[12:],
            wire.FORMERR,
            id="promised record",
        ),
        pytest.param(query("a.example")[:-5] + b"\x01" + query("a.example")[-4:], wire.BADVERS, id="EDNS 1"),
    ],
)
def test_what_is_no_proper_query(data: bytes, rcode: int | None) -> None:
    if rcode is None:
        assert read_query(data) is None
        return
    with pytest.raises(WireError) as caught:
        read_query(data)
    assert caught.value.rcode == rcode
    reply = read(write_error(data, rcode))
    assert reply.rcode() == rcode
    assert reply.flags & dns.flags.QR


def test_a_name_longer_than_255_bytes_is_malformed() -> None:
    long = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0"
    with pytest.raises(WireError):
        read_query(query("a", edns=None)[:12] + long + b"\0\1\0\1")
    with pytest.raises(WireError):
        name_to_wire(".".join(["a" * 63] * 4))


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "ü.example", ".a"])
def test_names_that_no_question_can_carry(name: str) -> None:
    with pytest.raises(WireError):
        name_to_wire(name)


def test_a_dot_inside_a_label_is_no_separator() -> None:
    query_ = read_query(query("a", edns=None)[:12] + b"\x0bapi.example\0\0\1\0\1")
    assert query_ is not None
    assert query_.name != name_to_wire("api.example")
    assert name_to_text(query_.name) == "api\\046example"


def test_a_response_is_followed_through_compression() -> None:
    got = response(
        "www.example.org",
        "A",
        "www.example.org. 300 CNAME cdn.example.net.",
        "cdn.example.net. 60 A 192.0.2.1 192.0.2.2",
    )
    assert [(r.type, r.ttl) for r in got.answers] == [(5, 300), (1, 60), (1, 60)]
    assert got.answers[0].data == name_to_wire("cdn.example.net")
    assert got.answers[1].name == name_to_wire("cdn.example.net")


def test_a_response_of_another_class_is_none_of_ours() -> None:
    with pytest.raises(WireError, match="another class"):
        read_response(b"\0\7\x81\x80\0\1\0\0\0\0\0\0\1a\0\0\1\0\3")


def test_a_pointer_loop_ends() -> None:
    head = b"\0\7\x81\x80\0\1\0\1\0\0\0\0\1a\0\0\1\0\1"
    for pointer in (b"\xc0" + bytes([len(head)]), b"\xc0\xff", b"\xff\xff"):
        with pytest.raises(WireError):
            read_response(head + pointer + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4")


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_reading_any_bytes_raises_nothing_else(data: bytes) -> None:
    for reader in (read_query, read_response):
        with contextlib.suppress(WireError):
            reader(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reading_damaged_messages_raises_nothing_else(data: st.DataObject) -> None:
    good = answer(
        query("www.example.org"), "www.example.org. 300 CNAME b.example.", "b.example. 60 A 192.0.2.1 192.0.2.2"
    )
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(0, len(broken)))]
    for message in (bytes(broken), bytes(broken[:2]) + b"\1\0" + bytes(broken[4:])):
        for reader in (read_query, read_response):
            with contextlib.suppress(WireError):
                reader(message)


@settings(max_examples=200, deadline=None)
@given(NAME, st.sampled_from(["A", "AAAA", "TXT", "HTTPS"]))
def test_questions_are_read_alike_by_dnspython(name: dns.name.Name, kind: str) -> None:
    got = read_query(dns.message.make_query(name, kind, use_edns=True).to_wire())
    assert got is not None
    assert got.name == name.canonicalize().to_wire()
    assert got.type == dns.rdatatype.from_text(kind)
    again = dns.message.from_wire(write_query(9, got.name, got.type))
    assert again.question[0].name == name


@settings(max_examples=200, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=5), st.integers(0, 2**31 - 1), st.integers(1, 5))
def test_replies_are_read_alike_by_dnspython(names: list[dns.name.Name], ttl: int, addresses: int) -> None:
    wires = [name.canonicalize().to_wire() for name in names]
    asked = read_query(dns.message.make_query(names[0], "A", use_edns=True).to_wire())
    assert asked is not None
    records = [Record(a, wire.CNAME, ttl, b) for a, b in itertools.pairwise(wires)]
    records += [Record(wires[-1], wire.A, ttl, bytes([192, 0, 2, n])) for n in range(addresses)]
    reply = write_reply(asked, wire.NOERROR, answers=records)
    # RFC 1035 lets a message have a set of records only once, so equal ones are compared as sets.
    got = {(r.name.canonicalize().to_wire(), r.rdtype) for r in read(reply).answer}
    assert got == {(r.name, r.type) for r in records}
    assert read_response(reply).answers == tuple(records)


def test_a_denial_carries_an_soa_and_its_reason() -> None:
    asked = read_query(query("evil.example"))
    assert asked is not None
    error = ExtendedError(15, "evil.example is not allowed")
    got = read(write_reply(asked, wire.NXDOMAIN, negative_ttl=5, error=error))
    assert got.rcode() == dns.rcode.NXDOMAIN
    [soa] = got.authority
    assert (str(soa.name), soa.ttl, soa[0].minimum) == ("example.", 5, 5)
    assert ede(got) == (15, "evil.example is not allowed")


def test_a_client_without_edns_gets_none() -> None:
    asked = read_query(query("evil.example", edns=None))
    assert asked is not None
    got = read(write_reply(asked, wire.NXDOMAIN, negative_ttl=5, error=ExtendedError(15, "no")))
    assert got.edns == -1


def test_what_does_not_fit_is_cut_and_marked() -> None:
    asked = read_query(query("a.example", edns=None))
    assert asked is not None
    records = [Record(asked.name, wire.A, 60, bytes([192, 0, 2, n])) for n in range(100)]
    whole = write_reply(asked, wire.NOERROR, answers=records)
    for short in (write_reply(asked, wire.NOERROR, answers=records, limit=512), truncate(whole, 512)):
        got = read(short)
        assert got.flags & dns.flags.TC
        assert rows(got) == []
        assert len(short) <= 512
    assert truncate(whole, len(whole)) == whole


def test_the_reason_is_left_out_before_the_answer_is() -> None:
    asked = read_query(query("a.example", edns=512))
    assert asked is not None
    records = [Record(asked.name, wire.A, 60, bytes([192, 0, 2, n])) for n in range(28)]
    got = read(write_reply(asked, wire.NOERROR, answers=records, error=ExtendedError(15, "x" * 200), limit=512))
    assert len(got.answer[0]) == 28
    assert ede(got) is None


def test_a_long_reason_stays_text() -> None:
    asked = read_query(query("a.example"))
    assert asked is not None
    got = ede(read(write_reply(asked, wire.NXDOMAIN, error=ExtendedError(15, "ü" * 500))))
    assert got is not None
    assert set(got[1]) == {"ü"}
    assert len(got[1].encode()) <= 240


def test_other_additional_records_and_other_types_are_passed_over() -> None:
    padded = bytearray(query("a.example"))
    padded[11] += 1
    got = read_query(bytes(padded) + b"\0" + wire.RECORD.pack(wire.A, wire.IN, 0, 4) + bytes(4))
    assert got is not None
    assert got.payload == 1232
    opt = b"\0" + wire.RECORD.pack(wire.OPT, 1232, 0, 0)
    with pytest.raises(WireError, match="more than one OPT record"):
        read_query(bytes(padded) + opt)
    records = ('a.example. 60 TXT "hello"', "a.example. 60 A 192.0.2.1")
    found = response("a.example", "A", *records, authority="example. 60 NS ns.example.")
    assert [record.data for record in found.answers] == [b"\xc0\0\2\1"]


def test_an_alias_whose_name_and_length_disagree_is_malformed() -> None:
    good = answer(query("a.example"), "a.example. 60 CNAME b.example.")
    at = good.index(struct.pack("!HHI", wire.CNAME, wire.IN, 60))
    size = int.from_bytes(good[at + 8 : at + 10])
    bad = good[: at + 8] + (size + 1).to_bytes(2) + good[at + 10 : at + 10 + size] + b"\0" + good[at + 10 + size :]
    with pytest.raises(WireError, match="name and length disagree"):
        read_response(bad)


def test_owners_that_were_not_written_before_are_written_out_however_far_it_goes() -> None:
    """A pointer reaches 16,383 bytes; further owners are repeated."""
    asked = read_query(query("a.example"))
    assert asked is not None
    records = []
    for n in range(420):
        owner = name_to_wire(f"owner-{n}-{'x' * 40}.example")
        records += [Record(owner, wire.A, 60, bytes(4)), Record(owner, wire.A, 60, bytes(4))]
    target = name_to_wire("target.example")
    records += [Record(asked.name, wire.CNAME, 60, target), Record(target, wire.A, 60, bytes(4))]
    reply = write_reply(asked, wire.NOERROR, answers=records)
    assert len(reply) > 0x4000 + 2000
    got = read_response(reply)
    assert [(record.name, record.data) for record in got.answers] == [(record.name, record.data) for record in records]
