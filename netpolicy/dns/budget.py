"""How many new names a workload may ask for below wildcards. Pure; times are `Clock.monotonic` seconds.

Every name below a wildcard goes to an upstream resolver and on to whoever serves the zone, so its labels can carry data out. A
program needs few names; a tunnel needs thousands. So a name that has not resolved before costs one of a budget that fills slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from netpolicy.dns import wire

#: New names at once, and how many more each minute.
BURST, A_MINUTE = 100, 30
#: Characters and labels that a name may have below the wildcard.
MOST_CHARACTERS, MOST_LABELS = 63, 4

#: Seconds for which a name that was paid for may be asked again (its other type, a repetition) before it has resolved.
_PAID = 60.0
#: Names remembered as known, those asked for longest ago forgotten first.
_MOST_KNOWN = 4096
_ORDINARY = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a name is not asked for."""

    rcode: int
    text: str


class Budget:
    """The budget of one attachment."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at = 0.0
        self._known: dict[bytes, float] = {}

    def spend(self, name: bytes, under: str, now: float) -> Excess | None:
        """Pay for asking a name.

        Args:
            name: In canonical wire form.
            under: What the wildcard stands below.
            now: The time.

        Returns:
            None where it may be asked: it is known, or paid for now.
        """
        if not _fits(name[: len(name) - len(under) - 2]):
            text = (
                f"of {wire.name_to_text(name)} only {MOST_LABELS} labels of letters, digits and hyphens with "
                f"{MOST_CHARACTERS} characters altogether may stand below {under}; to have it, name it itself"
            )
            return Excess(wire.NXDOMAIN, text)
        until = self._known.pop(name, -math.inf)
        if until > now:
            self._known[name] = until
            return None
        self._left = min(float(BURST), self._left + (now - self._at) * A_MINUTE / 60)
        self._at = now
        if self._left < 1:
            text = f"too many new names below {under}: {BURST} at once, then {A_MINUTE} a minute; ask again later, or name it itself"
            return Excess(wire.REFUSED, text)
        self._left -= 1
        self._note(name, now + _PAID)
        return None

    def resolved(self, name: bytes) -> None:
        """The name has an address: from now on it is free."""
        self._known.pop(name, None)
        self._note(name, math.inf)

    def _note(self, name: bytes, until: float) -> None:
        self._known[name] = until
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]


def _fits(part: bytes) -> bool:
    """Whether the labels below a wildcard, in wire form without the root, are few, short and ordinary."""
    labels, at = 0, 0
    while at < len(part):
        end = at + 1 + part[at]
        if not _ORDINARY.issuperset(part[at + 1 : end]):
            return False
        labels, at = labels + 1, end
    return labels <= MOST_LABELS and len(part) - 1 <= MOST_CHARACTERS
