"""Wildcards, denials, observing, no IPv6 and ends, from the policy to the packet. Verdicts are taken at the internet."""

from __future__ import annotations

import socket
import time

import pytest
from gatekit import compiled, dig, rules, until
from gateworld import World

from netpolicy.flow import Flow

pytestmark = [pytest.mark.kernel]


@pytest.mark.requirement("F6")
def test_names_below_a_wildcard_open_what_they_resolve_to(world: World) -> None:
    below, deep, apex = (world.lab.site(name) for name in ("a.wild.example", "c.b.wild.example", "wild.example"))
    state = world.put(compiled(allow=["*.wild.example:443"]))
    assert (state.learned, state.unresolved) == (0, ()), "nothing is resolved before it is asked for"
    for site in (below, deep):
        assert not world.reaches(site.v4)
        assert dig(world.box, site.name, server=world.gateway(0)).answers == (site.v4,)
        assert world.reaches(site.v4)
        assert not world.reaches(site.v4, 80)
    assert dig(world.box, apex.name, server=world.gateway(0)).status == "NXDOMAIN"
    assert apex.name not in {query.name for query in world.lab.dns.queries(apex.name)}
    world.put(compiled(allow=["*.wild.example:443"], deny=[deep.name]))
    assert not world.reaches(deep.v4)
    assert world.reaches(below.v4)


@pytest.mark.requirement("F6")
def test_labels_below_a_wildcard_carry_little_out(world: World) -> None:
    """A tunnel's questions: of 400 made-up names at most the budget reaches the resolver."""
    known = world.lab.site("known.wild.example")
    world.put(compiled(allow=["*.wild.example:443"]))
    assert dig(world.box, known.name, server=world.gateway(0)).answers == (known.v4,)
    names = [f"x{n}.wild.example" for n in range(400)]
    begin = time.monotonic()
    replies = world.box.call(_ask_all, world.gateway(0), names)
    allowed = 99 + (time.monotonic() - begin) / 2 + 1
    assert replies == 400
    left = sum(bool(world.lab.dns.queries(name)) for name in names)
    assert 90 <= left <= allowed, "the positive control, and the limit"
    late = dig(world.box, "late.wild.example", server=world.gateway(0))
    assert (late.status, late.ede[:35]) == ("REFUSED", "15 (Blocked): (too many new names b")
    assert dig(world.box, f"{'x' * 62}.y.wild.example", server=world.gateway(0)).status == "NXDOMAIN"
    assert dig(world.box, known.name, "AAAA", server=world.gateway(0)).answers == (known.v6,)
    assert world.state().dns.limited >= 300


def _ask_all(server: str, names: list[str]) -> int:
    """In the workload's namespace: all questions, a few at a time; how many were answered."""
    got = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((server, 53))
        for name in names:
            labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
            asking.send(b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1")
            got += len(asking.recv(4096)) > 12
    return got


def test_addresses_that_are_denied_are_neither_answered_nor_open(world: World) -> None:
    good, bad = world.lab.site("good.example"), world.lab.site("bad.example")
    world.put(compiled(domains=["good.example:443", "bad.example:443"], deny=[bad.v4, bad.v6]))
    assert dig(world.box, good.name, server=world.gateway(0)).answers == (good.v4,)
    reply = dig(world.box, bad.name, server=world.gateway(0))
    assert (reply.answers, f"taken out of the answer: {bad.v4} is denied" in reply.ede) == ((), True)
    assert world.reaches(good.v4)
    assert not world.reaches(bad.v4)
    assert not world.reaches(bad.v6)
    assert any("stay closed: bad.example" in warning for warning in world.state().warnings)


def test_observed_all_passes_and_what_would_be_refused_is_listed(either: World) -> None:
    world = either
    good, bad = world.lab.site(), world.lab.site()
    world.lab.dns.zone.change(bad.name, others=(("TXT", '"hello"'),))
    state = world.put(compiled(domains=[good.name], mode="observe"))
    assert state.phase == "observed"
    assert dig(world.box, bad.name, "TXT", server=world.gateway(0)).answers == ('"hello"',)
    assert dig(world.box, bad.name, server=world.gateway(1)).answers == (bad.v4,)
    assert world.reaches(bad.v4)
    assert world.reaches(good.v4)
    shown = world.client.show(world.attachment.id)
    assert (shown.observed, shown.denied) == ({bad.name: 2}, {})
    assert [(str(r.address), r.protocol, r.port) for r in shown.refusals] == [(bad.v4, 6, 443)]
    assert (shown.state.dns.observed, shown.state.dns.denied) == (2, 0)
    world.put(compiled(domains=[good.name]))
    assert not world.reaches(bad.v4)


def test_without_ipv6_nothing_leaves_by_it(world: World) -> None:
    site = world.lab.site()
    world.put(compiled(domains=[site.name], ipv6=False))
    assert dig(world.box, site.name, "AAAA", server=world.gateway(0)).answers == ()
    assert world.reaches(site.v4)
    assert not world.reaches(site.v6)
    assert not any(query.kind == "AAAA" for query in world.lab.dns.queries(site.name))
    world.put(compiled(domains=[site.name]))
    assert world.reaches(site.v6)


def test_at_its_end_a_rule_closes_and_its_connections_are_cut(either: World) -> None:
    world = either
    short, lasting = world.lab.site(), world.lab.site()
    ends = time.time() + 2.5
    world.put(until(rules(short.name, lasting.name), ends, short.name))
    with (
        world.box.socket(socket.AF_INET, socket.SOCK_STREAM) as dying,
        world.box.socket(socket.AF_INET, socket.SOCK_STREAM) as living,
    ):
        for own, site in ((dying, short), (living, lasting)):
            own.settimeout(5)
            own.connect((site.v4, 443))
            own.sendall(b"hello")
            assert own.recv(4096)
        assert abs((world.state().ends_at or 0) - ends) < 1e-3
        [entry] = [e for e in world.client.show(world.attachment.id).learned if str(e.address) == short.v4]
        assert entry.seconds <= 2.5
        state = world.until(lambda state: state.ends_at is None)
        assert time.time() < ends + 1.5
        assert state.names == 1
        assert not world.reaches(short.v4)
        assert world.reaches(lasting.v4)
        assert dig(world.box, short.name, server=world.gateway(0)).status == "NXDOMAIN"
        living.sendall(b"still here")
        assert living.recv(4096)
        with pytest.raises(OSError):
            dying.sendall(b"still here")
            assert not dying.recv(4096)
            raise ConnectionResetError
    flow = Flow(6, 443, name=short.name)
    assert not world.client.check(world.attachment.id, flow).allowed
    world.daemon.kill()
    world.restart()
    assert not world.reaches(short.v4)
    assert world.reaches(lasting.v4)
