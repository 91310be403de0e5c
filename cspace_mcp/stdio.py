"""Serving one client over standard input and output, and leaving at once when it is over.

The SDK cannot interrupt its thread that reads standard input: after SIGINT it would hang, on SIGTERM it would die without
clean-up (python-sdk#3551). So a signal cancels the server, the desk's clean-up runs, and the process leaves by `os._exit`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import NoReturn

import anyio
from mcp.server import MCPServer

from cspace_mcp.tools.desk import Desk

#: How long the clean-up may take, in seconds. Clients kill us about half a second after SIGTERM.
_LEAVE_SECONDS = 0.4


def serve(server: MCPServer[Desk], desk: Desk) -> NoReturn:
    """Serve until end-of-file, SIGINT or SIGTERM; then end the process with status 0."""
    anyio.run(_serve, server, desk)
    # End-of-file. Threads of abandoned calls may still run; they must not hold us.
    _leave()


async def _serve(server: MCPServer[Desk], desk: Desk) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_end_on_signal, group.cancel_scope, desk)
        await server.run_stdio_async()
        group.cancel_scope.cancel()


async def _end_on_signal(scope: anyio.CancelScope, desk: Desk) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            with anyio.move_on_after(_LEAVE_SECONDS, shield=True):
                await desk.closed.wait()
            _leave()


def _leave() -> NoReturn:
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)
