"""The thread in which the lab's internet lives: one asyncio loop inside the namespace of the internet."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from netpolicy.kernel import netns

Start = Callable[[contextlib.AsyncExitStack], Awaitable[None]]


class Servers:
    """Runs `start` in a thread of its own inside `namespace`, until `stop`."""

    def __init__(self, namespace: str, start: Start) -> None:
        self._ready: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, args=(namespace, start), name="lab", daemon=True)
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """End the servers and the thread."""
        if self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self, namespace: str, start: Start) -> None:
        with contextlib.ExitStack() as stack:
            stack.push(self._report)
            netns.enter(namespace)
            asyncio.run(self._main(start))

    def _report(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        """Hand a failure to start to the thread that waits for the start."""
        if error is None or self._ready.done():
            return False
        self._ready.set_exception(error)
        return True

    async def _main(self, start: Start) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            await start(stack)
            self._ready.set_result(None)
            await self._end.wait()
