"""Reading a JSON or TOML file, with problems instead of exceptions, and finding the project that a directory belongs to."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError
from netpolicy.policy.problems import Problem, Refused, shown

#: Committed with a project; its `firewall` object is the policy.
COMMITTED = ".cspace.json"
#: A person's own beside it, laid over it.
LOCAL = ".cspace.local.json"
#: A policy is a page or two; a file beyond this is something else.
LARGEST_BYTES = 4 << 20


def find(start: Path) -> Path | None:
    """The nearest directory from `start` upwards that holds a project's configuration, up to its git repository's top.

    Raises:
        UserError: ``not-yours``: somebody else may have put it there, into a directory that everybody can write.
    """
    for folder in (start, *start.parents):
        if found := [folder / name for name in (COMMITTED, LOCAL) if (folder / name).is_file()]:
            refuse_planted(folder, found, start)
            return folder
        if (folder / ".git").exists():
            return None
    return None


def refuse_planted(folder: Path, found: Iterable[Path], start: Path) -> None:
    """What somebody puts into ``/tmp`` is not to be in force for everybody who works there, or below.

    Args:
        folder: A directory.
        found: What is in it.
        start: Whose owner may put things there, besides root and ourselves.

    Raises:
        UserError: ``not-yours``.
    """
    if not folder.stat().st_mode & stat.S_IWOTH:
        return
    known = {0, os.geteuid()} | ({start.stat().st_uid} if start.exists() else set())
    for path in found:
        if path.lstat().st_uid not in known:
            raise UserError(
                "not-yours",
                f"{path} belongs to another user, in a directory that everybody can write to",
                hint="Remove it, or go on in a directory of your own.",
                exit_status=Exit.BAD_INPUT,
            )


def read_policy(path: Path, file: str, problems: list[Problem]) -> Mapping[str, Any] | None:
    """The object in a TOML file, if that is the file's suffix, or in a JSON file; None where there is none, which is then noted."""
    return _noted(path, file, problems, _toml if is_toml(path.name) else _json)


def read_json(path: Path, file: str, problems: list[Problem]) -> Mapping[str, Any] | None:
    """The object in a JSON file; None where there is none, which is then noted."""
    return _noted(path, file, problems, _json)


def is_toml(file: str) -> bool:
    """Whether a file is TOML, by its suffix."""
    return file.lower().endswith(".toml")


def _noted(
    path: Path, file: str, problems: list[Problem], decode: Callable[[str], Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    try:
        return decode(_text(path))
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
    except json.JSONDecodeError as error:
        message = f"line {error.lineno}, column {error.colno}: {_plain(error.msg)}"
    except UnicodeDecodeError as error:
        message = f"byte {error.start + 1} is not UTF-8"
    except RecursionError:
        message = "is nested too deeply"
    except Refused as refusal:
        message = str(refusal)
    except ValueError as error:
        message = f"cannot be read: {error}"
    problems.append(Problem(file, "", None, message))
    return None


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise Refused(f"is larger than {LARGEST_BYTES >> 20} MiB; that is no policy")
    return data.decode("utf-8-sig")


def _toml(text: str) -> dict[str, Any]:
    # Most policies are JSON, and asking about one is to be quick.
    from netpolicy.policy import toml

    return toml.decode(text)


def _json(text: str) -> dict[str, Any]:
    document = json.loads(text, object_pairs_hook=_once)
    if not isinstance(document, dict):
        raise Refused("the whole file must be one JSON object, {...}")
    return document


@dataclass(frozen=True, slots=True)
class Layers:
    """Documents laid over each other, weakest first: (file as the user named it, document)."""

    documents: tuple[tuple[str, Mapping[str, Any]], ...]

    def merged(self) -> dict[str, Any]:
        """One document: objects merge, lists and scalars replace."""
        result: dict[str, Any] = {}
        for _name, document in self.documents:
            result = _merge(result, document)
        return result

    def owner(self, key: str) -> str:
        """The file that says a key such as ``firewall.allow[2].host``: the strongest that has it, or cuts it short."""
        steps: list[str] = re.findall(r"[^.\[\]]+", key)
        names = (name for name, document in reversed(self.documents) if _says(document, steps))
        return next(names, self.documents[0][0])


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _says(document: Any, steps: list[str]) -> bool:
    for step in steps:
        if not isinstance(document, Mapping):
            return True
        if step not in document:
            return False
        document = document[step]
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise Refused(f"the key {shown(key)} is written twice in one object")
        result[key] = value
    return result


def _plain(message: str) -> str:
    """The decoder's message, with the cause that people usually have."""
    causes = {
        "Expecting property name enclosed in double quotes": "expected a key in double quotes "
        "(a comma after the last entry, a comment, or single quotes?)",
        "Expecting value": "expected a value (a comma after the last entry, or nothing at all?)",
        "Illegal trailing comma before end of object": "there is a comma after the last entry",
        "Illegal trailing comma before end of array": "there is a comma after the last entry",
    }
    return causes.get(message, message[:1].lower() + message[1:])
