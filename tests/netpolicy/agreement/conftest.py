"""Every backend at every hook, in both families: a bed for each combination."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bed import Bed, bed

from netpolicy.attachment import Hook
from netpolicy.kernel.backends import Backend
from netpolicy.lab import Lab

BACKENDS: tuple[Backend, ...] = ("nftables", "ipset")
HOOKS: tuple[Hook, ...] = ("forward", "output")


@pytest.fixture(scope="module", params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module", params=HOOKS)
def hook(request: pytest.FixtureRequest) -> Hook:
    found: Hook = request.param
    return found


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


@pytest.fixture(scope="module")
def place(backend: Backend, hook: Hook, family: int) -> Iterator[Bed]:
    with Lab() as lab, bed(lab, hook, family, backend) as made:
        yield made
