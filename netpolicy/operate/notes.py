"""What we remember of an attachment beside the gate: what its policies want proven, and which Docker network it is.

The gate needs none of it, and a note that is lost costs nothing but these words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from netpolicy.errors import UserError
from netpolicy.operate.homes import Home

#: A policy that is not confirmed gives way to the one before it, so the note before the last is kept as well.
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Note:
    """Of one attachment under one policy."""

    ruleset: str
    """The id of what the policy was compiled to."""
    blocked: tuple[str, ...]
    """What the policy wants proven (`verify`)."""
    allowed: tuple[str, ...]
    network: str | None = None
    """The Docker network's name."""
    namespace: str | None = None
    """What opened the namespace, at the output hook."""


def keep(home: Home, attachment_id: str, note: Note) -> None:
    """Write it down. Raises UserError ``state-directory``."""
    others = [known for known in _read(home, attachment_id) if known.ruleset != note.ruleset]
    path = home.note(attachment_id)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(known) for known in (note, *others[: _KEPT - 1])]))
        fresh.replace(path)
    except OSError as error:
        raise UserError("state-directory", f"{path} cannot be written: {error.strerror}") from error


def find(home: Home, attachment_id: str, ruleset: str | None = None) -> Note | None:
    """The note about a ruleset, or else the latest; None where there is none that can be read."""
    known = _read(home, attachment_id)
    return next((note for note in known if note.ruleset == ruleset), known[0] if known else None)


def drop(home: Home, attachment_id: str) -> None:
    """Forget it all."""
    home.note(attachment_id).unlink(missing_ok=True)


def _read(home: Home, attachment_id: str) -> list[Note]:
    try:
        return [_note(row) for row in json.loads(home.note(attachment_id).read_text())]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _note(row: Mapping[str, Any]) -> Note:
    return Note(
        str(row["ruleset"]), tuple(row["blocked"]), tuple(row["allowed"]), row.get("network"), row.get("namespace")
    )
