"""Work of which only its duration is known: repeats its step to the reporter once a second, and lets that stop it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace

from netpolicy.clock import Clock, SystemClock
from netpolicy.command import Completed, failed
from netpolicy.errors import UserError
from sidecars.progress import Reporter, Step

BEAT_SECONDS = 1.0


class Watched:
    """A step that is reported when it begins and then once a second."""

    def __init__(self, reporter: Reporter, step: Step, clock: Clock | None = None) -> None:
        self._reporter = reporter
        self._step = step
        self._clock = clock or SystemClock()
        self._began = self._told = self._clock.monotonic()
        reporter(step)

    def beat(self, fraction: float | None = None) -> None:
        """Report again, if a second has passed. Raises whatever the reporter raises to cancel."""
        now = self._clock.monotonic()
        if now - self._told >= BEAT_SECONDS:
            self._told = now
            told = self._step.fraction if fraction is None else fraction
            self._reporter(replace(self._step, fraction=told, seconds=now - self._began))

    def program(self, argv: Sequence[str], *, seconds: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a program to its end, with beats; it is ended when the reporter raises or the time is up.

        Raises:
            UserError: ``program-failed``, ``program-timeout``.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **(env or {})}
            )
            try:
                while True:
                    try:
                        status = process.wait(BEAT_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        self.beat()
                    if self._clock.monotonic() - self._began > seconds:
                        raise UserError("program-timeout", f"{argv[0]} did not end within {seconds:g} s")
            finally:
                _end(process)
            out.seek(0)
            err.seek(0)
            completed = Completed(tuple(argv), status, out.read(), err.read())
        if status != 0:
            raise failed(completed)
        return completed


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    # First politely: programs that have mounted or unpacked something take it away again.
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
