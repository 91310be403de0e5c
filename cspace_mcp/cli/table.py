"""Aligned text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: a head in capitals, columns as wide as they need to be, nothing trailing."""
    table = [[word.upper() for word in head], *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def fields(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values below each other; an empty label continues the one above."""
    table = [(label, _plain(value)) for label, value in rows]
    width = max((len(label) for label, _ in table), default=0)
    return "\n".join(f"{label:<{width}}  {value}".rstrip() for label, value in table)


def _plain(text: str) -> str:
    """Without characters that a terminal would act on."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
