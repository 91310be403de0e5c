"""The one door to other programs. Every failure names the command, its status and what it printed."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import Exit, UserError


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without the last line break."""
        return self.stdout.decode(errors="replace").rstrip("\n")


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    seconds: float | None = 60,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> Completed:
    """Run a program to its end, with no terminal and no inherited standard input.

    Args:
        argv: Program and arguments; never through a shell.
        stdin: What it reads.
        seconds: Deadline; None waits for ever.
        cwd: Working directory.
        env: Variables to add to (or, with an empty value, remove from) our own.
        ok: Exit statuses that are not failures.

    Raises:
        UserError: ``program-missing``, ``program-timeout`` or ``program-failed``, with the output in the details.
    """
    words = tuple(str(word) for word in argv)
    environment = {key: value for key, value in {**os.environ, **(env or {})}.items() if value != ""}
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, timeout=seconds, cwd=cwd, env=environment, check=False
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise UserError("no-directory", f"{cwd} is not a directory", exit_status=Exit.BAD_INPUT) from error
        raise UserError(
            "program-missing", f"the program {words[0]!r} is not installed", exit_status=Exit.MISSING
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError("program-timeout", f"{shlex.join(words)} did not end within {seconds:g} s") from error
    completed = Completed(words, done.returncode, done.stdout, done.stderr)
    if done.returncode not in ok:
        raise failed(completed)
    return completed


def failed(completed: Completed) -> UserError:
    """The error for a program that ended badly: its last words first, the rest in the details."""
    stderr = completed.stderr.decode(errors="replace").strip()
    last = (stderr or completed.text).splitlines()[-1:] or ["it printed nothing"]
    return UserError(
        "program-failed",
        f"{shlex.join(completed.argv)} ended with status {completed.status}: {last[0]}",
        details={"status": completed.status, "stdout": completed.text[-4000:], "stderr": stderr[-4000:]},
    )
