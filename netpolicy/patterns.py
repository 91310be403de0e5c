"""Names and wildcards: which patterns of rules stand for a name. Pure.

``*.example.com`` stands for every name below ``example.com`` (one label more, or several), never for ``example.com`` itself.
"""

from __future__ import annotations

from collections.abc import Iterator

_WILD = "*."


def is_wildcard(pattern: str) -> bool:
    """Whether the pattern stands for more than one name."""
    return pattern.startswith(_WILD)


def suffix(pattern: str) -> str:
    """The name below which a wildcard stands for all names."""
    return pattern.removeprefix(_WILD)


def covers(pattern: str, name: str) -> bool:
    """Whether the pattern stands for a concrete name, in canonical spelling."""
    return name.endswith(pattern[1:]) if is_wildcard(pattern) else name == pattern


def within(inner: str, outer: str) -> bool:
    """Whether every name that `inner` (a pattern) stands for is one that `outer` stands for."""
    if not is_wildcard(outer):
        return inner == outer
    return inner == outer or suffix(inner).endswith(outer[1:])


def matching(inner: str) -> Iterator[str]:
    """All patterns that stand for a concrete name, the nearest first: itself, then wildcards ever further up.

    For a wildcard: itself and those that stand for all names below it.
    """
    yield inner
    rest = suffix(inner)
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"{_WILD}{rest}"
