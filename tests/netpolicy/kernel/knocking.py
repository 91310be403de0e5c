"""A workload of the lab behind an enforcer, and knocks at the internet whose verdict is taken where packets arrive."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

from netpolicy import command
from netpolicy.attachment import Attachment
from netpolicy.clock import SystemClock
from netpolicy.flow import Origin
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab, Node, Workload
from netpolicy.ruleset import HostRule, Learned, Mode, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service

SECONDS = 5.0
CLOCK = SystemClock()
ORIGIN = Origin("test", "test", "test")
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}


def services(text: str) -> tuple[Service, ...]:
    """Read ``443/tcp 1-100/udp icmp``, or ``*`` for every service."""
    if text == "*":
        return EVERY
    found = []
    for word in text.split():
        ports, _, protocol = word.rpartition("/")
        first, _, last = ports.partition("-")
        found.append(Service(PROTOCOLS[protocol], int(first or 0), int(last or first or 0)))
    return tuple(sorted(found))


def rules(
    ranges: dict[str, str] | None = None,
    names: dict[str, str] | None = None,
    host: str = "",
    mode: Mode = "enforce",
    *,
    denied: dict[str, str] | None = None,
    denied_names: dict[str, str] | None = None,
    ipv6: bool = True,
    until: dict[str, float] | None = None,
) -> Ruleset:
    """A ruleset out of texts that `services` reads (``*``: every service). `until` gives targets among them an end."""
    ends = until or {}
    return Ruleset(
        "test",
        mode,
        tuple(NameRule(name, services(text), ORIGIN, ends.get(name)) for name, text in (names or {}).items()),
        tuple(
            RangeRule(ip_network(net), services(text), ORIGIN, ends.get(net)) for net, text in (ranges or {}).items()
        ),
        tuple(HostRule(service, ORIGIN) for service in services(host)),
        denied_names=tuple(NameRule(name, services(text), ORIGIN) for name, text in (denied_names or {}).items()),
        denied_ranges=tuple(RangeRule(ip_network(net), services(text), ORIGIN) for net, text in (denied or {}).items()),
        ipv6=ipv6,
    )


def learned(name: str, address: str, text: str, seconds: float = 60) -> Learned:
    return Learned(name, ip_address(address), services(text), seconds)


@dataclass(frozen=True)
class Knock:
    """One attempt to reach something."""

    outcome: str
    """``answered``, ``silence`` or the name of the error."""
    arrived: bool
    """Whether any packet of it was seen at the internet."""

    @property
    def passed(self) -> bool:
        return self == Knock("answered", True)

    @property
    def refused(self) -> bool:
        return not self.arrived and self.outcome in ("ECONNREFUSED", "EHOSTUNREACH", "EACCES", "EPERM")


@dataclass
class Guarded:
    """A workload, the enforcer on the host it is behind, and its attachment there."""

    lab: Lab
    box: Workload
    enforcer: NftablesEnforcer
    attachment: Attachment
    _open: list[socket.socket] = field(default_factory=list)

    def apply(self, ruleset: Ruleset, dns_port: int | None = None) -> None:
        self.enforcer.apply(self.attachment, ruleset, dns_port)

    def learn(self, *what: Learned) -> None:
        self.enforcer.learn(self.attachment.id, what)

    def fresh(self, version: int) -> str:
        return self.lab.fresh_v4() if version == 4 else self.lab.fresh_v6()

    def tcp(self, address: str, port: int, *, node: Node | None = None) -> Knock:
        before = self._openings(address, port)
        with self._socket(address, socket.SOCK_STREAM, 0, node) as sock:
            outcome = _attempt(sock, (address, port), b"hello")
        return Knock(outcome, self._openings(address, port) > before)

    def udp(self, address: str, port: int, *, node: Node | None = None) -> Knock:
        nonce = secrets.token_hex(8).encode()
        with self._socket(address, socket.SOCK_DGRAM, 0, node) as sock:
            outcome = _attempt(sock, (address, port), nonce)
        return Knock(outcome, bool(self.lab.receiver.saw(nonce)))

    def ping(self, address: str, *, node: Node | None = None) -> Knock:
        nonce = secrets.token_hex(8).encode()
        v4 = ":" not in address
        protocol = socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6
        with self._socket(address, socket.SOCK_DGRAM, protocol, node) as sock:
            outcome = _attempt(sock, (address, 0), struct.pack(">BBHHH", 8 if v4 else 128, 0, 0, 0, 1) + nonce)
        return Knock(outcome, bool(self.lab.receiver.saw(nonce)))

    def connection(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A connection that has already carried something; closed with the test."""
        sock = self.box.socket(_family(address), kind)
        self._open.append(sock)
        sock.settimeout(SECONDS)
        sock.connect((address, port))
        assert carries(sock)
        return sock

    def close(self) -> None:
        for sock in self._open:
            sock.close()
        self.enforcer.close()

    def _openings(self, address: str, port: int) -> int:
        """How many TCP segments with SYN and without ACK have arrived."""
        header = 40 if ":" in address else 20
        packets = self.lab.receiver.arrived(address, port, 6)
        return sum(packet.data[header + 13] & 0x12 == 0x02 for packet in packets)

    def _socket(self, address: str, kind: int, protocol: int, node: Node | None) -> socket.socket:
        return (node or self.box).socket(_family(address), kind, protocol)


def carries(sock: socket.socket) -> bool:
    """Whether an open connection still takes a question to the lab's echo and brings the answer back."""
    nonce = secrets.token_hex(8).encode()
    try:
        sock.sendall(nonce)
        got = b""
        while nonce not in got:
            got += sock.recv(4096) or _raise(ConnectionResetError())
    except OSError:
        return False
    return True


def _raise(error: OSError) -> bytes:
    raise error


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _attempt(sock: socket.socket, target: tuple[str, int], data: bytes) -> str:
    sock.settimeout(SECONDS)
    try:
        sock.connect(target)
        sock.send(data)
        sock.recv(4096)
    except TimeoutError:
        return "silence"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "answered"


def nft(namespace: Namespace, *words: str, stdin: str = "") -> str:
    """The nft program inside a namespace: the second reader of what we wrote."""
    argv = ["nft", *words, *(["-f", "-"] if stdin else [])]
    return netns.call(namespace, command.run, argv, stdin=stdin.encode()).text


def nft_json(namespace: Namespace, *words: str) -> list[dict[str, Any]]:
    listing: list[dict[str, Any]] = json.loads(nft(namespace, "-j", *words))["nftables"]
    return listing


def route_to(one: Guarded) -> None:
    """Give the internet a way to the workload's own addresses, as a router of the same company would have it."""
    with Links(one.lab.inet.name) as links:
        for network, via in zip(one.attachment.networks, ("198.51.100.2", "2001:db8:0:1::2"), strict=True):
            links.route(str(network), via=via)


@contextlib.contextmanager
def listener(namespace: Namespace, address: str, port: int) -> Iterator[None]:
    """A TCP server in a namespace that greets and hangs up."""
    with netns.socket_in(namespace, _family(address), socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):  # shut down
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"here")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def bridged(guard: Callable[..., Guarded]) -> Guarded:
    """A guarded workload whose attachment is a bridge instead of a wire: what an engine makes."""
    one = guard(f"port-{secrets.token_hex(3)}")
    name = f"csp-{secrets.token_hex(4)}"
    port = one.attachment.interface
    one.lab.host.run(["ip", "address", "flush", "dev", port])
    with Links(one.lab.host.name) as links:
        links.bridge(name)
        # Its own, as an engine sets it: else it is the lowest of its ports' and changes when one goes.
        one.lab.host.run(["ip", "link", "set", name, "address", "02:42:0a:d5:00:01"])
        links.enslave(port, name)
        for network, gateway in zip(one.attachment.networks, one.attachment.gateways, strict=True):
            links.address(name, f"{gateway}/{network.prefixlen}")
        links.up(name)
    one.attachment = replace(one.attachment, interface=name)
    return one


@contextlib.contextmanager
def neighbour_of(one: Guarded, number: int) -> Iterator[int]:
    """A namespace with an end on the same bridge; it has the numbered address of each network."""
    namespace = netns.anonymous()
    port = f"p{secrets.token_hex(4)}"
    try:
        with Links(one.lab.host.name) as links:
            links.veth(port, "eth0", peer_namespace=namespace)
            links.enslave(port, one.attachment.interface)
            links.up(port)
        with Links(namespace) as links:
            for network in one.attachment.networks:
                links.address("eth0", f"{network[number]}/{network.prefixlen}")
            links.up("eth0")
        yield namespace
    finally:
        os.close(namespace)


@contextlib.contextmanager
def open_server(
    one: Guarded,
    address: str,
    port: int,
    where: Namespace = None,
    client_at: Namespace = None,
    asked: tuple[str, int] | None = None,
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """An open TCP connection from the workload (or another namespace) to a server on the host (or elsewhere): both ends."""
    family = _family(address)
    with (
        netns.socket_in(where or one.lab.host.name, family, socket.SOCK_STREAM) as server,
        netns.socket_in(client_at or one.box.name, family, socket.SOCK_STREAM) as client,
    ):
        server.bind((address, port))
        server.listen()
        for end in (server, client):
            end.settimeout(SECONDS)
        client.connect(asked or (address, port))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(SECONDS)
            assert passes(client, accepted)
            yield client, accepted


def passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether what one end of a connection writes comes out at the other."""
    nonce = secrets.token_hex(8).encode()
    receiver.settimeout(1)
    try:
        sender.sendall(nonce)
        return nonce in receiver.recv(4096)
    except OSError:
        return False


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline, pause = CLOCK.monotonic() + 10, threading.Event()
    while not happened():
        assert CLOCK.monotonic() < deadline, what
        pause.wait(0.02)
