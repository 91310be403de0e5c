"""A person's terminal joined to a process in a container: raw keys through, size changes followed, a way to let go.

The detach keys are Docker's (ctrl-p ctrl-q): they leave the process running. Without a terminal on our side, streams are copied.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from netpolicy.errors import UserError
from sidecars.engine.streams import STDERR, ExecStream

DETACH_KEYS = b"\x10\x11"
_CHUNK = 65536


def size(descriptor: int) -> tuple[int, int]:
    """Columns and rows of a terminal; 80 by 24 where it does not know."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 80, 24
    return (columns, rows) if columns and rows else (80, 24)


def join(
    stream: ExecStream, *, stdin: int = 0, stdout: int = 1, stderr: int = 2, keys: bytes = DETACH_KEYS
) -> int | None:
    """Copy between our standard streams and the process until it ends; its exit status, None after detaching.

    Args:
        stream: The process; with a terminal of its own exactly when our `stdin` is one.
        stdin: What is typed. It is in raw mode meanwhile, and as before afterwards, whatever happens.
        stdout: Where output goes.
        stderr: Where errors go (a terminal has none apart).
        keys: The sequence that lets go; empty for none. Only looked for on a terminal.
    """
    with _raw(stdin if stream.tty else None), _following(stream, stdin if stream.tty else None):
        detached = _copy(stream, stdin, stdout, stderr, keys if stream.tty else b"")
    return None if detached else stream.status()


def _copy(stream: ExecStream, stdin: int, stdout: int, stderr: int, keys: bytes) -> bool:
    watch = _Watch(keys)
    frames = stream.frames()
    reading: list[int] = [stream.raw.fileno(), stdin]
    while True:
        ready = [stream.raw.fileno()] if stream.raw.pending else select.select(reading, [], [])[0]
        if stdin in ready:
            typed = os.read(stdin, _CHUNK)
            passed, detached = watch.feed(typed)
            # The process may have ended, or have closed its input; its output decides what happens next.
            with suppress(OSError):
                if passed:
                    stream.write(passed)
                if not typed:
                    stream.end_input()
            if detached:
                return True
            if not typed:
                reading.remove(stdin)
        if stream.raw.fileno() in ready:
            frame = next(frames, None)
            if frame is None:
                return False
            _write(stderr if frame[0] == STDERR else stdout, frame[1])


class _Watch:
    """Finds the detach keys in what is typed, also when they come in pieces; they are not passed on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys were complete."""
        if not self._keys:
            return typed, False
        data = self._held + typed
        before, found, _ = data.partition(self._keys)
        if found:
            return before, True
        if not typed:
            self._held = b""
            return data, False
        held = next((n for n in range(len(self._keys) - 1, 0, -1) if data.endswith(self._keys[:n])), 0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held], False


@contextmanager
def _raw(descriptor: int | None) -> Iterator[None]:
    if descriptor is None:
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _following(stream: ExecStream, descriptor: int | None) -> Iterator[None]:
    """Pass changes of our terminal's size on."""
    if descriptor is None:
        yield
        return

    def changed(_signal: int, _frame: FrameType | None) -> None:
        # A size that cannot be told (the process has just ended) is no reason to end a session.
        with suppress(UserError):
            stream.resize(*size(descriptor))

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
