"""Every backend at every hook, in both families: a bed for each combination."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from bed import Bed, bed

from netpolicy.attachment import Enforcer, Hook
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab

BACKENDS: dict[str, Callable[[Namespace], Enforcer]] = {
    "nftables": lambda where: NftablesEnforcer("netpolicy", where),
}
HOOKS: tuple[Hook, ...] = ("forward", "output")


@pytest.fixture(scope="module", params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module", params=HOOKS)
def hook(request: pytest.FixtureRequest) -> Hook:
    found: Hook = request.param
    return found


@pytest.fixture(scope="module", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def place(backend: str, hook: Hook, family: int) -> Iterator[Bed]:
    with Lab() as lab, bed(lab, hook, family, BACKENDS[backend]) as made:
        yield made
