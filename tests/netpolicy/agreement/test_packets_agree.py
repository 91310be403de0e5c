"""What `decide` says is what a packet meets: random policies and flows, on every backend, at both hooks, in both families.

Each example puts rulesets in force, one over the other, and sends a batch of packets each time; where each packet
arrives (the internet, the host, the workload itself, the gate's port, nowhere) must be what the verdict on its flow says.
NETPOLICY_AGREEMENT_EXAMPLES sets how many examples each combination tries of each path of modes, and
NETPOLICY_AGREEMENT_SHRINK makes a failing example smaller.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence

import pytest
from bed import DNS_PORT, Bed, extra_addresses
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from universe import Step, placed, remembered, steps

from netpolicy.clock import SystemClock
from netpolicy.decide import decide
from netpolicy.flow import Address
from netpolicy.kernel.backends import Backend
from netpolicy.ruleset import Learned, Mode

pytestmark = pytest.mark.kernel

#: How many examples of each path; an apply of ipset runs three programs.
FEW = {"nftables": 12, "ipset": 6}
MOMENT = SystemClock().now()
SERIAL = itertools.count()


PATHS: tuple[tuple[Mode, ...], ...] = (
    ("enforce",),
    ("enforce", "enforce"),
    ("observe", "enforce"),
    ("enforce", "observe"),
    ("enforce", "off", "enforce"),
)


@pytest.mark.requirement("F1")
def test_packets_meet_what_decide_says(place: Bed, backend: Backend) -> None:
    examples = int(os.environ.get("NETPOLICY_AGREEMENT_EXAMPLES", FEW[backend]))
    seen: Counter[str] = Counter()

    def try_out(sequence: Sequence[Step]) -> None:
        serial = next(SERIAL)
        known: frozenset[tuple[str, Address]] = frozenset()
        for step in sequence:
            found = placed(step, serial)
            rules = found.ruleset.at(MOMENT)
            place.enforcer.apply(place.attachment, rules, DNS_PORT)
            new = [Learned(name, address, rules.services_of(name), 3600) for name, address in found.answers]
            place.enforcer.learn(place.attachment.id, new)
            known, learned = remembered(rules, known, found.answers)
            for flow, arrived in zip(found.flows, place.send(found.flows), strict=True):
                verdict = decide(rules, flow, learned, attachment=place.attachment)
                wanted = place.expected(flow, allowed=verdict.allowed)
                assert arrived == wanted, f"{flow}: {verdict}, learned {learned}, in {rules}"
                seen[f"{verdict.layer} {'allowed' if verdict.allowed else 'denied'}"] += 1

    for path in PATHS:
        one = st.tuples(*(steps(place.version, mode, extra_addresses(place), MOMENT) for mode in path))
        run = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            # Making a failing example smaller takes minutes, as each attempt is an apply.
            phases=(Phase.generate, Phase.shrink) if "NETPOLICY_AGREEMENT_SHRINK" in os.environ else (Phase.generate,),
        )
        run(given(one)(try_out))()
    for kind in ("address allowed", "address denied", "local allowed", "observe allowed", "off allowed"):
        assert seen[kind], f"no flow was {kind}: {seen}"
