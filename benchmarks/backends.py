"""The enforcers beside each other: nf_tables, ipset with iptables over nf_tables, and ipset with the older iptables.

All take turns, each in a namespace of its own, and are compared by their medians of one run.
Needs root and the programs of iptables. Usage: backends.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from statistics import median

from _table import ms, show
from apply import ATTACHMENT, ruleset

from netpolicy import command
from netpolicy.attachment import Enforcer
from netpolicy.kernel import netns
from netpolicy.kernel.backends import Backend, open_enforcer
from netpolicy.ruleset import Learned, Ruleset
from netpolicy.services import Service

HTTPS = (Service(6, 443, 443),)
KINDS: tuple[tuple[str, Backend, bool], ...] = (
    ("nftables", "nftables", False),
    ("ipset, iptables-nft", "ipset", False),
    ("ipset, iptables-legacy", "ipset", True),
)


class Side:
    """One enforcer in a namespace of its own."""

    def __init__(self, name: str, backend: Backend, legacy: bool) -> None:
        self.name = name
        self._namespace = netns.anonymous()
        if legacy:
            netns.call(self._namespace, command.run, ["iptables-legacy", "--list"])
        self.enforcer: Enforcer = open_enforcer(backend, netns=self._namespace)
        self.enforcer.install("csp-")
        self.took: dict[str, list[float]] = {}

    def time(self, what: str, function: Callable[[], object], times: int = 1) -> None:
        begun = time.perf_counter()
        function()
        self.took.setdefault(what, []).append((time.perf_counter() - begun) / times)

    def apply(self, what: str, rules: Ruleset) -> None:
        self.time(what, lambda: self.enforcer.apply(ATTACHMENT, rules, 5300))

    def learn(self, count: int, each: int, start: int) -> None:
        batches = [
            [Learned("0.example", IPv4Address(0xC0000000 + start + n * each + m), HTTPS, 300) for m in range(each)]
            for n in range(count)
        ]

        def learning() -> None:
            for batch in batches:
                self.enforcer.learn(ATTACHMENT.id, batch)

        self.time(
            f"one learned address, {each:,} at once" if each > 1 else "one learned address", learning, count * each
        )

    def close(self) -> None:
        self.enforcer.close()
        os.close(self._namespace)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds = 3 if parser.parse_args().quick else 15
    sides = [Side(*kind) for kind in KINDS]
    small, large = [ruleset(1000, 200, n) for n in (0, 1)], ruleset(100_000, 0, 0)
    for number in range(rounds):
        for side in sides:
            side.time("lock", lambda side=side: side.enforcer.attach(ATTACHMENT, None))
            side.apply("1,000 + 200 ranges, first time", small[0])
            side.apply("1,000 + 200 ranges, replace", small[1])
            side.apply("1,000 + 200 ranges, unchanged", small[1])
            side.learn(200, 1, number * 2000)
            side.learn(1, 1000, number * 2000 + 500)
            side.time("ask for drift", side.enforcer.drifted)
            side.time("detach", lambda side=side: side.enforcer.detach(ATTACHMENT.id))
    for side in sides:
        side.apply("100,000 ranges", large)
    rows = []
    for what in sides[0].took:
        medians = [median(side.took[what]) for side in sides]
        rows.append([what, *(ms(value) for value in medians), f"{medians[1] / medians[0]:.1f}"])
    show("Backends (milliseconds)", ["", *(side.name for side in sides), "ratio of the first two"], rows)
    for side in sides:
        side.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
