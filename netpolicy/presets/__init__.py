"""Presets: named lists of the names and networks that a service needs, as data files with source and date.

One JSON file each, beside this module: ``{"name", "summary", "source", "date", "default", "names": [target...], "ranges":
[target...], "snapshot": {"file", "keys"}}``. `snapshot` takes further ranges from a provider's own list: from the copy that
`refreshing` has fetched (`copies`), or from the dated one that is shipped here where there is none that is newer and sound. What
enters: these files and copies. A project's own presets are read by `netpolicy.policy`, which checks them; what targets mean is its
business too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError
from netpolicy.patterns import covers
from netpolicy.presets import copies
from netpolicy.presets.copies import Copy, Damaged

_HERE = Path(__file__).parent
#: Where a list is that nobody has fetched: it comes with the package.
SHIPPED = "shipped"


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
    ranges_at: float | None = None
    """The same in seconds since 1970."""
    ranges_from: str = ""
    """Where that copy is: ``shipped``, or the file that `netpolicy presets refresh` wrote."""
    ranges_source: str = ""
    """The address that the provider's list was copied from."""
    notes: tuple[str, ...] = ()
    """What is wrong with a copy that is therefore not in use, a sentence each."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where a preset's provider publishes its networks."""

    source: str
    keys: tuple[str, ...]
    """The lists of its answer that the preset takes."""


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _HERE.glob("*.json")))


def names() -> list[str]:
    """The names of the built-in presets, sorted."""
    return list(_names())


def load(name: str) -> Preset:
    """A built-in preset, with the newest sound copy of its provider's list.

    Raises:
        UserError: ``no-preset``, with the nearest name.
    """
    preset = _shipped(name)
    provided = provider(name)
    if provided is None:
        return preset
    copy, file, notes = _copy(name, provided)
    ranges = [*preset.ranges, *(network for key in provided.keys for network in copy.lists[key])]
    return replace(
        preset,
        ranges=tuple(dict.fromkeys(ranges)),
        ranges_date=datetime.fromtimestamp(copy.at, UTC).date().isoformat(),
        ranges_at=copy.at,
        ranges_from=file,
        ranges_source=copy.source,
        notes=notes,
    )


@cache
def provider(name: str) -> Provider | None:
    """Where the networks of a built-in preset come from; None where they do not come from a provider's list.

    Raises:
        UserError: ``no-preset``.
    """
    _known(name)
    listed = _document(f"{name}.json").get("snapshot")
    return None if listed is None else Provider(_document(listed["file"])["source"], tuple(listed["keys"]))


def provided() -> list[str]:
    """The names of the presets that take networks from a provider's list, sorted."""
    return [name for name in names() if provider(name) is not None]


def current(name: str) -> Copy:
    """The provider's list that is in use for a preset which has one."""
    listed = provider(name)
    assert listed is not None
    return _copy(name, listed)[0]


def _copy(name: str, provided: Provider) -> tuple[Copy, str, tuple[str, ...]]:
    """The newest sound copy, where it is, and what is wrong with one that is not used."""
    shipped, path = _snapshot(name), copies.place(name)
    try:
        fetched = None if path is None else copies.read(path, provided.keys)
    except Damaged as error:
        return shipped, SHIPPED, (f"the copy {path} is not used: {error}",)
    return (shipped, SHIPPED, ()) if fetched is None or fetched.at <= shipped.at else (fetched, str(path), ())


@cache
def _snapshot(name: str) -> Copy:
    listed = _document(f"{name}.json")["snapshot"]
    found = _document(listed["file"])
    at = datetime.fromisoformat(found["date"]).replace(tzinfo=UTC).timestamp()
    return Copy(found["source"], at, {key: tuple(found[key]) for key in listed["keys"]})


@cache
def _shipped(name: str) -> Preset:
    _known(name)
    document = _document(f"{name}.json")
    return Preset(
        name=name,
        summary=document["summary"],
        source=document["source"],
        date=document["date"],
        default=document["default"],
        names=tuple(document.get("names", ())),
        ranges=tuple(dict.fromkeys(document.get("ranges", ()))),
        file=f"preset:{name}",
    )


def _known(name: str) -> None:
    if name not in _names():
        from netpolicy.policy.problems import nearest

        raise UserError(
            "no-preset", f"there is no preset {name!r}; {nearest(name, names())}", exit_status=Exit.BAD_INPUT
        )


def _document(file: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_HERE / file).read_text(encoding="utf-8"))
    return document


def naming(host: str) -> list[str]:
    """The built-in presets that name a host (at any port), sorted."""
    return [name for name in names() if any(covers(text.partition(":")[0], host) for text in _shipped(name).names)]
