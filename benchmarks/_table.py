"""How benchmarks print: one table each, in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def show(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]], *notes: str) -> None:
    """Print a table; the first column is to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(headers), *cells]) for n in range(len(headers))]
    print(title)
    for row in [list(headers), ["-" * width for width in widths], *cells]:
        print("  ".join(cell.rjust(widths[n]) if n else cell.ljust(widths[0]) for n, cell in enumerate(row)).rstrip())
    for note in notes:
        print(f"  {note}")
    print()


def ms(seconds: float) -> str:
    """Milliseconds with one decimal."""
    return f"{seconds * 1000:,.1f}"
