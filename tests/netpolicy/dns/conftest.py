"""Fixtures of the DNS gate's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from upstream import FakeUpstream


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as made:
        yield made


@pytest.fixture
async def second() -> AsyncIterator[FakeUpstream]:
    """Another one, at another address."""
    async with FakeUpstream() as made:
        yield made
