"""One gate with 100 attachments against the same gate with one: its memory, and how long each operation takes.

A real gate process in a namespace of a lab, real interfaces, real name servers; each attachment has the same policy with names
of its own. Needs root and the nft program. Usage: attachments.py [--count N]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from statistics import median

from _table import ms, show

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.flow import Origin
from netpolicy.gate.client import GateClient
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab, Node
from netpolicy.ruleset import NameRule, RangeRule, Ruleset
from netpolicy.services import Service

ORIGIN = Origin("benchmark", "", "")
WEB = (Service(6, 80, 80), Service(6, 443, 443))
NETPOLICY = Path(sys.executable).parent / "netpolicy"
NAMES, RANGES_V4, RANGES_V6 = 20, 200, 40


def ruleset(number: int, names: list[str]) -> Ruleset:
    """A project's policy: the lab's names, and ranges that no other attachment has."""
    v4 = (IPv4Network((0x0B000000 + (number << 16) + n * 256, 25)) for n in range(RANGES_V4))
    v6 = (IPv6Network(((0x20010DB8 << 96) + (number << 80) + (n << 70), 64)) for n in range(RANGES_V6))
    return Ruleset(
        f"project {number}",
        names=tuple(NameRule(name, WEB, ORIGIN) for name in names),
        ranges=tuple(RangeRule(network, WEB, ORIGIN) for network in (*v4, *v6)),
    )


def attachments(host: Node, peers: int, count: int) -> list[Attachment]:
    """Interfaces as an engine would make them, with their other ends in another namespace."""
    found = []
    with Links(host.name) as links, Links(peers) as far:
        for n in range(count):
            v4, v6 = IPv4Network((0x0AD60000 + n * 16, 28)), IPv6Network(((0xFD5CACE1 << 96) + (n << 64), 64))
            wire = f"csp-{n}"
            links.veth(wire, wire, peer_namespace=peers)
            for network in (v4, v6):
                links.address(wire, f"{network[1]}/{network.prefixlen}")
            links.up(wire)
            far.up(wire)
            found.append(Attachment(f"a{n}", f"bench/{n}", wire, (v4, v6), (v4[1], v6[1])))
    return found


def memory(pid: int) -> tuple[float, float]:
    """The process's resident memory now and at its highest, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
    return int(values["VmRSS"]) / 1024, int(values["VmHWM"]) / 1024


def connected(path: Path, seconds: float = 10.0) -> GateClient:
    """A client of a gate that is starting."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(UserError):
            return GateClient.connect(path)
        if time.monotonic() > deadline:
            raise SystemExit("the gate does not start")
        time.sleep(0.02)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(count: int) -> None:
    """Attach and apply one after the other, and print what the first and the last ones took."""
    peers = netns.anonymous()
    try:
        with Lab() as lab, tempfile.TemporaryDirectory() as directory:
            names = [lab.site().name for _ in range(NAMES)]
            places = attachments(lab.host, peers, count)
            control = Path(directory) / "gate.sock"
            words = [str(NETPOLICY), "gate", "serve", "--socket", str(control), "--state", f"{directory}/state"]
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # os.devnull is a name, not a path of ours
                process = lab.host.popen(words, stderr=nowhere)
            with connected(control) as gate:
                pid, rounds = gate.hello().pid, 21
                empty, _ = memory(pid)
                attach, apply, status, used, tail = [], [], {}, {}, min(20, count)
                for n, place in enumerate(places):
                    rules = ruleset(n, names)
                    if n >= count - tail:
                        time.sleep(1)  # the gate looks over what it holds after each change; these find it at rest
                    attach.append(timed(lambda place=place: gate.attach(place)))
                    apply.append(timed(lambda place=place, rules=rules: gate.apply(place.id, rules)))
                    if n in (0, count - 1):
                        status[n] = median(timed(gate.status) for _ in range(rounds))
                        again = [timed(lambda place=place, rules=rules: gate.apply(place.id, rules)) for _ in range(5)]
                        used[n] = (*memory(pid), median(again))
            lab.host.stop(process)
    finally:
        os.close(peers)
    last, burst = count - 1, attach[: count - tail] or attach
    rows = [
        ["memory, MB", f"{used[0][0]:.1f}", f"{used[last][0]:.1f}", f"{used[last][0] / used[0][0]:.2f}", "80"],
        [
            "memory at its highest, MB",
            f"{used[0][1]:.1f}",
            f"{used[last][1]:.1f}",
            f"{used[last][1] / used[0][1]:.2f}",
            "",
        ],
        _row("attach, ms", attach[0], median(attach[-tail:]), "15"),
        ["attach, one right after the other, ms", "", ms(median(burst[-20:])), "", ""],
        _row("first apply (names resolved), ms", apply[0], median(apply[-tail:]), ""),
        _row("the same policy again, ms", used[0][2], used[last][2], ""),
        _row("status of all, ms", status[0], status[last], ""),
    ]
    show(
        f"One gate with {count} attachments, {NAMES} names and {RANGES_V4} + {RANGES_V6} ranges each",
        ["", "with 1", f"with {count}", "ratio", "aim at most"],
        rows,
        f"An empty gate has {empty:.1f} MB. With {count}: medians of the last {tail}, a second apart.",
    )


def _row(what: str, one: float, many: float, aim: str) -> list[str]:
    return [what, ms(one), ms(many), f"{many / one:.2f}", aim]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    measure(parser.parse_args().count)


if __name__ == "__main__":
    main()
