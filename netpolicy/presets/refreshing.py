"""`refresh`: fetch a provider's list anew, believe it or not, and keep it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from netpolicy import presets
from netpolicy.clock import Clock
from netpolicy.errors import Exit, UserError
from netpolicy.presets import copies
from netpolicy.presets.copies import Copy
from netpolicy.presets.fetching import Unreachable, fetch
from netpolicy.presets.judging import Absurd, judged

#: For the whole answer.
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What came of it."""

    name: str
    source: str
    """The address that was asked."""
    file: Path
    """Where the copy is."""
    fetched_at: float
    """In seconds since 1970."""
    ranges: int
    """How many networks the preset has from it."""
    added: tuple[str, ...]
    """Networks that the list in use before did not have."""
    removed: tuple[str, ...]
    """Networks that only the list before had."""
    warnings: tuple[str, ...]
    """A sentence for each line of the answer that is left out."""


def refresh(name: str, *, clock: Clock, url: str | None = None, seconds: float = SECONDS) -> Refreshed:
    """Fetch the list that a preset takes networks from, and keep it as the copy that policies are read with from now on.

    Args:
        name: The preset.
        clock: When it is, and how long it takes.
        url: Where to ask instead of the provider, for mirrors: ``https://``.
        seconds: How long the answer may take.

    Raises:
        UserError: ``no-preset``; ``no-provider-list`` for a preset that takes no networks from one; ``fetch-failed``;
            ``list-refused`` where the answer cannot be believed; ``cache-unwritable``. The copy before then stays.
    """
    listed = presets.provider(name)
    if listed is None:
        raise UserError(
            "no-provider-list",
            f"the preset {name!r} takes no networks from a provider's list, so there is nothing to fetch",
            hint=f"Those that do: {', '.join(presets.provided())}.",
            exit_status=Exit.BAD_INPUT,
        )
    file = copies.place(name)
    if file is None:
        raise UserError(
            "cache-unwritable", "there is no place for a copy: neither XDG_CACHE_HOME nor HOME is a directory"
        )
    asked, before = url or listed.source, presets.current(name)
    kept = f"In use stays the copy of {presets.load(name).ranges_date}."
    try:
        answer = json.loads(fetch(asked, seconds=seconds, clock=clock))
        lists, dropped = judged(answer, listed.keys, before.lists)
        copies.write(file, Copy(asked, clock.now(), lists))
    except Unreachable as error:
        raise UserError("fetch-failed", f"{asked} cannot be fetched: {error}", hint=kept) from error
    except (Absurd, RecursionError, ValueError) as error:
        why = str(error) if isinstance(error, Absurd) else "it is no JSON"
        raise UserError("list-refused", f"the answer of {asked} is refused: {why}", hint=kept) from error
    except OSError as error:
        raise UserError("cache-unwritable", f"{file} cannot be written: {error.strerror}", hint=kept) from error
    new, old = ({network for networks in some.values() for network in networks} for some in (lists, before.lists))
    return Refreshed(
        name, asked, file, clock.now(), len(new), tuple(sorted(new - old)), tuple(sorted(old - new)), dropped
    )
