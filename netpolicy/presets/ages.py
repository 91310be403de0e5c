"""How old the copy of a provider's list is, and whether that is to be said. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netpolicy.presets import SHIPPED, Preset

_DAY = 86400
#: From then on a fetched copy is said to be old.
OLD_DAYS = 30


def days(preset: Preset, now: float) -> int | None:
    """The age of its provider's list, in whole days; None where no networks come from one."""
    return None if preset.ranges_at is None else int((now - preset.ranges_at) // _DAY)


def told(preset: Preset, now: float) -> str:
    """The date and age of a provider's list, such as ``2026-08-08, 105 days old, as shipped with the package``."""
    age = days(preset, now)
    where = ", as shipped with the package" if preset.ranges_from == SHIPPED else ""
    return f"{preset.ranges_date}, {age} day{'' if age == 1 else 's'} old{where}"


def stale(preset: Preset, now: float | None) -> Iterator[str]:
    """What is wrong with its copies, and that the one in use is a shipped or an old one. Without `now` nothing has an age."""
    yield from (f"{preset.file}: {note}" for note in preset.notes)
    age = None if now is None else days(preset, now)
    if now is not None and age is not None and (preset.ranges_from == SHIPPED or age > OLD_DAYS):
        yield f"{preset.file}: its networks are those of {told(preset, now)}; netpolicy presets refresh {preset.name} fetches them"
