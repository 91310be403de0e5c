"""DNS queries go to the gate's listener, whatever server they name, and to nobody else."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
from collections.abc import Callable, Iterator

import pytest
from knocking import Guarded, bridged, listener, neighbour_of, rules

from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace

pytestmark = pytest.mark.kernel

PORT = 5300


@contextlib.contextmanager
def resolver(where: Namespace, address: str, port: int) -> Iterator[socket.socket]:
    """A datagram socket that stands for a name server."""
    with netns.socket_in(where, family(address), socket.SOCK_DGRAM) as server:
        server.settimeout(5)
        server.bind((address, port))
        yield server


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ask(one: Guarded, server: socket.socket, address: str, port: int = 53) -> str:
    """Send a datagram to `address`: who answers it, as the workload sees it; empty where nothing came back."""
    nonce = secrets.token_hex(8).encode()
    with one.box.socket(family(address), socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.send(nonce)
        heard, _, _ = select.select([client, server], [], [], 5)
        if server not in heard:
            with pytest.raises(OSError):  # it is told so: silence would be a failure, too
                client.recv(100)
            return ""
        data, sender = server.recvfrom(100)
        assert data == nonce
        server.sendto(nonce, sender)
        client.settimeout(5)
        assert client.recv(100) == nonce
        return str(client.getpeername()[0])


def gateway(one: Guarded, version: int) -> str:
    return str(one.attachment.gateways[0 if version == 4 else 1])


@pytest.mark.requirement("F3")
def test_queries_to_the_gateway_and_to_any_other_server_reach_the_gate(guarded: Guarded, version: int) -> None:
    guarded.apply(rules(), PORT)
    foreign = "8.8.8.8" if version == 4 else "2001:4860:4860::8888"
    with resolver(guarded.lab.host.name, gateway(guarded, version), PORT) as server:
        for address in (gateway(guarded, version), foreign):
            assert ask(guarded, server, address) == address, "and the answer comes from whom it was sent to"
    with listener(guarded.lab.host.name, gateway(guarded, version), PORT):
        for address in (gateway(guarded, version), foreign):
            assert guarded.tcp(address, 53).outcome == "answered"
    assert not guarded.lab.receiver.arrived(foreign)


@pytest.mark.requirement("F3")
def test_an_allowed_range_does_not_let_queries_out(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "53/udp 53/tcp 853/tcp"}), PORT)
    assert guarded.udp(address, 53).refused, "nobody listens at the gate"
    assert guarded.tcp(address, 53).refused
    assert guarded.tcp(address, 853).passed


@pytest.mark.requirement("F3")
def test_other_ports_are_not_redirected(guarded: Guarded, version: int) -> None:
    guarded.apply(rules(), PORT)
    with resolver(guarded.lab.host.name, gateway(guarded, version), PORT) as server:
        assert ask(guarded, server, gateway(guarded, version))
        for port in (853, 5353):
            assert not ask(guarded, server, guarded.fresh(version), port)


@pytest.mark.requirement("F1")
def test_a_locked_attachment_has_no_dns(guarded: Guarded, version: int) -> None:
    with resolver(guarded.lab.host.name, gateway(guarded, version), PORT) as server:
        assert not ask(guarded, server, "8.8.8.8" if version == 4 else "2001:4860:4860::8888")
        assert not ask(guarded, server, gateway(guarded, version))
        assert not ask(guarded, server, gateway(guarded, version), PORT)
        guarded.apply(rules(), PORT)
        assert ask(guarded, server, gateway(guarded, version))
        guarded.enforcer.attach(guarded.attachment, PORT)
        assert not ask(guarded, server, gateway(guarded, version))


def test_without_a_port_there_is_no_redirect(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "53/udp"}), None)
    assert guarded.udp(address, 53).passed
    assert guarded.udp(guarded.fresh(version), 53).refused


def test_the_gate_may_move_to_another_port(guarded: Guarded, version: int) -> None:
    """The same socket of the workload goes on asking: its old translation must not stick."""
    address = "8.8.8.8" if version == 4 else "2001:4860:4860::8888"
    guarded.apply(rules(), PORT)
    with guarded.box.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((address, 53))
        for port in (PORT, PORT + 1):
            guarded.apply(rules(), port)
            with resolver(guarded.lab.host.name, gateway(guarded, version), port) as server:
                client.send(b"query")
                _, sender = server.recvfrom(100)
                server.sendto(b"answer", sender)
                assert client.recv(100) == b"answer"


@pytest.mark.requirement("F3")
@pytest.mark.parametrize("bridge_filter", [0, 1])
def test_a_name_server_in_the_own_network_is_left_alone(
    guard: Callable[..., Guarded], version: int, bridge_filter: int
) -> None:
    one = bridged(guard)
    netns.set_sysctl(one.lab.host.name, "net.bridge.bridge-nf-call-iptables", bridge_filter)
    netns.set_sysctl(one.lab.host.name, "net.bridge.bridge-nf-call-ip6tables", bridge_filter)
    one.enforcer.attach(one.attachment, None)
    one.apply(rules(), PORT)
    inside = str(one.attachment.networks[0 if version == 4 else 1][3])
    with neighbour_of(one, 3) as other, resolver(other, inside, 53) as server:
        assert ask(one, server, inside) == inside
    with resolver(one.lab.host.name, gateway(one, version), PORT) as server:
        assert ask(one, server, gateway(one, version)) == gateway(one, version)


def test_off_redirects_too(guarded: Guarded, version: int) -> None:
    """The gate forwards everything then, and goes on telling what was asked."""
    guarded.apply(rules(mode="off"), PORT)
    with resolver(guarded.lab.host.name, gateway(guarded, version), PORT) as server:
        assert ask(guarded, server, "8.8.8.8" if version == 4 else "2001:4860:4860::8888")
