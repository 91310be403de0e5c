"""Provider lists kept fresh without anybody asking: a short attempt, now and then, before a policy is put in force."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from netpolicy import presets
from netpolicy.clock import Clock
from netpolicy.errors import UserError
from netpolicy.presets import SHIPPED, Preset, copies
from netpolicy.presets.refreshing import refresh

#: Set to ``off``: nothing is ever fetched unless `netpolicy presets refresh` is called.
VARIABLE = "NETPOLICY_REFRESH"
#: Seconds after which a fetched list is fetched again.
FRESH = 86400.0
#: Seconds for which a provider that could not be reached is not asked again.
PATIENCE = 600.0
#: For one answer; whoever waits for a policy waits at most so long for each provider.
SECONDS = 4.0


def due(active: Iterable[Preset], environ: Mapping[str, str], now: float) -> tuple[str, ...]:
    """Which of the presets have a provider's list that is worth an attempt at this moment (seconds since 1970)."""
    if environ.get(VARIABLE, "").lower() == "off":
        return ()
    return tuple(preset.name for preset in active if _old(preset, now) and not _tried(preset.name, environ, now))


def freshen(
    names: Iterable[str], environ: Mapping[str, str], *, clock: Clock, url: str | None = None
) -> dict[str, str]:
    """Fetch the lists of presets; returns why those that could not be had are as old as they were, by name.

    Never raises for a provider: what cannot be fetched stays as it is, and compiling a policy says how old that is. `url`
    is asked instead of the provider.
    """
    failed: dict[str, str] = {}
    for name in names:
        try:
            refresh(name, clock=clock, url=url, seconds=SECONDS)
        except UserError as error:
            failed[name] = error.message
            _remember(name, environ, clock.now())
    return failed


def _old(preset: Preset, now: float) -> bool:
    # A project's own preset of the same name is its own business.
    if preset.ranges_at is None or preset.name not in presets.provided():
        return False
    return preset.ranges_from == SHIPPED or now - preset.ranges_at > FRESH


def _mark(name: str, environ: Mapping[str, str]) -> Path | None:
    place = copies.place(name, environ)
    return None if place is None else place.with_suffix(".unreachable")


def _tried(name: str, environ: Mapping[str, str], now: float) -> bool:
    mark = _mark(name, environ)
    try:
        return mark is None or 0 <= now - float(mark.read_text()) < PATIENCE
    except (OSError, ValueError):
        return False


def _remember(name: str, environ: Mapping[str, str], now: float) -> None:
    mark = _mark(name, environ)
    if mark is None:
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        # Not through a link: whoever may write there need not be who we are.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(mark, flags, 0o600), "w") as stream:
            stream.write(repr(now))
    except OSError:
        return  # the next attempt is only made sooner
