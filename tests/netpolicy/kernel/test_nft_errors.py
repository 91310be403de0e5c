"""ICMP errors as carriers: they quote what they are about, so whoever chooses where one goes sends data there."""

from __future__ import annotations

import json
import secrets
import socket
import struct
import sys
from collections.abc import Callable

import pytest
from knocking import Guarded, rules

from netpolicy.kernel import netns
from netpolicy.lab import Workload

pytestmark = pytest.mark.kernel


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def packet(source: str, target: str, protocol: int, body: bytes, *, hops: int = 64, lone: bool = False) -> bytes:
    """An IP packet; `lone` makes it the first fragment of one whose rest never comes."""
    if ":" in source:
        if lone:
            body, protocol = struct.pack("!BBHI", protocol, 0, 1, secrets.randbits(32)) + body, 44
        head = struct.pack("!IHBB", 0x60000000, len(body), protocol, hops)
        return head + packed(source) + packed(target) + body
    flags = 0x2000 if lone else 0
    words = (0x45, 0, 20 + len(body), secrets.randbits(16), flags, hops, protocol, 0, packed(source), packed(target))
    head = struct.pack("!BBHHHBBH4s4s", *words)
    return head[:10] + checksum(head).to_bytes(2) + head[12:] + body


def datagram(source: str, target: str, ports: tuple[int, int], data: bytes) -> bytes:
    """A UDP datagram without its IP header; the data have an even length."""
    head = struct.pack("!HHH", *ports, 8 + len(data))
    if ":" not in source:
        return head + bytes(2) + data
    pseudo = packed(source) + packed(target) + struct.pack("!II", 8 + len(data), 17)
    return head + checksum(pseudo + head + data).to_bytes(2) + data


def send(one: Guarded, box: Workload, data: bytes) -> None:
    """Write a packet on the wire as it is: the sender's own kernel would put fragments together."""
    link = one.lab.host.run(["ip", "-json", "link", "show", box.interface]).text
    gateway = bytes.fromhex(json.loads(link)[0]["address"].replace(":", ""))
    with box.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
        wire.sendto(data, ("eth0", 0x86DD if data[0] >> 4 == 6 else 0x0800, 0, 0, gateway))


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("trick", ["last hop", "lone fragment"])
@pytest.mark.parametrize("state", ["enforced", "locked", "unattached"])
def test_what_the_host_itself_answers_carries_nothing_out(
    guard: Callable[..., Guarded], version: int, state: str, trick: str
) -> None:
    """The host says that a hop limit ran out, or that the rest of a packet never came, before it asks whether to forward."""
    one = guard()
    free = one.lab.add_workload()  # nobody guards it: what the trick does where nothing forbids it
    if state != "unattached":
        one.enforcer.attach(one.attachment, None)
    if state == "enforced":
        one.apply(rules({one.fresh(version): "443/udp"}))
    waits = ["ipv4.ipfrag_time"] if version == 4 else ["ipv6.ip6frag_time", "netfilter.nf_conntrack_frag6_timeout"]
    for wait in waits:
        netns.set_sysctl(one.lab.host.name, f"net.{wait}", 1)
    lone = trick == "lone fragment"
    with one.lab.host.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as warm:
        # The lab's internet answers no ARP request in the name of a gateway, so the host must know its neighbour before.
        warm.settimeout(5)
        warm.connect((one.fresh(version), 4000))
        warm.send(b"hello")
        warm.recv(100)

    def leaks(box: Workload) -> bool:
        forged, nonce = one.fresh(version), secrets.token_hex(16).encode()
        # Over IPv4 a host speaks of fragments only where it was to put them together.
        target = str(box.gateways[0]) if lone and version == 4 else one.fresh(version)
        body = datagram(forged, target, (4000, 443), nonce)
        send(one, box, packet(forged, target, 17, body, hops=64 if lone else 1, lone=lone))
        if lone:
            with box.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.settimeout(2.0)
                with pytest.raises(TimeoutError):
                    silent.recv(1)
        return bool(one.lab.receiver.saw(nonce) or one.lab.receiver.arrived(forged))

    assert leaks(free)
    assert not leaks(one.box)


@pytest.mark.requirement("F1")
def test_an_unprivileged_user_forges_no_sender(guarded: Guarded) -> None:
    """IPV6_FREEBIND takes no privilege, and what is sent so is forged. (Over IPv4 the sender's own kernel refuses.)"""
    guarded.apply(rules())
    forged, nonce = guarded.fresh(6), secrets.token_hex(8)
    code = (
        "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); "
        f"s.setsockopt(41, 78, 1); s.bind(({forged!r}, 0)); s.setsockopt(41, socket.IPV6_UNICAST_HOPS, 1); "
        f"s.sendto({nonce!r}.encode(), ({guarded.fresh(6)!r}, 443))"
    )
    guarded.box.run([sys.executable, "-I", "-S", "-c", code], user=65534)
    assert not guarded.lab.receiver.saw(nonce)
    assert not guarded.lab.receiver.arrived(forged)


@pytest.mark.requirement("F1")
def test_an_error_about_a_connection_of_the_host_is_not_let_out(guarded: Guarded, version: int) -> None:
    """It counts as related to that connection, whoever sends it, and would reach the other end."""
    guarded.apply(rules())
    peer, nonce = guarded.fresh(version), secrets.token_hex(8).encode()
    family, protocol = (socket.AF_INET, 1) if version == 4 else (socket.AF_INET6, 58)
    own = guarded.box.v4 if version == 4 else guarded.box.v6
    with guarded.lab.host.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((peer, 4000))
        client.send(b"hello")
        client.settimeout(5)
        client.recv(100)
        host, port = client.getsockname()[:2]
        quoted = packet(peer, host, 17, datagram(peer, host, (4000, port), nonce))
        rest = bytes(4) + quoted
        kind = b"\3\3" if version == 4 else b"\1\4"
        pseudo = b"" if version == 4 else packed(own) + packed(peer) + struct.pack("!II", 4 + len(rest), 58)
        error = kind + checksum(pseudo + kind + bytes(2) + rest).to_bytes(2) + rest
        send(guarded, guarded.box, packet(own, peer, protocol, error))
        assert guarded.lab.receiver.arrived(peer)
        assert not guarded.lab.receiver.saw(nonce)
