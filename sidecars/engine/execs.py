"""Processes in running containers."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

from docker import utils

from netpolicy.clock import Clock, SystemClock
from netpolicy.command import Completed, failed
from netpolicy.errors import UserError
from sidecars.engine.part import Part
from sidecars.engine.streams import STDOUT, ExecStream, upgrade

_SIZE_ATTEMPTS = 10


class Execs(Part):
    """Run commands in containers."""

    clock: Clock = SystemClock()

    def run(
        self,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        user: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float | None = 60,
        ok: Sequence[int] | None = (0,),
    ) -> Completed:
        """Run a command to its end and keep its output in memory.

        Args:
            container: Name or id.
            argv: Program and arguments; never through a shell.
            stdin: What it reads; None is nothing at all.
            user: ``name``, ``uid`` or ``uid:gid``; None is the container's own.
            cwd: Working directory.
            env: Variables added to the container's.
            seconds: Deadline; None waits for ever. A command that is past it goes on inside the container.
            ok: Exit statuses that are not failures; None takes every one.

        Raises:
            UserError: ``program-failed`` (as `netpolicy.command.run`), ``program-timeout``, ``not-running``, ...
        """
        deadline = None if seconds is None else self.clock.monotonic() + seconds
        out, err = bytearray(), bytearray()
        doing = f"running {argv[0]} in the container {container}"
        with self.open(container, argv, stdin=stdin is not None, user=user, cwd=cwd, env=env) as stream:
            sender = threading.Thread(target=_send, args=(stream, stdin or b""), daemon=True)
            if stdin is not None:
                sender.start()
            frames = stream.frames()
            try:
                while True:
                    if deadline is not None:
                        stream.raw.settimeout(max(0.001, deadline - self.clock.monotonic()))
                    frame = next(frames, None)
                    if frame is None:
                        break
                    (out if frame[0] == STDOUT else err).extend(frame[1])
            except TimeoutError as error:
                raise UserError("program-timeout", f"{doing}: it did not end within {seconds:g} s") from error
            except OSError as error:
                raise UserError("engine-unreachable", f"{doing}: the connection broke: {error}") from error
            status = stream.status()
        completed = Completed(tuple(argv), 0 if status is None else status, bytes(out), bytes(err))
        if ok is not None and completed.status not in ok:
            raise failed(completed)
        return completed

    def open(
        self,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool = True,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """Start a command with its streams attached.

        Args:
            container: Name or id.
            argv: Program and arguments.
            stdin: Whether it can be written to.
            tty: Give it a terminal; output is then one stream.
            size: Columns and rows of that terminal. Engines before API 1.42 set it just after the process has begun, which
                therefore sees none for a moment and then SIGWINCH.
            user: As for `run`.
            cwd: Working directory.
            env: Variables added to the container's.

        Raises:
            UserError: ``container-missing``, ``not-running``, ``command-missing``, ``engine-unreachable``.
        """
        doing = f"running {argv[0]} in the container {container}"
        with self._explained(doing):
            made = self._api.exec_create(
                container, list(argv), stdin=stdin, tty=tty, user=user or "", workdir=cwd,
                environment=dict(env) if env else None,
            )["Id"]  # fmt: skip
            path = f"/v{self._api.api_version}/exec/{made}/start"
            body: dict[str, object] = {"Detach": False, "Tty": tty}
            if tty and size is not None and utils.version_gte(self._api.api_version, "1.42"):
                body["ConsoleSize"] = [size[1], size[0]]
            raw = upgrade(self._engine.address, path, body, 60.0)
        stream = ExecStream(raw, tty=tty, resize=partial(self._resize, made), status=partial(self._status, made, doing))
        if tty and size is not None:
            self._first_size(stream, *size)
        return stream

    def _first_size(self, stream: ExecStream, columns: int, rows: int) -> None:
        """Set the size of a terminal whose process is perhaps just being started, and is "no such exec" until then."""
        for attempt in range(_SIZE_ATTEMPTS):
            try:
                stream.resize(columns, rows)
            except UserError as error:
                # One that has ended already needs no size; and none is worth losing the session for.
                if error.code not in ("exec-missing", "not-running", "engine-refused"):
                    raise
                time.sleep(0.01 * (attempt + 1))
            else:
                return

    def _status(self, exec_id: str, doing: str) -> int | None:
        with self._explained(doing):
            found = self._api.exec_inspect(exec_id).get("ExitCode")
            return None if found is None else int(found)

    def _resize(self, exec_id: str, columns: int, rows: int) -> None:
        with self._explained("resizing the terminal"):
            self._api.exec_resize(exec_id, height=rows, width=columns)


def _send(stream: ExecStream, data: bytes) -> None:
    try:
        stream.write(data)
        stream.end_input()
    except OSError:
        # The process has ended without reading all of it; its status says whether that was right.
        return
