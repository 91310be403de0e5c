"""Fixtures of the gate's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gatekit import RecordingEnforcer
from gateworld import World

from netpolicy.clock import Clock
from netpolicy.dns.servers import ServerList
from netpolicy.gate.core import Gate
from netpolicy.gate.state import StateStore
from netpolicy.lab import Lab


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def enforcer() -> RecordingEnforcer:
    return RecordingEnforcer()


@pytest.fixture
def gate(enforcer: RecordingEnforcer, tmp_path: Path) -> Callable[..., Gate]:
    """Makes gates (not started) that share the enforcer and the state directory; without upstreams, names stay unresolved."""

    def make(
        *, upstreams: ServerList = lambda: (), prefix: str | None = "lo", clock: Clock | None = None, **more: Any
    ) -> Gate:
        store = StateStore(tmp_path / "state")
        return Gate(enforcer, prefix=prefix, upstreams=upstreams, store=store, clock=clock, version="test", **more)

    return make


@pytest.fixture
def world(lab: Lab) -> Iterator[World]:
    made = World(lab)
    yield made
    made.client.close()


@pytest.fixture(params=["nftables", "ipset"])
def either(request: pytest.FixtureRequest, lab: Lab) -> Iterator[World]:
    """A world with each backend."""
    made = World(lab, "--backend", request.param)
    assert made.client.hello().backend == request.param
    yield made
    made.client.close()
