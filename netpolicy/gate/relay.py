"""Copy standard input and output to and from the gate's socket, so that a ``docker exec -i`` stream can carry its protocol.

Imports next to nothing: a client waits for this to start.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from contextlib import suppress

from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit

_CHUNK = 65536
#: While the gate is starting its socket does not exist, or nobody has called listen() on it yet.
_NOT_YET = frozenset({errno.ENOENT, errno.ECONNREFUSED})


def relay(path: str, *, stdin: int = 0, stdout: int = 1, wait: float = 0.0, clock: Clock | None = None) -> int:
    """Copy until the gate hangs up; returns the exit status.

    Args:
        path: The gate's unix socket.
        stdin: Descriptor that requests come from; at its end the gate is told that nothing more follows.
        stdout: Descriptor that responses go to.
        wait: Seconds to wait for a gate that is still starting.
        clock: The time.

    Where no gate answers, one response line of the gate's protocol says so (``gate-unreachable``), since whoever reads `stdout`
    speaks that protocol.
    """
    try:
        gate = _connect(path, wait, clock or SystemClock())
    except OSError as error:
        reason = f"no gate is listening at {path}: {error.strerror or error}"
        body = {"code": "gate-unreachable", "message": reason, "exit_status": Exit.MISSING}
        _write_all(stdout, json.dumps({"ok": False, "error": body}).encode() + b"\n")
        return Exit.MISSING
    with gate, suppress(BrokenPipeError, ConnectionResetError):
        _copy(gate, stdin, stdout)
    return Exit.OK


def _connect(path: str, wait: float, clock: Clock) -> socket.socket:
    deadline = clock.monotonic() + wait
    while True:
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            gate.connect(path)
        except OSError as error:
            gate.close()
            if error.errno not in _NOT_YET or clock.monotonic() >= deadline:
                raise
            select.select([], [], [], 0.02)
        else:
            return gate


def _copy(gate: socket.socket, stdin: int, stdout: int) -> None:
    reading: list[int] = [gate.fileno(), stdin]
    while True:
        ready, _, _ = select.select(reading, [], [])
        if stdin in ready:
            data = os.read(stdin, _CHUNK)
            if data:
                gate.sendall(data)
            else:
                reading.remove(stdin)
                gate.shutdown(socket.SHUT_WR)
        if gate.fileno() in ready:
            data = gate.recv(_CHUNK)
            if not data:
                return
            _write_all(stdout, data)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
