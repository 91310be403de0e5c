"""Our reading of tracked connections against the `conntrack` listing of the kernel's own text file and pyroute2."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from knocking import listener, nft

from netpolicy.kernel import conntrack, netns
from netpolicy.kernel.conntrack import Entry
from netpolicy.kernel.links import Links
from netpolicy.kernel.netlink import Netlink

pytestmark = pytest.mark.kernel

HOST = {4: "127.0.0.1", 6: "::1"}


@pytest.fixture
def tracked() -> Iterator[int]:
    """A namespace that tracks connections over its loopback; IPv4 is translated from port 80 to 8080 on the way."""
    namespace = netns.anonymous()
    with Links(namespace) as links:
        links.up("lo")
    rules = (
        "add table inet t",
        "add chain inet t c { type nat hook output priority -100; }",
        "add rule inet t c ip daddr 127.0.0.1 tcp dport 80 redirect to :8080",
    )
    nft(namespace, stdin="\n".join(rules) + "\n")
    netns.set_sysctl(namespace, "net.ipv4.ping_group_range", "0 2147483647")
    yield namespace
    os.close(namespace)


def everything(link: Netlink) -> list[Entry]:
    return conntrack.entries(link, lambda _: True)


def plain(entry: Entry) -> tuple[object, ...]:
    one, two = entry.original, entry.reply
    return (
        str(ip_address(one.source)),
        str(one.destination_address),
        one.protocol,
        one.source_port,
        one.port,
        str(ip_address(two.source)),
        two.source_port,
    )


def make_traffic(namespace: int) -> None:
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        address = HOST[version]
        with netns.socket_in(namespace, family, socket.SOCK_DGRAM) as udp:
            udp.bind((address, 5000))
            udp.sendto(b"x", (address, 5001))
        protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
        with netns.socket_in(namespace, family, socket.SOCK_DGRAM, protocol) as ping:
            ping.sendto(struct.pack(">BBHHH", 8 if version == 4 else 128, 0, 0, 0, 1), (address, 0))
        with netns.socket_in(namespace, family, socket.SOCK_RAW, 253) as raw:
            raw.sendto(secrets.token_bytes(16), (address, 0))
        with listener(namespace, address, 8080), netns.socket_in(namespace, family, socket.SOCK_STREAM) as tcp:
            tcp.bind((address, 5002))
            tcp.settimeout(5)
            tcp.connect((address, 80 if version == 4 else 8080))
            tcp.recv(10)


def test_every_kind_of_entry(tracked: int) -> None:
    make_traffic(tracked)
    link = Netlink(tracked)
    found = {plain(entry) for entry in everything(link)}
    link.close()
    v4, v6 = HOST[4], HOST[6]
    assert found == {
        (v4, v4, 17, 5000, 5001, v4, 5001),
        (v6, v6, 17, 5000, 5001, v6, 5001),
        (v4, v4, 1, 0, 0, v4, 0),
        (v6, v6, 58, 0, 0, v6, 0),
        (v4, v4, 253, 0, 0, v4, 0),
        (v6, v6, 253, 0, 0, v6, 0),
        (v4, v4, 6, 5002, 80, v4, 8080),
        (v6, v6, 6, 5002, 8080, v6, 8080),
    }


def test_only_those_that_mention_an_address(tracked: int) -> None:
    make_traffic(tracked)
    link = Netlink(tracked)
    whole = everything(link)
    mentioned = conntrack.entries(link, lambda _: True, [ip_address("127.0.0.1").packed[:3], b"\xfd\x5c"])
    assert {plain(entry) for entry in whole if len(entry.original.source) == 4} <= {plain(e) for e in mentioned}
    assert conntrack.entries(link, lambda _: True, [ip_address("192.0.2.0").packed[:3]]) == []
    assert len(everything(link)) == len(whole), "the listing before was read to its end"
    link.close()


def test_the_quick_reader_and_the_thorough_one_agree(tracked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make_traffic(tracked)
    link = Netlink(tracked)
    quick = {plain(entry) for entry in everything(link)}
    with monkeypatch.context() as patch:
        patch.setattr(conntrack, "_BODIES", {})
        thorough = {plain(entry) for entry in everything(link)}
    link.close()
    assert quick == thorough
    assert len(quick) == 8


def test_pyroute2_reads_the_same(tracked: int) -> None:
    from pyroute2 import Conntrack

    make_traffic(tracked)

    def theirs() -> set[tuple[object, ...]]:
        with Conntrack() as tracker:
            rows = [entry for entry in tracker.dump_entries() if entry.tuple_orig.proto in (6, 17)]
            return {
                (e.tuple_orig.saddr, e.tuple_orig.daddr, e.tuple_orig.proto, e.tuple_orig.sport, e.tuple_orig.dport)
                for e in rows
            }

    link = Netlink(tracked)
    # It asks for IPv4 only, unless told otherwise.
    ours = {plain(e)[:5] for e in everything(link) if e.original.protocol in (6, 17) and len(e.original.source) == 4}
    link.close()
    assert ours == netns.call(tracked, theirs)
    assert len(ours) == 2


def test_delete_takes_what_it_is_given_and_nothing_else(tracked: int) -> None:
    make_traffic(tracked)
    link = Netlink(tracked)
    doomed = conntrack.entries(link, lambda entry: entry.original.protocol in (1, 6, 58, 253))
    assert conntrack.delete(link, doomed) == 6
    assert {entry.original.protocol for entry in everything(link)} == {17}
    assert conntrack.delete(link, doomed) == 6, "those that are gone are no error"
    link.close()


def test_many(tracked: int) -> None:
    with netns.socket_in(tracked, socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for port in range(2000, 5000):
            udp.sendto(b"", (HOST[4], port))
    link = Netlink(tracked)
    found = everything(link)
    assert len(found) == 3000
    assert conntrack.delete(link, found) == 3000
    assert not everything(link)
    link.close()
