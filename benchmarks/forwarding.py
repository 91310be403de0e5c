"""What a policy costs the traffic it lets through: throughput and connect time with 10,000 ranges against no rules at all.

Two paths of the same make, client - router - server, each in three namespaces; the router of one of them holds the rules. Rounds
take turns, and their medians are compared. Needs root. Usage: forwarding.py [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from statistics import median

from _table import show

from netpolicy.attachment import Attachment
from netpolicy.flow import Origin
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.ruleset import RangeRule, Ruleset
from netpolicy.services import Service

ORIGIN = Origin("benchmark", "", "")
PORT = 8443
SERVERS = {4: "198.51.100.2", 6: "2001:db8:0:1::2"}
_CLIENT = (ip_network("10.213.0.0/28"), ip_network("fd5c:ace0::/64"))
_OUTSIDE = (ip_network("198.51.100.0/24"), ip_network("2001:db8:0:1::/64"))


def ruleset(count: int) -> Ruleset:
    """Half of the ranges of each family; the server is in the last of them."""
    web = (Service(6, 443, 443), Service(6, PORT, PORT))
    four = [IPv4Network((0x0B000000 + n * 512, 25)) for n in range(count // 2 - 1)]
    six = [IPv6Network(((0x20010DB8_0002 << 80) + (n << 65), 64)) for n in range(count // 2 - 1)]
    return Ruleset("benchmark", ranges=tuple(RangeRule(n, web, ORIGIN) for n in (*four, *six, *_OUTSIDE)))


@dataclass
class Way:
    """One path, with sockets at both ends."""

    client: int
    server: int
    router: int

    def connect_seconds(self, version: int, times: int) -> float:
        """The median of so many connects, each closed at once."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        found = []
        with netns.socket_in(self.server, family, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((SERVERS[version], PORT))
            listening.listen(512)
            clients = netns.call(self.client, lambda: [socket.socket(family, socket.SOCK_STREAM) for _ in range(times)])
            for client in clients:
                begin = time.perf_counter()
                client.connect((SERVERS[version], PORT))
                found.append(time.perf_counter() - begin)
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT
                client.close()
        return median(found)

    def bytes_per_second(self, version: int, seconds: float) -> float:
        """How much one connection carries."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with (
            netns.socket_in(self.server, family, socket.SOCK_STREAM) as listening,
            netns.socket_in(self.client, family, socket.SOCK_STREAM) as client,
        ):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((SERVERS[version], PORT))
            listening.listen()
            client.connect((SERVERS[version], PORT))
            accepted, _ = listening.accept()
            got = 0

            def take() -> None:
                nonlocal got
                room = bytearray(1 << 20)
                while number := accepted.recv_into(room):
                    got += number

            taking = threading.Thread(target=take)
            taking.start()
            data = bytes(1 << 18)
            begin = time.perf_counter()
            while time.perf_counter() - begin < seconds:
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            taking.join()
            accepted.close()
            return got / (time.perf_counter() - begin)


@contextlib.contextmanager
def way() -> Iterator[Way]:
    """Three namespaces in a row."""
    with contextlib.ExitStack() as stack:
        client, router, server = (netns.anonymous() for _ in range(3))
        for namespace in (client, router, server):
            stack.callback(os.close, namespace)
            netns.set_sysctl(namespace, "net.ipv6.conf.default.accept_dad", 0)
        netns.set_sysctl(router, "net.ipv4.ip_forward", 1)
        netns.set_sysctl(router, "net.ipv6.conf.all.forwarding", 1)
        with Links(router) as links:
            links.veth("csp-bench", "eth0", peer_namespace=client)
            links.veth("up0", "eth0", peer_namespace=server)
            for name, networks in (("csp-bench", _CLIENT), ("up0", _OUTSIDE)):
                for network in networks:
                    links.address(name, f"{network[1]}/{network.prefixlen}")
            links.up("lo", "csp-bench", "up0")
        for namespace, networks in ((client, _CLIENT), (server, _OUTSIDE)):
            with Links(namespace) as links:
                for network in networks:
                    links.address("eth0", f"{network[2]}/{network.prefixlen}")
                links.up("lo", "eth0")
                for everything, network in zip(("0.0.0.0/0", "::/0"), networks, strict=True):
                    links.route(everything, via=str(network[1]))
        yield Way(client, server, router)


def compare(version: int, ranges: int, rounds: int) -> list[list[str]]:
    """Throughput and connect time over both ways, in turns."""
    rates: dict[str, list[float]] = {"ruled": [], "bare": []}
    connects: dict[str, list[float]] = {"ruled": [], "bare": []}
    with way() as bare, way() as ruled:
        attachment = Attachment("bench", "bench", "csp-bench", _CLIENT, tuple(ip_address(n[1]) for n in _CLIENT))
        enforcer = NftablesEnforcer("netpolicy", ruled.router)
        enforcer.install("csp-")
        enforcer.apply(attachment, ruleset(ranges), 5300)
        ways = {"bare": bare, "ruled": ruled}
        for name, each in ways.items():  # neighbours are found, and code is warm
            each.connect_seconds(version, 20)
            each.bytes_per_second(version, 0.1)
            assert name
        for number in range(rounds):
            for name in ("bare", "ruled") if number % 2 else ("ruled", "bare"):
                connects[name].append(ways[name].connect_seconds(version, 100))
                rates[name].append(ways[name].bytes_per_second(version, 0.25))
        assert enforcer.refused()["bench"].packets == 0
        enforcer.close()
    fast, slow = median(rates["bare"]), median(rates["ruled"])
    ratio = median(r / b for r, b in zip(rates["ruled"], rates["bare"], strict=True))
    with_rules, without = median(connects["ruled"]) * 1e6, median(connects["bare"]) * 1e6
    more = median(r - b for r, b in zip(connects["ruled"], connects["bare"], strict=True)) * 1e6
    return [
        [f"IPv{version}: throughput, Gbit/s", f"{slow * 8e-9:.1f}", f"{fast * 8e-9:.1f}", f"{ratio:.2f}"],
        [f"IPv{version}: connect, us", f"{with_rules:.0f}", f"{without:.0f}", f"{more:+.0f} us"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a look")
    rounds = 5 if parser.parse_args().quick else 25
    rows = [*compare(4, 10_000, rounds), *compare(6, 10_000, rounds)]
    show(
        "Traffic through a policy of 10,000 ranges (other: the same path with no rules)",
        ["", "ruled", "bare", "ratio"],
        rows,
        "Medians over rounds that take turns; the ratio is the median of the rounds' ratios.",
    )


if __name__ == "__main__":
    main()
