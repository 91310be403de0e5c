"""Putting a policy in force: our netlink transactions against `nft -f` of the same rules, and what traffic notices.

Both sides start from the same state in a namespace of their own, take turns, and are compared by their medians of one run.
Needs root and the nft program. Usage: apply.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from statistics import median

from _table import ms, show

from netpolicy import command
from netpolicy.attachment import Attachment
from netpolicy.flow import Origin
from netpolicy.kernel import conntrack, netns
from netpolicy.kernel.links import Links
from netpolicy.kernel.netlink import Netlink
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab
from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import Service

ORIGIN = Origin("benchmark", "", "")
WEB = (Service(6, 80, 80), Service(6, 443, 443))
ATTACHMENT = Attachment(
    "bench",
    "bench",
    "csp-bench",
    (ip_network("10.213.0.0/28"), ip_network("fd5c:ace0::/64")),
    (ip_address("10.213.0.1"), ip_address("fd5c:ace0::1")),
)


def ruleset(v4: int, v6: int, variant: int) -> Ruleset:
    """Networks that cannot be joined; variants share none."""
    base4, base6 = 0x0B000000 + variant * 256, (0x20010DB8 << 96) + (variant << 64)
    four = (IPv4Network((base4 + n * 512, 25)) for n in range(v4))
    six = (IPv6Network((base6 + (n << 80), 64)) for n in range(v6))
    ranges = (*(RangeRule(n, WEB, ORIGIN) for n in four), *(RangeRule(n, WEB, ORIGIN) for n in six))
    names = tuple(NameRule(f"{n}.example", (Service(6, 443, 443),), ORIGIN) for n in range(20))
    return Ruleset("benchmark", "enforce", names, ranges)


class Ours:
    """The enforcer in a namespace of its own."""

    name = "netpolicy"

    def __init__(self) -> None:
        self.namespace = netns.anonymous()
        self.enforcer = NftablesEnforcer("netpolicy", self.namespace)

    def first(self, rules: Ruleset) -> None:
        self.enforcer.install("csp-")
        self.enforcer.apply(ATTACHMENT, rules, 5300)

    def replace(self, rules: Ruleset) -> None:
        self.enforcer.apply(ATTACHMENT, rules, 5300)

    def close(self) -> None:
        self.enforcer.close()
        os.close(self.namespace)

    def listing(self) -> str:
        return readable(netns.call(self.namespace, command.run, ["nft", "list", "table", "inet", "netpolicy"]).text)


def readable(listing: str) -> str:
    """A listing that nft can read back: it cannot write the flag that keeps an owned table."""
    return re.sub(r"^(table inet netpolicy \{).*\n\tflags .*\n\n", r"\1\n", listing)


class Nft:
    """`nft -f` with the text of what our side has put in force, prepared beforehand."""

    name = "nft -f"

    def __init__(self) -> None:
        self.namespace = netns.anonymous()
        self._before = ""

    def prepare(self, listing: str) -> None:
        chains = re.findall(r"^\tchain (\w+)", self._before, re.MULTILINE)
        sets = re.findall(r"^\tset (r[46]_\w+)", self._before, re.MULTILINE)
        flush = [f"flush chain inet netpolicy {name}" for name in chains]
        flush += [f"delete set inet netpolicy {name}" for name in sets if name not in listing]
        self._text = "\n".join([*flush, listing, ""]).encode()
        self._before = listing

    def run(self) -> None:
        netns.call(self.namespace, command.run, ["nft", "-f", "-"], stdin=self._text, seconds=600)

    def close(self) -> None:
        os.close(self.namespace)


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def compare(v4: int, v6: int, rounds: int) -> list[list[str]]:
    """First apply, replace, and the same policy again, each of `rounds` times."""
    times: dict[tuple[str, str], list[float]] = {}

    def note(what: str, who: str, seconds: float) -> None:
        times.setdefault((what, who), []).append(seconds)

    for _ in range(rounds):
        ours, nft = Ours(), Nft()
        try:
            for what, variant in (("first apply", 0), ("replace", 1), ("again, unchanged", 1)):
                step = partial(ours.first if what == "first apply" else ours.replace, ruleset(v4, v6, variant))
                note(what, "ours", timed(step))
                nft.prepare(ours.listing())
                note(what, "nft", timed(nft.run))
        finally:
            ours.close()
            nft.close()
    rows = []
    for what in ("first apply", "replace", "again, unchanged"):
        mine, theirs = median(times[what, "ours"]), median(times[what, "nft"])
        label = f"{v4:,} v4 + {v6:,} v6: {what}"
        rows.append([label, ms(mine), ms(max(times[what, "ours"])), ms(theirs), f"{mine / theirs:.2f}"])
    return rows


_PEAK = """
import sys
sys.path[:0] = {path!r}
from ipaddress import IPv4Network, IPv6Network, ip_network
from netpolicy.attachment import Attachment
from netpolicy.flow import Origin
from netpolicy.kernel import netns
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.ruleset import RangeRule, Ruleset
from netpolicy.services import Service
web, origin = (Service(6, 80, 80), Service(6, 443, 443)), Origin("", "", "")
four = (RangeRule(IPv4Network((0x0B000000 + n * 512, 25)), web, origin) for n in range({v4}))
six = (RangeRule(IPv6Network(((0x20010DB8 << 96) + (n << 80), 64)), web, origin) for n in range({v6}))
enforcer = NftablesEnforcer("netpolicy", netns.anonymous())
enforcer.install("csp-")
box = Attachment("bench", "bench", "csp-bench", (ip_network("10.213.0.0/28"),), ())
enforcer.apply(box, Ruleset("benchmark", ranges=(*four, *six)), 5300)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
#: A small parent, for a child that is executed keeps the peak of what started it.
_NFT_PEAK = """
import os
if child := os.fork():
    print(os.wait4(child, 0)[2].ru_maxrss)
else:
    os.execvp("nft", ["nft", "-f", "-"])
"""


def memory(v4: int, v6: int) -> list[str]:
    """The most memory that a process needs which makes the policy and applies it, against what the nft program needs."""
    program = _PEAK.format(path=[str(path) for path in sys.path if path], v4=v4, v6=v6)
    mine = int(command.run([sys.executable, "-c", program], seconds=600).text) / 1024
    ours, nft = Ours(), Nft()
    try:
        ours.first(ruleset(v4, v6, 0))
        words = [sys.executable, "-I", "-S", "-c", _NFT_PEAK]
        done = netns.call(nft.namespace, command.run, words, stdin=ours.listing().encode(), seconds=600)
        theirs = int(done.text) / 1024
    finally:
        ours.close()
        nft.close()
    return [f"{v4:,} v4 + {v6:,} v6: first apply", f"{mine:.0f}", f"{theirs:.0f}", f"{mine / theirs:.2f}"]


def learning(count: int) -> list[list[str]]:
    """One learned address into a set that holds `count`, beside 1,000 ranges."""
    ours = Ours()
    try:
        ours.first(ruleset(1000, 0, 0))
        addresses = [ip_address(0xC6336400 + n) for n in range(count + 200)]
        https = (Service(6, 443, 443),)
        for start in range(0, count, 500):
            ours.enforcer.learn("bench", [Learned("1.example", a, https, 600) for a in addresses[start : start + 500]])
        new = addresses[count:]

        def learn(address: IPv4Address | IPv6Address) -> float:
            return timed(lambda: ours.enforcer.learn("bench", [Learned("2.example", address, https, 600)]))

        one = [learn(address) for address in new]
        again = [learn(address) for address in new]
        ours.enforcer.close()  # while it runs nobody else may touch the table
        text = "add element inet netpolicy n4_bench { 203.0.113.%d . tcp . 443 timeout 10m }"

        def by_nft(number: int) -> float:
            change = (text % number).encode()
            return timed(lambda: netns.call(ours.namespace, command.run, ["nft", "-f", "-"], stdin=change))

        nft = [by_nft(number) for number in range(15)]
        label = f"one address beside {count:,} learned"
        return [
            [f"{label}: new", ms(median(one)), ms(max(one)), ms(median(nft)), f"{median(one) / median(nft):.3f}"],
            [f"{label}: again", ms(median(again)), ms(max(again)), "", ""],
        ]
    finally:
        ours.close()


_SENDER = """
import select, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent = {address: 0 for address in sys.argv[1:]}
port, seconds = 1024, 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for address in sent:
        for _ in range(10):
            port = port + 1 if port < 65000 else 1024
            sock.sendto(b"x", (address, port))
            sent[address] += 1
print(*sent.values(), flush=True)
"""


@contextmanager
def traffic(lab: Lab, box: object, allowed: str, denied: str) -> Iterator[Callable[[], tuple[int, int, int]]]:
    """Every datagram opens a new connection, so each meets the rules; counted where it arrives."""
    rules = "".join(
        f"add counter inet count {name}\nadd rule inet count arrive ip daddr {address} counter name {name} drop\n"
        for name, address in (("allowed", allowed), ("denied", denied))
    )
    chain = "add table inet count\nadd chain inet count arrive { type filter hook prerouting priority -350; }\n"
    lab.inet.run(["nft", "-f", "-"], stdin=(chain + rules).encode())
    assert hasattr(box, "popen")
    sender = box.popen([sys.executable, "-c", _SENDER, allowed, denied], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sender.stdout.readline()

    def stop() -> tuple[int, int, int]:
        out, _ = sender.communicate(b"stop\n")
        sent = int(out.split()[0])
        listing = lab.inet.run(["nft", "list", "counters", "table", "inet", "count"]).text
        arrived = {name: int(n) for name, n in re.findall(r"counter (\w+) \{\s+packets (\d+)", listing)}
        lab.inet.run(["nft", "delete", "table", "inet", "count"])
        return sent, arrived["allowed"], arrived["denied"]

    yield stop


def disturbance(replaces: int) -> list[list[str]]:
    """Allowed datagrams lost, and denied ones that arrive, while the policy is replaced over and over."""
    rows = []
    with Lab() as lab:
        box = lab.add_workload("csp-bench")
        # Forgotten before the sender's ports come round again, so that every datagram is judged by the rules.
        netns.set_sysctl(lab.host.name, "net.netfilter.nf_conntrack_udp_timeout", 1)
        attachment = box.attachment("bench")
        allowed, denied = lab.fresh_v4(), lab.fresh_v4()
        open_udp = RangeRule(ip_network(allowed), (Service(17, 1, 65535),), ORIGIN)
        variants = []
        for variant in (0, 1):
            base = ruleset(1000, 200, variant)
            variants.append(Ruleset("benchmark", "enforce", base.names, (*base.ranges, open_udp)))
        enforcer = NftablesEnforcer("netpolicy", lab.host.name)
        enforcer.install("csp-")
        enforcer.attach(attachment, 5300)
        enforcer.apply(attachment, variants[0], 5300)
        with traffic(lab, box, allowed, denied) as stop:
            for n in range(replaces):
                enforcer.apply(attachment, variants[n % 2], 5300)
            sent, arrived, leaked = stop()
        rows.append(["ours, in place", str(replaces), f"{sent:,}", f"{sent - arrived:,}", str(leaked)])
        listings = []
        for each in variants:
            enforcer.apply(attachment, each, 5300)
            text = readable(lab.host.run(["nft", "list", "table", "inet", "netpolicy"]).text)
            listings.append(b"delete table inet netpolicy\n" + text.encode())
        enforcer.close()  # while it runs nobody else may touch the table
        with traffic(lab, box, allowed, denied) as stop:
            for n in range(replaces):
                lab.host.run(["nft", "-f", "-"], stdin=listings[n % 2])
            sent, arrived, leaked = stop()
        rows.append(["nft -f, table made anew", str(replaces), f"{sent:,}", f"{sent - arrived:,}", str(leaked)])
    return rows


def connections(count: int) -> list[list[str]]:
    """Listing tracked connections: our parser and pyroute2's."""
    from pyroute2 import Conntrack

    namespace = netns.anonymous()
    try:
        with Links(namespace) as links:
            links.up("lo")
        track = b"add table t\nadd chain t c { type filter hook output priority 0; }\nadd rule t c ct state new\n"
        netns.call(namespace, command.run, ["nft", "-f", "-"], stdin=track)
        with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for n in range(count):
                sock.sendto(b"", ("127.0.0.1", 1024 + n))

        def theirs() -> int:
            with Conntrack() as tracker:
                return len(list(tracker.dump_entries()))

        link = Netlink(namespace)
        mine = [timed(lambda: len(list(conntrack.entries(link, lambda _: True)))) for _ in range(5)]
        assert len(list(conntrack.entries(link, lambda _: True))) >= count
        others = [timed(lambda: netns.call(namespace, theirs)) for _ in range(3)]
        link.close()
        row = [f"{count:,} connections listed", ms(median(mine)), ms(max(mine)), ms(median(others))]
        return [[*row, f"{median(mine) / median(others):.3f}"]]
    finally:
        os.close(namespace)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a look")
    quick = parser.parse_args().quick
    head = ["", "ours ms", "worst", "other ms", "ratio"]
    rows = compare(1000, 200, 3 if quick else 9) + compare(100_000, 0, 1 if quick else 3)
    show(
        "Putting a policy in force (other: nft -f of the same rules)",
        head,
        rows,
        "Medians; a ratio below 1 is ours faster.",
    )
    rows = [memory(1000, 200), memory(100_000, 0)]
    show(
        "Memory (other: nft -f)",
        ["", "ours MB", "other MB", "ratio"],
        rows,
        "The peak of the process, with all of Python.",
    )
    show("Learning an address (other: nft -f)", head, learning(1000))
    show("Reading connections (other: pyroute2)", head, connections(2000 if quick else 10_000))
    show(
        "Traffic while 1,000 + 200 ranges are replaced",
        ["", "replaces", "allowed sent", "lost", "denied arrived"],
        disturbance(20 if quick else 60),
        "Each datagram is a new connection. Making the table anew is what `nft -f` of a whole listing does.",
    )


if __name__ == "__main__":
    main()
