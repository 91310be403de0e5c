"""Presets: named lists of the names and networks that a service needs, as data files with source and date.

One JSON file each, beside this module or in a project's ``.cspace/presets/``: ``{"name", "summary", "source", "date", "default",
"names": [target...], "ranges": [target...], "snapshot": {"file", "keys"}}``. `snapshot` takes further ranges from a dated copy of
a provider's own list; fetching a newer one has its place here. What enters: reading these files. What they mean is
`netpolicy.policy`'s and `netpolicy.compile`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Preset:
    """One preset, as its file has it; the targets are not parsed yet."""

    name: str
    summary: str
    """One line for people."""
    source: str
    """Where the data was taken from."""
    date: str
    """When it was taken, ``YYYY-MM-DD``."""
    default: bool
    """Whether it is on where the policy says nothing."""
    names: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    file: str = ""
    """``preset:NAME`` for one of ours; the path as the user would name it for a project's own."""


def names() -> list[str]:
    """The names of the built-in presets, sorted."""
    return sorted(path.stem for path in _HERE.glob("*.json"))


def load(name: str) -> Preset:
    """A built-in preset.

    Raises:
        UserError: ``no-preset``, with the nearest name.
    """
    path = _HERE / f"{name}.json"
    if name not in names():
        from netpolicy.policy.problems import nearest

        raise UserError(
            "no-preset", f"there is no preset {name!r}; {nearest(name, names())}", exit_status=Exit.BAD_INPUT
        )
    document = json.loads(path.read_text(encoding="utf-8"))
    return from_document(document, name=name, file=f"preset:{name}", folder=_HERE)


def naming(host: str) -> list[str]:
    """The built-in presets that name a host (at any port), sorted."""
    return [name for name in names() if any(text.partition(":")[0] == host for text in load(name).names)]


def from_document(document: Mapping[str, Any], *, name: str, file: str, folder: Path) -> Preset:
    """The preset in a document whose form has been checked."""
    ranges = list(document.get("ranges", ()))
    snapshot = document.get("snapshot")
    if snapshot is not None:
        provider = json.loads((folder / snapshot["file"]).read_text(encoding="utf-8"))
        ranges += [entry for key in snapshot["keys"] for entry in provider[key]]
    return Preset(
        name=name,
        summary=document.get("summary", ""),
        source=document.get("source", ""),
        date=document.get("date", ""),
        default=document.get("default", False),
        names=tuple(document.get("names", ())),
        ranges=tuple(dict.fromkeys(ranges)),
        file=file,
    )
