"""`netpolicy.decide` against 1,000 rules, beside a plain scan over the same rules, rule after rule.

600 rules are for names (60 of them wildcards, 100 denials), 400 for networks of both families (100 denials). Every flow is another
one, half of them to names. Both judge in turns, in one run, and agree on every flow. Usage: decide.py [--rounds N] [--flows N]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from statistics import median

from _table import ms, show

from netpolicy import decide
from netpolicy.flow import Flow, Origin
from netpolicy.patterns import covers
from netpolicy.ruleset import NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service

WEB = (Service(6, 80, 80), Service(6, 443, 443))
SERVICES = (WEB, WEB[1:], (Service(6, 22, 22), *WEB), (Service(6, 8000, 8010), Service(17, 443, 443)))
PORTS = (443, 443, 443, 443, 80, 22)
#: The scan is slow; of this many flows one is measured.
EVERY_NTH = 20


def policy(chance: random.Random) -> Ruleset:
    """1,000 rules."""

    def origin(number: int) -> Origin:
        return Origin("bench.json", f"rules[{number}]", "a rule")

    names = [f"*.zone{n}.example.org" if n % 10 == 0 else f"host{n}.example.com" for n in range(500)]
    denied = [
        name.replace("*", "internal") if n % 2 else f"tracker{n}.example.net" for n, name in enumerate(names[::5])
    ]
    bases = [chance.getrandbits(32) >> 8 << 8 for _ in range(200)]
    networks = [ip_network((base & 0x3FFFFFFF | 1 << 31, 24)) for base in bases]
    networks += [ip_network(((0x20010DB8 << 96) | (chance.getrandbits(32) << 64), 64)) for _ in range(100)]
    holes = [next(network.subnets(prefixlen_diff=2)) for network in networks[::3]]
    return Ruleset(
        "bench.json",
        names=tuple(NameRule(name, chance.choice(SERVICES), origin(n)) for n, name in enumerate(names)),
        ranges=tuple(RangeRule(network, chance.choice(SERVICES), origin(n)) for n, network in enumerate(networks)),
        denied_names=tuple(NameRule(name, chance.choice((EVERY, WEB)), origin(n)) for n, name in enumerate(denied)),
        denied_ranges=tuple(RangeRule(network, EVERY, origin(n)) for n, network in enumerate(holes)),
    )


def flows(ruleset: Ruleset, chance: random.Random, many: int) -> list[Flow]:
    """Different ones: to names and addresses that rules allow, that they deny, and that none of them knows."""

    def made() -> Iterator[Flow]:
        while True:
            port, kind = chance.choice(PORTS), chance.random()
            if kind < 0.4:
                rule = chance.choice(ruleset.names)
                yield Flow(6, port, rule.name.replace("*", f"host{chance.getrandbits(30)}"))
            elif kind < 0.5:
                yield Flow(6, port, f"host{chance.getrandbits(30)}.zone{chance.randrange(1000)}.example.org")
            elif kind < 0.92:
                network = chance.choice(ruleset.ranges).network
                yield Flow(6, port, address=network[chance.randrange(256)])
            elif kind < 0.97:
                yield Flow(6, port, address=IPv4Address(chance.getrandbits(32)))
            else:
                yield Flow(6, port, address=IPv6Address((0x20010DB8 << 96) | chance.getrandbits(96)))

    found: dict[Flow, None] = {}
    for flow in made():
        found[flow] = None
        if len(found) == many:
            break
    return list(found)


def scan(ruleset: Ruleset, flow: Flow) -> bool:
    """The same judgement in the obvious way, for flows that leave the workload's own link."""
    address = flow.address
    if address is not None and (address.is_loopback or address.is_unspecified):
        return True
    if address is not None and (address.is_multicast or address.is_link_local or int(address) >> 24 == 0):
        return False

    def serves(rule: NameRule | RangeRule) -> bool:
        return any(service.covers(flow.protocol, flow.port) for service in rule.services)

    if flow.name is not None:
        named = [covers(rule.name, flow.name) and serves(rule) for rule in ruleset.denied_names]
        return not any(named) and any(covers(rule.name, flow.name) and serves(rule) for rule in ruleset.names)
    if any(address in rule.network and serves(rule) for rule in ruleset.denied_ranges):
        return False
    return any(address in rule.network and serves(rule) for rule in ruleset.ranges)


def judged(ruleset: Ruleset, flow: Flow) -> bool:
    return decide(ruleset, flow).allowed


def told(ruleset: Ruleset, flow: Flow) -> bool:
    verdict = decide(ruleset, flow)
    return verdict.allowed and bool(verdict.explanation)


def seconds(judge: Callable[[Ruleset, Flow], bool], ruleset: Ruleset, asked: Sequence[Flow]) -> float:
    """Seconds of processor time a flow: judging waits for nothing, and other programs do not count."""
    begun = time.process_time()
    for flow in asked:
        judge(ruleset, flow)
    return (time.process_time() - begun) / len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--flows", type=int, default=40_000)
    args = parser.parse_args()
    chance = random.Random(1)
    ruleset = policy(chance)
    rules = len(ruleset.names) + len(ruleset.ranges) + len(ruleset.denied_names) + len(ruleset.denied_ranges)
    assert rules == 1000
    asked = flows(ruleset, chance, args.flows)
    begun = time.process_time()
    assert ruleset.places is not None
    indexed = time.process_time() - begun
    some = asked[::EVERY_NTH]
    assert all(scan(ruleset, flow) == judged(ruleset, flow) for flow in some)
    share = sum(judged(ruleset, flow) for flow in asked) / len(asked)

    ways: dict[str, tuple[Callable[[Ruleset, Flow], bool], Sequence[Flow]]] = {
        "decide": (judged, asked),
        "  names": (judged, [flow for flow in asked if flow.name is not None]),
        "  addresses": (judged, [flow for flow in asked if flow.address is not None]),
        "  with the explanation read": (told, asked),
        "rule after rule": (scan, some),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (judge, chosen) in ways.items():
            found[name].append(seconds(judge, ruleset, chosen))
    rows = [
        [name, f"{median(times) * 1e6:,.2f}", f"{1 / median(times):,.0f}",
         f"{median(mine / theirs for mine, theirs in zip(found['rule after rule'], times, strict=True)):,.1f}x"]
        for name, times in found.items()
    ]  # fmt: skip
    show(
        f"judging flows against {rules:,} rules",
        ["how", "us a flow", "flows a second", "as quick as rule after rule"],
        rows,
        f"medians of {args.rounds} rounds of {len(asked):,} different flows, {share:.0%} of them allowed; medians of the rounds' ratios; processor time",
        f"the index is made once for a ruleset: {ms(indexed)} ms",
    )


if __name__ == "__main__":
    main()
