"""How long work reports itself: a stream of steps to whoever started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is being done now."""

    phase: str
    """Stable word for programs, e.g. ``image``, ``network``, ``verify``."""
    message: str
    """For people, e.g. ``building cspace-instance: step 4/11``."""
    fraction: float | None = None
    """How much of the whole is done, 0 to 1, where known."""
    seconds: float | None = None
    """Set on repetitions of the same message, which are signs of life: how long it has been going on."""


#: Called for each step, in the thread that works. It may raise to cancel: the work is then undone.
Reporter = Callable[[Step], None]


def silent(_step: Step) -> None:
    """A reporter for callers that do not listen."""
