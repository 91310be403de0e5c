"""Fixtures of the tests of the operator's verbs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from operatekit import Operator, bridged

from netpolicy.lab import Lab
from netpolicy.lab.lab import Workload


@pytest.fixture
def operator(lab: Lab) -> Iterator[Operator]:
    """On the host of a lab whose names resolve and whose host translates what it forwards, as Docker's does."""
    lab.site("example.com")
    made = Operator(lab)
    with lab.nat():
        yield made
        made.close()


@pytest.fixture
def box(lab: Lab) -> Workload:
    """A workload behind the bridge ``br-work``, which asks the lab's own resolvers for names."""
    made = bridged(lab, "br-work")
    made.use_resolvers("198.51.100.53")
    return made
