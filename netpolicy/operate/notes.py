"""What we remember of an attachment beside the gate: what its policy wants proven, and which Docker network it is.

The gate needs none of it, and a note that is lost costs nothing but these words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from netpolicy.errors import UserError
from netpolicy.operate.homes import Home


@dataclass(frozen=True, slots=True)
class Note:
    """Of one attachment."""

    policy: str
    """The file that it was applied from, as the user named it, or what stood for one."""
    blocked: tuple[str, ...]
    """What its policy wants proven (`verify`)."""
    allowed: tuple[str, ...]
    network: str | None = None
    """The Docker network's name."""
    namespace: str | None = None
    """What opened the namespace, at the output hook."""


def keep(home: Home, attachment_id: str, note: Note) -> None:
    """Write it down. Raises UserError ``state-directory``."""
    path = home.note(attachment_id)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(note)))
        fresh.replace(path)
    except OSError as error:
        raise UserError("state-directory", f"{path} cannot be written: {error.strerror}") from error


def find(home: Home, attachment_id: str) -> Note | None:
    """What was written down; None where nothing was, or nothing that can be read."""
    try:
        row: Mapping[str, Any] = json.loads(home.note(attachment_id).read_text())
        return Note(
            str(row["policy"]), tuple(row["blocked"]), tuple(row["allowed"]), row.get("network"), row.get("namespace")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def drop(home: Home, attachment_id: str) -> None:
    """Forget it."""
    home.note(attachment_id).unlink(missing_ok=True)
