"""The two files of a project, merged without losing which of them said what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.policy.files import COMMITTED, LOCAL, merge, read_json
from netpolicy.policy.problems import Problem

_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")


@dataclass(frozen=True, slots=True)
class Layers:
    """The files that exist, weakest first: (name for people, document)."""

    documents: tuple[tuple[str, Mapping[str, Any]], ...]

    @classmethod
    def read(cls, folder: Path, problems: list[Problem]) -> Layers:
        """Read the files of a folder; one that is not a JSON object is noted with its line and column, and left out."""
        paths = [(name, folder / name) for name in (COMMITTED, LOCAL)]
        read = [(name, read_json(path, name, problems)) for name, path in paths if path.is_file()]
        return cls(tuple((name, document) for name, document in read if document is not None))

    def merged(self) -> dict[str, Any]:
        """One document: objects merge, lists and scalars replace."""
        result: dict[str, Any] = {}
        for _name, document in self.documents:
            result = merge(result, document)
        return result

    def owner(self, key: str) -> str:
        """The file that decides a key such as ``firewall.allow[2].host``."""
        steps = [int(step[1:-1]) if step.startswith("[") else step for step in _STEP.findall(key)]
        strongest_first = [name for name, document in reversed(self.documents) if _says(document, steps)]
        return strongest_first[0] if strongest_first else COMMITTED


def _says(document: Any, steps: list[str | int]) -> bool:
    """Whether a document decides this key: it holds it, or holds a list or scalar where the way to it ends."""
    for step in steps:
        if not isinstance(document, Mapping):
            return True
        if step not in document:
            return False
        document = document[step]
    return True
