"""Typed access to a JSON document that notes every problem and goes on, so that one run shows them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from netpolicy.policy.problems import Problem, Refused, nearest, printable

T = TypeVar("T")
C = TypeVar("C", bound=str)

#: Which file, as the user named it, says a key such as ``firewall.domains[2]``. Merged documents have several.
Owner = Callable[[str], str]


class Reader:
    """One object of a document, at `key`, together with the problems found so far in the whole document."""

    def __init__(self, document: Any, *, key: str, owner: Owner, problems: list[Problem]) -> None:
        self.key = key
        self.owner = owner
        self.problems = problems
        self.document: Mapping[str, Any] = {}
        if isinstance(document, Mapping):
            self.document = document
        else:
            self.refuse(key, document, "must be an object, {...}")

    def path(self, name: str) -> str:
        """The key of an entry as messages name it."""
        return f"{self.key}.{name}" if self.key else name

    def refuse(self, key: str, value: Any, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.owner(key), key, value, message))

    def known(self, keys: tuple[str, ...], later: Mapping[str, str] | None = None) -> None:
        """Note every key that is not one of `keys`; `later` has a sentence for those that a coming version will have."""
        for name in self.document:
            if name not in keys:
                message = (later or {}).get(name) or f"unknown key; {nearest(name, keys)}"
                self.refuse(self.path(name), None, message)

    def boolean(self, name: str, default: bool) -> bool:
        """An entry that is true or false."""
        value = self.document.get(name, default)
        if isinstance(value, bool):
            return value
        self.refuse(self.path(name), value, "must be true or false")
        return default

    def choice(self, name: str, choices: tuple[C, ...]) -> C:
        """An entry that is one of some words; the first of them where it is absent or wrong."""
        value = self.document.get(name, choices[0])
        for choice in choices:
            if value == choice:
                return choice
        self.refuse(self.path(name), value, f"must be {' or '.join(map(json.dumps, choices))}")
        return choices[0]

    def text(self, name: str) -> str | None:
        """An entry that is text; None where it is absent or wrong."""
        value = self.document.get(name, "")
        if isinstance(value, str) and (value or name not in self.document):
            return value or None
        self.refuse(self.path(name), value, "must be a text that is not empty")
        return None

    def remark(self, name: str) -> str | None:
        """The same where it is only for people: a terminal that shows it is not to act on it, nor is it to look like several lines."""
        value = self.text(name)
        return None if value is None else printable(value)

    def child(self, name: str) -> Reader:
        """An entry that is an object; empty where it is absent or wrong."""
        return self.at(self.path(name), self.document.get(name, {}))

    def at(self, key: str, document: Any) -> Reader:
        """A reader for an object elsewhere in the same document."""
        return Reader(document, key=key, owner=self.owner, problems=self.problems)

    def entries(self, name: str, example: str) -> Iterator[tuple[str, Any]]:
        """The entries of a list, each with its key; nothing where it is absent or wrong."""
        value = self.document.get(name, [])
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

    def texts(self, name: str, example: str, read: Callable[[Any], str]) -> tuple[str, ...]:
        """A list of texts that `read` accepts and puts into one form."""
        found = [self.accept(key, entry, read) for key, entry in self.entries(name, example)]
        return tuple(text for text in found if text is not None)
