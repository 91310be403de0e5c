"""Progress for people, on a stream that is not the answer's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from netpolicy.clock import Clock, SystemClock
from sidecars.progress import Reporter, Step

#: A log file gets a line a phase, and one now and then within a long phase; seconds between those.
_PATIENCE = 5.0
#: A living line is drawn at most this often; seconds between two drawings.
_DRAW = 0.05
_ERASE = "\r\x1b[K"


def lines(stream: TextIO, clock: Clock | None = None) -> Reporter:
    """One plain line for each phase, and for what is new in a long one."""
    clock = clock or SystemClock()
    phase: str | None = None
    text: str | None = None
    said = 0.0

    def report(step: Step) -> None:
        nonlocal phase, text, said
        now = clock.monotonic()
        if step.message == text or (step.phase == phase and now - said < _PATIENCE):
            return
        phase, text, said = step.phase, step.message, now
        print(f"{_share(step)}{step.message}", file=stream, flush=True)

    return report


@contextmanager
def live(stream: TextIO, clock: Clock | None = None) -> Iterator[Reporter]:
    """One line that changes in place; at the end of a phase it stays, with the time the phase took."""
    clock = clock or SystemClock()
    begun = drawn = clock.monotonic()
    last: Step | None = None

    def keep() -> None:
        if last is not None:
            stream.write(f"{_ERASE}{_fit(last.message, 8)} {clock.monotonic() - begun:5.1f} s\n")

    def report(step: Step) -> None:
        nonlocal begun, drawn, last
        now = clock.monotonic()
        if last is None or step.phase != last.phase:
            keep()
            begun = now
        elif now - drawn < _DRAW:
            last = step
            return
        last, drawn = step, now
        going = "" if step.seconds is None else f" {step.seconds:.0f} s"
        stream.write(f"{_ERASE}{_fit(_share(step) + step.message, len(going))}{going}")
        stream.flush()

    whole = False
    try:
        yield report
        whole = True
    finally:
        if whole:
            keep()
        elif last is not None:
            # What failed stays to be read, above the error.
            stream.write(f"{_ERASE}{_fit(last.message, 0)}\n")
        stream.flush()


def _share(step: Step) -> str:
    return "" if step.fraction is None else f"{100 * min(1.0, max(0.0, step.fraction)):3.0f} % "


def _fit(text: str, reserved: int) -> str:
    """The text in what is left of one line of the terminal, so that erasing the line erases all of it."""
    room = max(20, shutil.get_terminal_size().columns - 1 - reserved)
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain if len(plain) <= room else f"{plain[: room - 1]}…"
