"""What the rules of iptables let pass: the tests of nf_tables' verdicts, here with ipset and the older sort of iptables.

The newer sort is met by tests/netpolicy/agreement.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
import test_nft_verdicts
from knocking import Guarded

from netpolicy.kernel.ipset import IpsetEnforcer
from netpolicy.lab import Lab

pytestmark = pytest.mark.kernel
globals().update({name: test for name, test in vars(test_nft_verdicts).items() if name.startswith("test_")})


@pytest.fixture
def guard(lab: Lab) -> Iterator[Callable[..., Guarded]]:
    lab.host.run(["iptables-legacy", "--list"])
    made: list[Guarded] = []
    enforcer = IpsetEnforcer("netpolicy", lab.host.name)

    def make(interface: str | None = None, *, install: bool = True) -> Guarded:
        box = lab.add_workload(interface or f"csp-{secrets.token_hex(4)}")
        made.append(Guarded(lab, box, enforcer, box.attachment()))
        if install:
            enforcer.install("csp-")
        return made[-1]

    yield make
    assert not lab.host.run(["iptables-nft-save"]).text, "control: only the older sort was used"
    for one in made:
        one.close()
