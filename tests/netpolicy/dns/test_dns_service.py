"""Asking, telling the kernel, replying: in this order, whatever else happens at the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import dns.rcode
import pytest
from dnskit import core, ede, query, read, rows, rules
from upstream import Client, FakeUpstream

from netpolicy.dns.service import DnsService
from netpolicy.dns.upstreams import Upstreams
from netpolicy.dns.view import NameView
from netpolicy.errors import UserError
from netpolicy.ruleset import Learned

pytestmark = pytest.mark.anyio


class Kernel:
    """Takes what it is told, once it is let."""

    def __init__(self) -> None:
        self.told: list[Learned] = []
        self.asked = asyncio.Event()
        self.may = asyncio.Event()
        self.may.set()
        self.refuses = False

    async def learn(self, entries: Sequence[Learned]) -> None:
        self.asked.set()
        await self.may.wait()
        if self.refuses:
            raise UserError("kernel-refused", "the set is full")
        self.told += entries

    @property
    def addresses(self) -> list[str]:
        return [str(entry.address) for entry in self.told]


def service(
    upstream: FakeUpstream, kernel: Kernel, *domains: str, patience: float = 30.0, **more: object
) -> DnsService:
    ups = Upstreams(lambda: [upstream.server], patience=(patience,))
    return DnsService(core(*domains, **more), ups, kernel.learn)


async def test_no_reply_before_the_kernel_has_acknowledged(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    kernel.may.clear()
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    reply = asyncio.create_task(service(upstream, kernel, "a.example").answer(query("a.example"), udp=True))
    async with asyncio.timeout(5):
        await kernel.asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reply.done()
        kernel.may.set()
        assert rows(read(await reply)) == ["a.example. 60 IN A 192.0.2.1"]
    assert kernel.addresses == ["192.0.2.1"]


async def test_what_the_kernel_refuses_is_not_answered(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    kernel.refuses = True
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    gate = service(upstream, kernel, "a.example")
    for _ in range(2):
        got = read(await gate.answer(query("a.example"), udp=True))
        assert got.rcode() == dns.rcode.SERVFAIL
        assert "the set is full" in (ede(got) or (0, ""))[1]
    kernel.refuses = False
    assert rows(read(await gate.answer(query("a.example"), udp=True)))


async def test_a_denied_name_is_never_asked_for(upstream: FakeUpstream) -> None:
    gate = service(upstream, Kernel(), "a.example")
    for name in ("b.example", "x.a.example", "a.example.b.example"):
        assert read(await gate.answer(query(name), udp=True)).rcode() == dns.rcode.NXDOMAIN
    for kind in ("TXT", "HTTPS", "ANY"):
        await gate.answer(query("a.example", kind), udp=True)
    assert upstream.asked == []


async def test_equal_questions_share_one_to_the_upstream(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    gate = service(upstream, kernel, "a.example")
    replies = await asyncio.gather(*(gate.answer(query("a.example", ident=n), udp=True) for n in range(50)))
    assert [read(reply).id for reply in replies] == list(range(50))
    assert upstream.asked == [("a.example", "A")]
    assert kernel.addresses == ["192.0.2.1"]


async def test_a_known_answer_asks_nobody(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    gate = service(upstream, kernel, "a.example")
    for _ in range(5):
        assert rows(read(await gate.answer(query("a.example"), udp=True)))
    assert (len(upstream.asked), len(kernel.told)) == (1, 1)


async def test_no_upstream_is_servfail_with_the_reason(upstream: FakeUpstream) -> None:
    upstream.behaviour = lambda _data, _client: None
    got = read(await service(upstream, Kernel(), "a.example", patience=0.3).answer(query("a.example"), udp=True))
    assert got.rcode() == dns.rcode.SERVFAIL
    assert ede(got) == (22, f"{upstream.server}: no answer")
    await upstream.die()
    got = read(await service(upstream, Kernel(), "a.example", patience=0.3).answer(query("a.example"), udp=True))
    assert ede(got) == (23, f"{upstream.server}: Connection refused")


async def test_a_name_withdrawn_while_it_is_looked_up_opens_nothing(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    asked: list[tuple[bytes, Client]] = []
    upstream.behaviour = lambda data, client: asked.append((data, client))
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    gate = service(upstream, kernel, "a.example")
    reply = asyncio.create_task(gate.answer(query("a.example"), udp=True))
    async with asyncio.timeout(5):
        await upstream.arrived.wait()
        async with gate.hold():
            gate.core.adopt(NameView(rules("b.example")))
        data, client = asked[0]
        client.send(upstream.answer(data))
        got = read(await reply)
    assert got.rcode() == dns.rcode.NXDOMAIN
    assert kernel.told == []


async def test_a_name_kept_while_it_is_looked_up_is_asked_again_under_its_new_rule(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    asked: list[tuple[bytes, Client]] = []
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")

    def behave(data: bytes, client: Client) -> None:
        asked.append((data, client))
        if len(asked) > 1:
            client.send(upstream.answer(data))

    upstream.behaviour = behave
    gate = service(upstream, kernel, "a.example")
    reply = asyncio.create_task(gate.answer(query("a.example"), udp=True))
    async with asyncio.timeout(5):
        await upstream.arrived.wait()
        async with gate.hold():
            gate.core.adopt(NameView(rules("a.example:8443")))
        asked[0][1].send(upstream.answer(asked[0][0]))
        assert rows(read(await reply))
    assert [[s.first for s in entry.services] for entry in kernel.told] == [[8443]]


async def test_while_the_ruleset_changes_nothing_is_learned(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    gate = service(upstream, kernel, "a.example")
    async with asyncio.timeout(5):
        async with gate.hold():
            reply = asyncio.create_task(gate.answer(query("a.example"), udp=True))
            await upstream.arrived.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert kernel.told == []
        assert rows(read(await reply))


async def test_a_policy_that_is_off_forwards_any_type_and_learns_nothing(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    upstream.set("t.example", "TXT", 't.example. 60 TXT "hello"')
    upstream.set("t.example", "A", "t.example. 60 A 10.0.0.1")
    gate = service(upstream, kernel, enabled=False)
    assert rows(read(await gate.answer(query("t.example", "TXT"), udp=True))) == ['t.example. 60 IN TXT "hello"']
    assert rows(read(await gate.answer(query("t.example"), udp=True))) == ["t.example. 60 IN A 10.0.0.1"]
    assert read(await gate.answer(query("gone.example"), udp=True)).rcode() == dns.rcode.NXDOMAIN
    assert kernel.told == []


async def test_too_many_waiting_questions_are_left_unanswered(upstream: FakeUpstream) -> None:
    upstream.behaviour = lambda _data, _client: None
    gate = service(upstream, Kernel(), "a.example", patience=1.0)
    replies = await asyncio.gather(*(gate.answer(query("a.example", ident=n), udp=True) for n in range(1100)))
    assert replies.count(None) == 1100 - 1024
    assert len(upstream.asked) == 1


async def test_both_families_are_learned(upstream: FakeUpstream) -> None:
    kernel = Kernel()
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    upstream.set("a.example", "AAAA", "a.example. 60 AAAA 2001:db8::1")
    gate = service(upstream, kernel, "a.example")
    for kind in ("A", "AAAA"):
        assert rows(read(await gate.answer(query("a.example", kind), udp=True)))
    assert [entry.address for entry in kernel.told] == [ip_address("192.0.2.1"), ip_address("2001:db8::1")]
