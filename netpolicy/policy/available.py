"""The presets a policy can switch: ours, and the project's own in ``.cspace/presets/*.json``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from netpolicy import presets
from netpolicy.policy import target
from netpolicy.policy.files import read_json
from netpolicy.policy.problems import Problem, Refused
from netpolicy.policy.reading import Reader
from netpolicy.policy.target import Target
from netpolicy.presets import Preset

#: Where a project keeps presets of its own, below its directory.
FOLDER = Path(".cspace") / "presets"
_KEYS = ("name", "summary", "source", "date", "default", "names", "ranges")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z", re.ASCII)


def available(base: Path | None, problems: list[Problem]) -> dict[str, Preset]:
    """All presets by name. A project's own stands in for one of ours with the same name."""
    found = {name: presets.load(name) for name in presets.names()}
    folder = None if base is None else base / FOLDER
    if folder is not None and folder.is_dir():
        for path in sorted(folder.glob("*.json")):
            preset = _read(path, (FOLDER / path.name).as_posix(), problems)
            if preset is not None:
                found[preset.name] = preset
    return found


def _read(path: Path, file: str, problems: list[Problem]) -> Preset | None:
    document = read_json(path, file, problems)
    if document is None:
        return None
    before = len(problems)
    reader = Reader(document, file=file, key="", problems=problems)
    reader.known(_KEYS)
    name = reader.text("name") or path.stem
    if name != path.stem:
        reader.refuse("name", name, f"must be the file's own name, {path.stem!r}")
    if not _NAME.match(path.stem):
        reader.refuse("name", name, "a preset's name has lower-case letters, digits and hyphens; rename the file")
    if not document.get("names") and not document.get("ranges"):
        reader.refuse("", None, 'a preset needs `names` or `ranges`, such as {"names": ["example.com"]}')
    preset = Preset(
        name=name,
        summary=reader.text("summary") or "",
        source=reader.text("source") or "",
        date=reader.text("date") or "",
        default=reader.boolean("default", False),
        names=_targets(reader, "names"),
        ranges=_targets(reader, "ranges"),
        file=file,
    )
    return preset if len(problems) == before else None


def _targets(reader: Reader, name: str) -> tuple[str, ...]:
    def check(entry: Any) -> str:
        if not isinstance(entry, str):
            raise Refused('must be a text such as "example.com" or "192.0.2.0/24:443"')
        found: Target = target.parse(entry)
        if isinstance(found.host, str) != (name == "names"):
            raise Refused("names belong into `names`, addresses and networks into `ranges`")
        return entry

    example = '["example.com"]' if name == "names" else '["192.0.2.0/24"]'
    texts = (reader.accept(key, entry, check) for key, entry in reader.entries(name, example))
    return tuple(text for text in texts if text is not None)
