"""What the parts of an engine share: the door back to it, and how the engine's answers are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sidecars.engine.client import Engine
    from sidecars.engine.transport import Client


T = TypeVar("T")


class Part:
    """One kind of object of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _api(self) -> Client:
        return self._engine.api

    def _explained(self, doing: str) -> AbstractContextManager[None]:
        return self._engine.explained(doing)

    def _each(self, stream: Iterable[T], doing: str) -> Iterator[T]:
        """The stream's items; only what the stream itself raises is explained, not what its reader does."""
        items = iter(stream)
        while True:
            with self._explained(doing):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def moment(text: object) -> datetime | None:
    """The engine's RFC 3339 times, which carry nanoseconds; its year 1 means never."""
    words = str(text or "")
    if not words or words.startswith("0001-"):
        return None
    head, dot, tail = words.partition(".")
    if dot:
        digits = tail[: next((i for i, c in enumerate(tail) if not c.isdigit()), len(tail))]
        words = f"{head}.{digits[:6]}{tail[len(digits) :]}"
    found = datetime.fromisoformat(words)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
