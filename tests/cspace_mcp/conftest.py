"""What the tests of the surfaces share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
for path in (TESTS, TESTS / "support" / "claude"):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

from fake_service import FakeService  # noqa: E402

from cspace_mcp.tools.desk import Desk  # noqa: E402

FAKE_WORKER = TESTS / "support" / "claude" / "fake_worker.py"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(tmp_path)


@pytest.fixture
def desk(service: FakeService) -> Desk:
    return Desk(service, worker=(sys.executable, str(FAKE_WORKER), str(service.directory)))
