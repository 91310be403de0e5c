"""The Docker host of the session, as the instance tests see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from instancing import Machine, World
from support.machine import DockerLab

from sidecars.engine import Engine


@pytest.fixture(scope="session")
def machine(docker_machine: DockerLab) -> Iterator[Machine]:
    """Shared with every other test of the session that needs a whole Docker host."""
    with Engine(docker_machine.host.url) as engine:
        yield Machine(docker_machine.lab, docker_machine.host, engine)


@pytest.fixture
def world(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A project of this test's own; whatever of it is left afterwards is removed."""
    # The gate's lock is the user's, so all tests of a session share it as all programs of a user do.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = World.create(machine, tmp_path)
    yield made
    made.clear()
