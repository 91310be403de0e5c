"""The presets a policy can switch: ours, and the project's own in ``.cspace/presets/*.json``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from netpolicy import presets
from netpolicy.policy import target
from netpolicy.policy.files import read_json, refuse_planted
from netpolicy.policy.problems import Problem, Refused
from netpolicy.policy.reading import Reader
from netpolicy.presets import Preset

#: Where a project keeps presets of its own, below its directory.
FOLDER = Path(".cspace") / "presets"
_KEYS = ("name", "summary", "source", "date", "default", "names", "ranges")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z", re.ASCII)


def available(base: Path | None, problems: list[Problem]) -> dict[str, Preset]:
    """All presets by name. A project's own stands in for one of ours with the same name."""
    found = {name: presets.load(name) for name in presets.names()}
    folder = None if base is None else base / FOLDER
    if base is not None and folder is not None and folder.is_dir():
        refuse_planted(base, [folder.parent], base)
        for path in sorted(folder.glob("*.json")):
            preset = _read(path, (FOLDER / path.name).as_posix(), problems)
            if preset is not None:
                found[preset.name] = preset
    return found


def _read(path: Path, file: str, problems: list[Problem]) -> Preset | None:
    before = len(problems)
    if not path.is_file():
        # A link may lead to a pipe, where reading waits, or to a device, where opening is enough to do something.
        problems.append(Problem(file, "", None, "is no file"))
        return None
    reader = Reader(read_json(path, file, problems) or {}, key="", owner=lambda _key: file, problems=problems)
    if len(problems) > before:
        return None
    reader.known(_KEYS)
    name = reader.text("name") or path.stem
    if name != path.stem:
        reader.refuse("name", name, f"must be the file's own name, {path.stem!r}")
    if not _NAME.match(path.stem):
        reader.refuse("", None, "a preset's name has lower-case letters, digits and hyphens; rename the file")
    if not reader.document.get("names") and not reader.document.get("ranges"):
        reader.refuse("", None, 'a preset needs `names` or `ranges`, such as {"names": ["example.com"]}')
    preset = Preset(
        name=name,
        summary=reader.remark("summary") or "",
        source=reader.remark("source") or "",
        date=reader.remark("date") or "",
        default=reader.boolean("default", False),
        names=reader.texts("names", '["example.com"]', _name_target),
        ranges=reader.texts("ranges", '["192.0.2.0/24"]', _range_target),
        file=file,
    )
    return preset if len(problems) == before else None


def _name_target(entry: Any) -> str:
    return _target(entry, names=True)


def _range_target(entry: Any) -> str:
    return _target(entry, names=False)


def _target(entry: Any, *, names: bool) -> str:
    if not isinstance(entry, str):
        raise Refused('must be a text such as "example.com" or "192.0.2.0/24:443"')
    if isinstance(target.parse(entry).host, str) != names:
        raise Refused("names belong in `names`, addresses and networks in `ranges`")
    return entry
