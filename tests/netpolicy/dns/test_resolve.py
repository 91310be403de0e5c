"""Names to addresses in parallel: what is found, what is not and why, and never later than the deadline."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from upstream import Client, FakeUpstream

from netpolicy.dns.upstreams import Upstreams
from netpolicy.resolve import Resolved, resolve

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("F8")]


def behind(upstream: FakeUpstream) -> Upstreams:
    return Upstreams(lambda: [upstream.server], patience=(30.0,))


async def test_addresses_come_with_ttl_aliases_and_server(upstream: FakeUpstream) -> None:
    chain = ["www.example. 40 CNAME CDN.example.", "cdn.example. 300 CNAME edge.example."]
    upstream.set("www.example", "A", *chain, "edge.example. 60 A 192.0.2.1")
    upstream.set("www.example", "AAAA", *chain, "edge.example. 60 AAAA 2001:db8::1")
    got = await resolve(["www.example"], behind(upstream))
    shared = {
        "name": "www.example",
        "aliases": ("cdn.example", "edge.example"),
        "ttl": 40,
        "server": str(upstream.server),
    }
    assert got.answers == (
        Resolved(type=1, addresses=(ip_address("192.0.2.1"),), **shared),
        Resolved(type=28, addresses=(ip_address("2001:db8::1"),), **shared),
    )
    assert got.unresolved == {}


async def test_what_does_not_resolve_is_listed_with_the_reason(upstream: FakeUpstream) -> None:
    upstream.set("good.example", "A", "good.example. 60 A 192.0.2.1")
    upstream.set("empty.example", "TXT", 'empty.example. 60 TXT "no address"')
    upstream.set("loop.example", "A", "loop.example. 60 CNAME loop.example.")
    upstream.set("loop.example", "AAAA", "loop.example. 60 CNAME loop.example.")
    names = ["good.example", "gone.example", "empty.example", "loop.example", "bad..name", "good.example"]
    got = await resolve(names, behind(upstream))
    assert {answer.name for answer in got.answers} == {"good.example"}
    assert got.unresolved.keys() == {"gone.example", "empty.example", "loop.example", "bad..name"}
    assert got.unresolved["gone.example"] == "no such name"
    assert got.unresolved["empty.example"] == "it has no address"
    assert "empty label" in got.unresolved["bad..name"]


async def test_the_deadline_holds_for_all_names_together(upstream: FakeUpstream) -> None:
    upstream.set("quick.example", "A", "quick.example. 60 A 192.0.2.1")

    def behave(data: bytes, client: Client) -> None:
        if b"quick" in data:
            client.send(upstream.answer(data))

    upstream.behaviour = behave
    slow = [f"slow{n}.example" for n in range(200)]
    async with asyncio.timeout(3):
        got = await resolve(["quick.example", *slow], Upstreams(lambda: [upstream.server]), seconds=0.4)
    assert [answer.name for answer in got.answers] == ["quick.example"]
    assert got.unresolved.keys() == set(slow)
    assert set(got.unresolved.values()) <= {"no answer within 0.4 s", f"{upstream.server}: no answer"}


async def test_many_names_are_asked_in_parallel(upstream: FakeUpstream) -> None:
    names = [f"n{n}.example" for n in range(150)]
    for name in names:
        upstream.set(name, "A", f"{name}. 60 A 192.0.2.1")
    got = await resolve(names, behind(upstream), seconds=30)
    assert len(got.answers) == 150
    assert len(upstream.asked) == 300


async def test_no_names_ask_nobody() -> None:
    assert (await resolve([], Upstreams(lambda: ()))).answers == ()
