"""What the tests of the surfaces share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkouts import Checkout
from support.claude.fake_service import FakeService
from support.machine import DockerLab

from cspace_mcp.tools.desk import Desk

SCRIPTS = Path(__file__).parent.parent / "support" / "claude"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(tmp_path)


@pytest.fixture
def desk(service: FakeService) -> Desk:
    return Desk(lambda: service, worker=(sys.executable, str(SCRIPTS / "fake_worker.py"), str(service.directory)))


@pytest.fixture
def checkout(docker_machine: DockerLab, tmp_path: Path) -> Iterator[Checkout]:
    """A repository of this test's own, whose instances are gone afterwards."""
    made = Checkout.create(docker_machine, tmp_path)
    yield made
    made.clear()
