"""The other side, seen from here: a place where a program can be run with bytes as its standard input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended in the box."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def last_words(self) -> str:
        """The last line it printed on standard error, or on standard output where that is empty."""
        text = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return text.splitlines()[-1] if text else "it printed nothing"


class Box(Protocol):
    """An instance's container, a helper container over a volume, or (in tests) a folder."""

    def run(self, argv: Sequence[str], stdin: Iterable[bytes] = ()) -> Ended:
        """Run a program to its end as the workspace's owner.

        Raises:
            UserError: the program could not be started, or the box is gone.
        """
