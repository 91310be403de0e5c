"""One Docker host of its own for all instance tests of a session: a dockerd in a lab, with both images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from instancing import Machine, World
from support.docker_host import docker_host

from netpolicy.lab import Lab
from sidecars import images
from sidecars.engine import Engine
from sidecars.install import ensure_engine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The images come from the machine's own engine, which builds them where they are missing or out of date."""
    with ensure_engine().engine as own:
        images.ensure_all(own)
    names = (images.INSTANCE.name, images.GATE.name)
    with Lab() as lab, docker_host(lab, images=names) as host, Engine(host.url) as engine:
        for name in ("example.com", "api.github.com"):
            lab.site(name)
        yield Machine(lab, host, engine)


@pytest.fixture
def world(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A project of this test's own; whatever of it is left afterwards is removed."""
    # The gate's lock is the user's, so all tests of a session share it as all programs of a user do.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = World.create(machine, tmp_path)
    yield made
    made.clear()
