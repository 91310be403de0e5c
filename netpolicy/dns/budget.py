"""How many new names a workload may ask for below wildcards. Pure; times are `Clock.monotonic` seconds.

Every name below a wildcard goes to an upstream resolver and on to whoever serves the zone, so its labels can carry data out. A
program needs few names; a tunnel needs thousands. So a name that has not resolved before costs one of a budget that fills slowly.

Which of the known names is asked for tells something as well, as often as it is asked upstream: a zone whose answers must not be
kept would hear of each question. So these are counted, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from netpolicy.dns import wire

#: New names at once, and how many more each minute.
BURST, A_MINUTE = 100, 30
#: Further questions for names that are known, beyond what can be answered from memory: at once, and how many more each minute.
REPEATS, REPEATS_A_MINUTE = 600, 600
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


class _Bucket:
    """So many at once, and so many more each minute."""

    def __init__(self, most: int, a_minute: int) -> None:
        self._most, self._a_second = float(most), a_minute / 60
        self._left, self._at = self._most, 0.0

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        self._left = min(self._most, self._left + (now - self._at) * self._a_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Budget:
    """The budget of one attachment."""

    def __init__(self) -> None:
        self._new = _Bucket(BURST, A_MINUTE)
        self._repeats = _Bucket(REPEATS, REPEATS_A_MINUTE)
        self._known: dict[bytes, float] = {}

    def spend(self, name: bytes, under: str, now: float) -> Excess | None:
        """Pay for asking a name.

        Args:
            name: In canonical wire form.
            under: What the wildcard stands below.
            now: The time.

        Returns:
            None where it may be asked: it is known and was not asked too often, or it is paid for now.
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
            if self._repeats.take(now):
                return None
            limit = f"{REPEATS} at once, then {REPEATS_A_MINUTE} a minute"
            text = f"too many questions for names below {under} whose answers cannot be kept: {limit}; ask again later"
            return Excess(wire.REFUSED, text)
        if not self._new.take(now):
            text = f"too many new names below {under}: {BURST} at once, then {A_MINUTE} a minute; ask again later, or name it itself"
            return Excess(wire.REFUSED, text)
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
