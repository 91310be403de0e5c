"""An MCP server as a process, spoken to in bare JSON lines, so that a test sees exactly what crosses the wire."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

#: Longer than anything here may take, in seconds; a test that needs it has failed.
PATIENCE = 30.0


class RawServer:
    """A server's standard streams. Use as a context manager: the process is gone afterwards."""

    def __init__(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in argv], cwd=cwd, env=env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.stderr = b""
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._ids = count(1)
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()

    def send_line(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, params: dict[str, Any] | None = None, *, modern: bool = False) -> int:
        """Send a request; returns its id."""
        number = next(self._ids)
        params = dict(params or {})
        if modern:
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "0"},
                "io.modelcontextprotocol/clientCapabilities": {},
                **params.get("_meta", {}),
            }
        self.send_line(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())
        return number

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        self.send_line(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """The next message. Raises queue.Empty at the deadline, ValueError for a line that is not JSON."""
        message: dict[str, Any] = json.loads(self._lines.get(timeout=PATIENCE))
        return message

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to a request; what arrives before it is dropped."""
        while (message := self.receive()).get("id") != number:
            pass
        return message

    def call(self, tool: str, arguments: dict[str, Any], *, modern: bool = False) -> dict[str, Any]:
        """Call a tool and return its result."""
        result: dict[str, Any] = self.answer(
            self.send("tools/call", {"name": tool, "arguments": arguments}, modern=modern)
        )["result"]
        return result

    def initialize(self) -> dict[str, Any]:
        """The handshake of the 2025 era."""
        result: dict[str, Any] = self.answer(
            self.send(
                "initialize",
                {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}},
            )
        )["result"]
        self.notify("notifications/initialized")
        return result

    def rest(self) -> list[dict[str, Any]]:
        """What is left after the process has ended."""
        self._readers[0].join(PATIENCE)
        return [json.loads(self._lines.get_nowait()) for _ in range(self._lines.qsize())]

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        with suppress(BrokenPipeError):
            self.end_input()
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
