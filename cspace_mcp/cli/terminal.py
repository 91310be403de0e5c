"""Our terminal, or our plain streams, joined to a command in an instance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from netpolicy.errors import Exit

if TYPE_CHECKING:
    from sidecars.engine import ExecStream


class Opener(Protocol):
    """The part of the service that is needed here."""

    def open(
        self, name: str, command: Sequence[str], *, terminal: tuple[int, int] | None
    ) -> AbstractContextManager[ExecStream]:
        """Start a command in an instance; `terminal` gives it one of that many columns and rows."""


def interactive() -> bool:
    """Whether a person sits at both ends of us."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def attach(service: Opener, name: str, command: Sequence[str]) -> int:
    """Run a command with our terminal where we have one, else with our plain streams; returns its exit status."""
    from sidecars.engine.terminal import join, size

    terminal = size(sys.stdin.fileno()) if interactive() else None
    with service.open(name, command, terminal=terminal) as stream:
        # No keys to detach by: there is nothing that could attach again, and a shell needs Ctrl-P for itself.
        status = join(stream, keys=b"")
    return Exit.FAILED if status is None else status
