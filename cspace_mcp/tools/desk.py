"""Where the tools' work is done: the server's lifespan object.

Quick calls run in a thread. Calls that make or remove things run in a process of their own (`cspace_mcp.worker`), because a
client may kill a stdio server within half a second, and an undo takes longer: the worker outlives us and finishes it.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from cspace_mcp.results import Destruction, Execution, Instance
from cspace_mcp.service import Service, Spawn
from cspace_mcp.tools.frame import explain
from netpolicy.errors import UserError
from sidecars.progress import Step

T = TypeVar("T")
Report = Callable[[Step], Coroutine[Any, Any, None]]


class Desk:
    """Calls the service on behalf of the tools; every `UserError` becomes a `ToolError`.

    Args:
        service: Makes the service that answers the quick calls; called at the first one, in a thread, because what it imports
            takes longer than a server may take to start.
        worker: The command line of the worker process. Default: our own, over the same service.
    """

    def __init__(self, service: Callable[[], Service], worker: Sequence[str] | None = None) -> None:
        self._service = functools.cache(service)
        self.closed = anyio.Event()
        self._worker = tuple(worker or (sys.executable, "-m", "cspace_mcp.worker"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Desk]:
        """The desk's lifetime. At its end nothing is waited for: workers end by themselves."""
        try:
            yield self
        finally:
            self.closed.set()

    async def quick(self, call: Callable[[Service], T]) -> T:
        """Run a call that changes nothing in a thread; a cancelled one is left to end by itself."""
        try:
            return await anyio.to_thread.run_sync(lambda: call(self._service()), abandon_on_cancel=True)
        except UserError as error:
            raise explain(error) from error

    async def execute(self, name: str, command: Sequence[str], seconds: float) -> Execution:
        """Run a command in an instance; cancelling stops it there too."""
        stop = threading.Event()
        try:
            return await self.quick(lambda service: service.execute(name, command, seconds=seconds, stop=stop))
        finally:
            stop.set()

    async def spawn(self, request: Spawn, report: Report) -> Instance:
        """Make an instance; cancelling undoes it."""
        file = None if request.policy_file is None else str(request.policy_file)
        words = {"name": request.name, "policy_file": file, "new": request.new}
        return Instance.model_validate(await self._work("spawn", words, report))

    async def destroy(self, name: str, *, force: bool, report: Report) -> Destruction:
        """Remove an instance."""
        return Destruction.model_validate(await self._work("destroy", {"name": name, "force": force}, report))

    async def _work(self, op: str, args: dict[str, Any], report: Report) -> Any:
        """Run one call in a worker, to its end or until cancelled."""
        # Not an asyncio subprocess: that is killed when its object goes, and a worker has to outlive us.
        process = subprocess.Popen(self._worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        gone = threading.Event()
        try:
            process.stdin.write(json.dumps({"op": op, "args": args}).encode() + b"\n")
            process.stdin.flush()
            answer = await anyio.to_thread.run_sync(_listen, process, report, gone, abandon_on_cancel=True)
        except BrokenPipeError:
            answer = {}
        finally:
            gone.set()
            # End-of-file is the worker's sign to undo what is unfinished. Nobody waits for that.
            with suppress(BrokenPipeError):
                process.stdin.close()
        if "error" in answer:
            raise explain(UserError(**answer["error"]))
        if "result" not in answer:
            text = (
                "The work ended without an answer. Call instance_list to see what exists; the server's log says more."
            )
            raise ToolError(text)
        return answer["result"]


def _listen(process: subprocess.Popen[bytes], report: Report, gone: threading.Event) -> dict[str, Any]:
    """In a thread: pass steps on while somebody waits for them, and see the worker out in any case."""
    assert process.stdout is not None
    answer: dict[str, Any] = {}
    with process.stdout as lines:
        for line in lines:
            message = json.loads(line)
            if "step" not in message:
                answer = message
            elif not gone.is_set():
                anyio.from_thread.run(report, Step(**message["step"]))
    process.wait()
    return answer


def desk(ctx: Context[Desk, Any]) -> Desk:
    """The desk of the server that a call came to."""
    return ctx.request_context.lifespan_context


def reporter(ctx: Context[Desk, Any]) -> Report:
    """Steps as progress notifications: in hundredths, never falling, whether or not a fraction is known."""
    last = 0.0

    async def report(step: Step) -> None:
        nonlocal last
        # Without a known fraction the number still has to grow; the message is what people read.
        last = max(last + 0.01, min(99.0, 100 * step.fraction) if step.fraction is not None else 0.0)
        await ctx.report_progress(
            last, 100, step.message if step.seconds is None else f"{step.message} ({step.seconds:.0f} s)"
        )

    return report
