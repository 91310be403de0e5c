"""Typed access to a JSON document that notes every problem and goes on, so that one run shows them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from netpolicy.policy.problems import Problem, Refused, nearest

T = TypeVar("T")
_MISSING = object()


class Reader:
    """One object of a document, at `key`, together with the problems found in it so far."""

    def __init__(self, document: Mapping[str, Any], *, file: str, key: str, problems: list[Problem]) -> None:
        self.document = document
        self.file = file
        self.key = key
        self.problems = problems

    def path(self, name: str) -> str:
        """The key of an entry as messages name it."""
        return f"{self.key}.{name}" if self.key else name

    def refuse(self, key: str, value: Any, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.file, key, value, message))

    def known(self, keys: Mapping[str, str] | tuple[str, ...], later: Mapping[str, str] | None = None) -> None:
        """Note every key that is not one of `keys`; `later` has a sentence for those that a coming version will have."""
        for name in self.document:
            if name in keys:
                continue
            message = (later or {}).get(name) or f"unknown key; {nearest(name, keys)}"
            self.refuse(self.path(name), None, message)

    def boolean(self, name: str, default: bool) -> bool:
        """An entry that is true or false."""
        value = self.document.get(name, default)
        if isinstance(value, bool):
            return value
        self.refuse(self.path(name), value, "must be true or false")
        return default

    def text(self, name: str) -> str | None:
        """An entry that is text, if present."""
        value = self.document.get(name)
        if value is None and name not in self.document:
            return None
        if isinstance(value, str) and value:
            return value
        self.refuse(self.path(name), value, "must be a text that is not empty")
        return None

    def child(self, name: str) -> Reader:
        """An entry that is an object; empty where it is absent or wrong."""
        value = self.document.get(name, {})
        if not isinstance(value, Mapping):
            self.refuse(self.path(name), value, "must be an object, {...}")
            value = {}
        return Reader(value, file=self.file, key=self.path(name), problems=self.problems)

    def entries(self, name: str, example: str) -> Iterator[tuple[str, Any]]:
        """The entries of a list, each with its key; nothing where it is absent or wrong."""
        value = self.document.get(name, _MISSING)
        if value is _MISSING:
            return
        if not isinstance(value, list | tuple):
            self.refuse(self.path(name), value, f"must be a list, such as {example}")
            return
        for index, entry in enumerate(value):
            yield f"{self.path(name)}[{index}]", entry

    def accept(self, key: str, value: Any, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of a value; where it refuses, its sentence is noted."""
        try:
            return read(value)
        except Refused as refusal:
            self.refuse(key, value, str(refusal))
            return None
