"""Asking upstream resolvers: what counts as an answer, and what happens where there is none."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from dnskit import answer, query
from upstream import Client, FakeUpstream

from netpolicy.dns import wire
from netpolicy.dns.servers import ResolvConf, Server
from netpolicy.dns.upstreams import UpstreamError, Upstreams
from netpolicy.dns.wire import name_to_wire
from netpolicy.errors import UserError

pytestmark = pytest.mark.anyio
NAME = name_to_wire("a.example")


def behind(*ups: FakeUpstream, patience: tuple[float, ...] = (1.0,)) -> Upstreams:
    return Upstreams(lambda: [up.server for up in ups], patience=patience)


async def test_an_answer_and_where_it_is_from(upstream: FakeUpstream) -> None:
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    got = await behind(upstream).ask(NAME, wire.A)
    assert [record.data for record in got.response.answers] == [bytes([192, 0, 2, 1])]
    assert got.server == upstream.server


async def test_nothing_but_name_and_type_leaves(upstream: FakeUpstream) -> None:
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    await behind(upstream).ask(NAME, wire.A)
    assert upstream.queries[0][2:] == query("a.example")[2:]


async def test_each_question_has_its_own_port_and_identifier(upstream: FakeUpstream) -> None:
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    ups = behind(upstream)
    for _ in range(40):
        await ups.ask(NAME, wire.A)
    assert len({port for _host, port in upstream.clients}) > 30
    assert len({data[:2] for data in upstream.queries}) > 35


async def test_forged_answers_are_passed_over(upstream: FakeUpstream, second: FakeUpstream) -> None:
    """Another identifier, another question, another sender, garbage, the query itself: and then the answer."""
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    forged = "a.example. 60 A 203.0.113.66"

    def behave(data: bytes, client: Client) -> None:
        liar = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with liar:
            liar.sendto(answer(data, forged), client.address)
        client.send(bytes([data[0] ^ 1, data[1]]) + answer(data, forged)[2:])
        client.send(data[:2] + answer(query("b.example"), "b.example. 60 A 203.0.113.66")[2:])
        client.send(data[:2] + answer(query("a.example", "AAAA"), "a.example. 60 AAAA 2001:db8::66")[2:])
        client.send(b"")
        client.send(b"\xff" * 40)
        client.send(data)
        client.send(upstream.answer(data))

    upstream.behaviour = behave
    got = await behind(upstream, patience=(30.0,)).ask(NAME, wire.A)
    assert [record.data for record in got.response.answers] == [bytes([192, 0, 2, 1])]


async def test_a_cut_answer_is_fetched_over_tcp(upstream: FakeUpstream) -> None:
    upstream.set("a.example", "A", "a.example. 60 A " + " ".join(f"192.0.2.{n}" for n in range(1, 120)))
    upstream.behaviour = lambda data, client: client.send(data[:2] + b"\x83\x80\0\1\0\0\0\0\0\0" + data[12:27])
    got = await behind(upstream).ask(NAME, wire.A)
    assert len(got.response.answers) == 119
    assert upstream.clients[-1] == "tcp"


async def test_a_server_without_edns_is_asked_without(upstream: FakeUpstream) -> None:
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")

    def behave(data: bytes, client: Client) -> None:
        client.send(answer(data, rcode=1) if data[11] else upstream.answer(data))

    upstream.behaviour = behave
    got = await behind(upstream).ask(NAME, wire.A)
    assert got.response.rcode == 0
    assert [data[11] for data in upstream.queries] == [1, 0]


async def test_a_silent_server_is_followed_by_the_next_and_then_asked_last(
    upstream: FakeUpstream, second: FakeUpstream
) -> None:
    second.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    upstream.behaviour = lambda _data, _client: None
    ups = behind(upstream, second)
    assert (await ups.ask(NAME, wire.A)).server == second.server
    assert (await ups.ask(NAME, wire.A)).server == second.server
    assert (len(upstream.asked), len(second.asked)) == (1, 2)


async def test_a_dead_server_is_followed_by_the_next_at_once(upstream: FakeUpstream, second: FakeUpstream) -> None:
    second.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    await upstream.die()
    async with asyncio.timeout(4.0):
        got = await behind(upstream, second, patience=(30.0,)).ask(NAME, wire.A)
    assert got.server == second.server


@pytest.mark.parametrize("rcode", [2, 5])
async def test_a_server_that_fails_is_followed_by_the_next(
    upstream: FakeUpstream, second: FakeUpstream, rcode: int
) -> None:
    second.set("a.example", "A", "a.example. 60 A 192.0.2.1")
    upstream.behaviour = lambda data, client: client.send(answer(data, rcode=rcode))
    assert (await behind(upstream, second).ask(NAME, wire.A)).server == second.server


async def test_a_lost_datagram_is_sent_again(upstream: FakeUpstream) -> None:
    upstream.set("a.example", "A", "a.example. 60 A 192.0.2.1")

    def behave(data: bytes, client: Client) -> None:
        if len(upstream.asked) > 1:
            client.send(upstream.answer(data))

    upstream.behaviour = behave
    assert (await behind(upstream, patience=(0.2, 30.0)).ask(NAME, wire.A)).response.rcode == 0


async def test_where_all_fail_it_says_what_each_did(upstream: FakeUpstream, second: FakeUpstream) -> None:
    upstream.behaviour = lambda _data, _client: None
    second.behaviour = lambda data, client: client.send(answer(data, rcode=2))
    with pytest.raises(UpstreamError) as caught:
        await behind(upstream, second).ask(NAME, wire.A)
    assert caught.value.code == wire.EDE_NO_REACHABLE_AUTHORITY
    assert caught.value.text == f"{upstream.server}: no answer; {second.server}: response code 2"
    assert caught.value.wire is not None
    await upstream.die()
    with pytest.raises(UpstreamError) as caught:
        await behind(upstream).ask(NAME, wire.A)
    assert caught.value.code == wire.EDE_NETWORK_ERROR
    with pytest.raises(UpstreamError, match="no upstream resolver is configured"):
        await Upstreams(lambda: ()).ask(NAME, wire.A)


async def test_the_deadline_holds_over_all_rounds(upstream: FakeUpstream) -> None:
    upstream.behaviour = lambda _data, _client: None
    async with asyncio.timeout(2.0):
        with pytest.raises(UpstreamError):
            await behind(upstream, patience=(30.0, 30.0)).ask(NAME, wire.A, seconds=0.2)


async def test_a_clients_own_question_is_forwarded_under_another_identifier(upstream: FakeUpstream) -> None:
    upstream.set("t.example", "TXT", 't.example. 60 TXT "hello"')
    data = query("t.example", "TXT", ident=1)
    got = await behind(upstream).forward(data, name_to_wire("t.example"), 16)
    assert upstream.queries[0][2:] == data[2:]
    assert b"hello" in got.wire


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", "192.0.2.53:53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::53]", "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
    ],
)
def test_servers_are_written_as_people_write_them(text: str, server: str) -> None:
    assert str(Server.parse(text)) == server


@pytest.mark.parametrize(
    "text", ["", "dns.example", "192.0.2.53:0", "192.0.2.53:99999", "192.0.2.300", "[192.0.2.1", "1.2.3.4:x"]
)
def test_what_is_no_server_is_named(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Server.parse(text)
    assert caught.value.code == "bad-upstream"
    assert repr(text) in caught.value.message


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    servers = ResolvConf(path)
    assert servers() == ()
    path.write_text(
        "# made by hand\nsearch example\nnameserver 192.0.2.53\nnameserver nonsense\nnameserver 2001:db8::53 # x\n"
    )
    assert [str(server) for server in servers()] == ["192.0.2.53:53", "[2001:db8::53]:53"]
    path.write_text("nameserver 127.0.0.53\n")
    assert servers() == (Server(ip_address("127.0.0.53")),)
    path.unlink()
    assert servers() == ()
