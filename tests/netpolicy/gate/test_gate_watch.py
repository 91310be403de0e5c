"""Links that come and go wake the gate at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from netpolicy.gate.watch import LinkWatch
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
def namespace() -> Iterator[int]:
    made = netns.anonymous()
    yield made
    os.close(made)


async def test_a_link_and_an_address_wake_it(namespace: int) -> None:
    watch = LinkWatch(lambda family, kind: netns.socket_in(namespace, family, kind))
    try:
        with Links(namespace) as links:
            for change in (
                lambda: links.veth("d0", "d1"),
                lambda: links.address("d0", "192.0.2.1/24"),
                lambda: links.address("d0", "2001:db8::1/64"),
                lambda: links.delete("d0"),
            ):
                waiting = asyncio.create_task(watch.changed(600))
                await asyncio.to_thread(change)
                async with asyncio.timeout(5):
                    await waiting
    finally:
        watch.close()


async def test_without_a_change_it_returns_in_time(namespace: int) -> None:
    watch = LinkWatch(lambda family, kind: netns.socket_in(namespace, family, kind))
    async with asyncio.timeout(5):
        await watch.changed(0.01)
    watch.close()
