"""The one door to time, so that tests can hold it still."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What code that depends on time takes as a parameter."""

    def monotonic(self) -> float:
        """Seconds that only grow; for lifetimes and deadlines."""

    def now(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z; for records."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def now(self) -> float:
        """See `Clock`."""
        return time.time()
