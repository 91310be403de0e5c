"""What the tests of the surfaces share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.claude.fake_service import FakeService

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
    return Desk(service, worker=(sys.executable, str(SCRIPTS / "fake_worker.py"), str(service.directory)))
