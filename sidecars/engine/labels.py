"""The labels by which everything we make is found again. Names are for people; labels are the record."""

from __future__ import annotations

from collections.abc import Mapping

PROJECT = "cspace.project"
INSTANCE = "cspace.instance"
ROLE = "cspace.role"
"""``dev``, ``gate``, ``workspace``, ... what the object does."""
VERSION = "cspace.version"
IMAGE = "cspace.image"
"""On our images: the repository, which an image keeps when a newer one takes its name."""
CONTENT = "cspace.content"
"""On our images and on containers whose definition can go stale: a hash of what went in."""


def labels(role: str, *, project: str | None = None, instance: str | None = None, version: str) -> dict[str, str]:
    """The labels of a new object."""
    found = {ROLE: role, VERSION: version}
    if project is not None:
        found[PROJECT] = project
    if instance is not None:
        found[INSTANCE] = instance
    return found


def selector(wanted: Mapping[str, str | None]) -> list[str]:
    """Labels as the engine's list filter; a value of None asks only that the label is there."""
    return [key if value is None else f"{key}={value}" for key, value in wanted.items()]
