"""Our terminal, or our plain streams, connected to a process in an instance."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Protocol


class Stream(Protocol):
    """The far end; `sidecars.engine.ExecStream` is one."""

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(1 for standard output or 2 for standard error, bytes), to the end."""

    def write(self, data: bytes) -> None:
        """To its standard input."""

    def end_input(self) -> None:
        """End-of-file on its standard input."""

    def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal."""

    def status(self) -> int | None:
        """Its exit status, None while it runs."""


class Opener(Protocol):
    """The part of the service that is needed here."""

    def open(
        self, name: str, command: Sequence[str], *, terminal: tuple[int, int] | None
    ) -> AbstractContextManager[Stream]:
        """Start a command in an instance; `terminal` gives it one of that size."""


def interactive() -> bool:
    """Whether a person sits at both ends of us."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def size() -> tuple[int, int]:
    """Columns and rows of our terminal."""
    found = shutil.get_terminal_size()
    return found.columns, found.lines


def attach(service: Opener, name: str, command: Sequence[str]) -> int:
    """Run a command in an instance with our terminal, or our plain streams; returns its exit status."""
    both = interactive()
    with service.open(name, command, terminal=size() if both else None) as stream:
        return connect(stream, terminal=both)


def connect(stream: Stream, *, terminal: bool) -> int:
    """Pass everything both ways until the far end has ended; returns its exit status.

    Args:
        stream: The far end.
        terminal: It has a terminal, and so do we: keys go through as they are typed, Ctrl-C too.
    """
    with _raw(stream) if terminal else _nothing():
        stop_read, stop_write = os.pipe()
        sender = threading.Thread(target=_send, args=(stream, stop_read), daemon=True)
        sender.start()
        try:
            for number, data in stream.frames():
                _write_all(2 if number == 2 else 1, data)
        finally:
            os.close(stop_write)
            sender.join()
            os.close(stop_read)
    status = stream.status()
    return 0 if status is None else status


def _send(stream: Stream, stop: int) -> None:
    # The far end may end first, or close its input; neither is an error of ours.
    with suppress(OSError):
        while True:
            ready, _, _ = select.select([0, stop], [], [])
            if stop in ready:
                return
            data = os.read(0, 65536)
            if not data:
                stream.end_input()
                return
            stream.write(data)


def _write_all(number: int, data: bytes) -> None:
    while data:
        data = data[os.write(number, data) :]


@contextmanager
def _raw(stream: Stream) -> Iterator[None]:
    before = termios.tcgetattr(0)
    previous = signal.signal(signal.SIGWINCH, _resizer(stream))
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, previous)


def _resizer(stream: Stream) -> Callable[[int, FrameType | None], None]:
    def resize(_signal: int, _frame: FrameType | None) -> None:
        stream.resize(*size())

    return resize


@contextmanager
def _nothing() -> Iterator[None]:
    yield
