"""Fixtures: workloads of the lab behind an enforcer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from knocking import Guarded

from netpolicy.kernel.ipset import IpsetEnforcer
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def guard(lab: Lab) -> Iterator[Callable[..., Guarded]]:
    """Makes guarded workloads: installed with the prefix ``csp-``, not attached yet."""
    made: list[Guarded] = []
    enforcers: dict[str, NftablesEnforcer] = {}

    def make(interface: str | None = None, *, table: str = "netpolicy", install: bool = True) -> Guarded:
        box = lab.add_workload(interface or f"csp-{secrets.token_hex(4)}")
        enforcer = enforcers.setdefault(table, NftablesEnforcer(table, lab.host.name))  # as one gate serves them all
        found = Guarded(lab, box, enforcer, box.attachment())
        made.append(found)
        if install:
            enforcer.install("csp-")
        return found

    yield make
    for one in made:
        one.close()


@pytest.fixture
def guarded(guard: Callable[..., Guarded]) -> Guarded:
    """A workload that is attached (locked)."""
    one = guard()
    one.enforcer.attach(one.attachment, None)
    return one


@pytest.fixture(params=["nft", "legacy"])
def sort(request: pytest.FixtureRequest) -> str:
    """The two sorts of iptables."""
    return str(request.param)


@pytest.fixture
def walling(lab: Lab, sort: str) -> Iterator[Callable[..., Guarded]]:
    """Makes workloads guarded by ipset and iptables: installed with the prefix ``csp-``, not attached yet."""
    made: list[Guarded] = []
    if sort == "legacy":
        lab.host.run(["iptables-legacy", "--list"])  # a host that has its rules there
    enforcer = IpsetEnforcer("netpolicy", lab.host.name)

    def make(interface: str | None = None) -> Guarded:
        box = lab.add_workload(interface or f"csp-{secrets.token_hex(4)}")
        found = Guarded(lab, box, enforcer, box.attachment())
        made.append(found)
        if len(made) == 1:
            enforcer.install("csp-")
        return found

    yield make
    for one in made:
        one.close()


@pytest.fixture
def walled(walling: Callable[..., Guarded]) -> Guarded:
    """A workload that is attached (locked)."""
    one = walling()
    one.enforcer.attach(one.attachment, None)
    return one
