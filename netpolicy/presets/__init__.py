"""Presets: named lists of the names and networks that a service needs, as data files with source and date.

One JSON file each, beside this module: ``{"name", "summary", "source", "date", "default", "names": [target...], "ranges":
[target...], "snapshot": {"file", "keys"}}``. `snapshot` takes further ranges from a dated copy of a provider's own list; fetching
a newer one will have its place here. What enters: reading these files. A project's own presets are read by `netpolicy.policy`,
which checks them; what targets mean is its business too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
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
    """When it was last looked over, ``YYYY-MM-DD``."""
    default: bool
    """Whether it is on where the policy says nothing."""
    names: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    file: str = ""
    """``preset:NAME`` for one of ours; the path as the user would name it for a project's own."""
    ranges_date: str = ""
    """When the provider's own list was copied, ``YYYY-MM-DD``; empty where no ranges come from one."""


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _HERE.glob("*.json")))


def names() -> list[str]:
    """The names of the built-in presets, sorted."""
    return list(_names())


@cache
def load(name: str) -> Preset:
    """A built-in preset.

    Raises:
        UserError: ``no-preset``, with the nearest name.
    """
    if name not in _names():
        from netpolicy.policy.problems import nearest

        raise UserError(
            "no-preset", f"there is no preset {name!r}; {nearest(name, names())}", exit_status=Exit.BAD_INPUT
        )
    document = _document(f"{name}.json")
    ranges = list(document.get("ranges", ()))
    ranges_date = ""
    if "snapshot" in document:
        provider = _document(document["snapshot"]["file"])
        ranges_date = provider["date"]
        ranges += [network for key in document["snapshot"]["keys"] for network in provider[key]]
    return Preset(
        name=name,
        summary=document["summary"],
        source=document["source"],
        date=document["date"],
        default=document["default"],
        names=tuple(document.get("names", ())),
        ranges=tuple(dict.fromkeys(ranges)),
        file=f"preset:{name}",
        ranges_date=ranges_date,
    )


def _document(file: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_HERE / file).read_text(encoding="utf-8"))
    return document


def naming(host: str) -> list[str]:
    """The built-in presets that name a host (at any port), sorted."""
    return [name for name in names() if any(text.partition(":")[0] == host for text in load(name).names)]
