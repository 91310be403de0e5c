"""Reading the two files and merging them, without losing which file said what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError

#: Committed with the project.
COMMITTED = ".cspace.json"
#: A person's own, not committed; wins over the committed one.
LOCAL = ".cspace.local.json"

_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")


@dataclass(frozen=True, slots=True)
class Layers:
    """The files that exist, weakest first: (name for people, document)."""

    documents: tuple[tuple[str, Mapping[str, Any]], ...]

    def merged(self) -> dict[str, Any]:
        """One document: objects merge, lists and scalars replace."""
        result: dict[str, Any] = {}
        for _name, document in self.documents:
            result = merge(result, document)
        return result

    def owner(self, key: str) -> str:
        """The file that a key such as ``firewall.allow[2].host`` comes from."""
        steps = [int(step[1:-1]) if step.startswith("[") else step for step in _STEP.findall(key)]
        strongest_first = [name for name, document in reversed(self.documents) if _says(document, steps)]
        return strongest_first[0] if strongest_first else COMMITTED


def read(root: Path) -> Layers:
    """Read the files that exist in `root`.

    Raises:
        UserError: ``bad-config`` with file, line and column where a file is not JSON, or not an object.
    """
    found = ((name, root / name) for name in (COMMITTED, LOCAL))
    return Layers(tuple((name, _parse(name, path)) for name, path in found if path.is_file()))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: objects merge key by key, everything else replaces."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _says(document: Any, steps: list[str | int]) -> bool:
    """Whether a document decides this key: it holds it, or holds a list or scalar where the way to it ends."""
    for step in steps:
        if isinstance(document, Mapping):
            if step not in document:
                return False
            document = document[step]
        else:
            return True
    return True


def _parse(name: str, path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _broken(name, f"byte {error.start + 1} is not UTF-8") from error
    try:
        document = json.loads(text, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _broken(name, f"{where}: {_plain(error.msg)}", line=error.lineno, column=error.colno) from error
    except _TwinError as error:
        raise _broken(name, f"the key {error.key!r} is written twice in one object") from error
    if not isinstance(document, Mapping):
        raise _broken(name, "the whole file must be one JSON object, {...}")
    return document


class _TwinError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _TwinError(key)
        result[key] = value
    return result


def _plain(message: str) -> str:
    """The decoder's message, with the cause that people usually have."""
    causes = {
        "Expecting property name enclosed in double quotes": "expected a key in double quotes (a comma after the last "
        "entry, a comment, or single quotes?)",
        "Illegal trailing comma before end of object": "there is a comma after the last entry",
        "Illegal trailing comma before end of array": "there is a comma after the last entry",
        "Expecting value": "expected a value (a comma after the last entry, or nothing at all?)",
    }
    return causes.get(message, message[:1].lower() + message[1:])


def _broken(name: str, message: str, **where: int) -> UserError:
    return UserError(
        "bad-config",
        f"{name}: {message}",
        hint="docs/config.md shows every key.",
        exit_status=Exit.BAD_INPUT,
        details={"problems": [{"file": name, "key": "", "value": None, "message": message, **where}]},
    )
