"""From a directory to a checked `Config`, or one error that names every problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from cspace_mcp.config.files import COMMITTED, Layers, read
from cspace_mcp.config.model import Container, Document, Gate
from netpolicy.errors import Exit, UserError

if TYPE_CHECKING:
    from netpolicy.policy import Policy

_Problem = dict[str, Any]
#: Sections whose values may be secrets: a message names the key, never the value.
_SECRET = ("container.environment",)
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Config:
    """What one project's files (and the environment) say."""

    root: Path
    """The directory they were looked for in."""
    files: tuple[str, ...]
    """The names of those that exist, weakest first."""
    name: str | None
    """`project.name`, where it is set."""
    container: Container
    gate: Gate
    policy: Policy


def load(root: Path, *, environ: Mapping[str, str], policy_file: Path | None = None) -> Config:
    """Read and check the configuration of the project in `root`.

    Args:
        root: The git repository's top directory.
        environ: Where ``CSPACE_FIREWALL_DOMAINS`` is looked up.
        policy_file: Take the firewall policy from here instead (``cspace up --policy``).

    Raises:
        UserError: ``bad-config`` (or ``bad-policy`` when only the firewall is wrong), exit status 2, with every problem in
            ``details["problems"]`` as {file, key, value, message}.
    """
    layers = read(root)
    merged = layers.merged()
    firewall = merged.pop("firewall", {})
    document, problems = _check(merged, layers)
    policy, more = _policy(firewall, layers, root=root, environ=environ, policy_file=policy_file)
    problems += more
    if document is None or policy is None:
        raise _error(problems, code="bad-policy" if document is not None else "bad-config")
    return Config(
        root=root,
        files=tuple(name for name, _ in layers.documents),
        name=document.project.name,
        container=document.container,
        gate=document.gate,
        policy=policy,
    )


def _check(merged: dict[str, Any], layers: Layers) -> tuple[Document | None, list[_Problem]]:
    try:
        return Document.model_validate(merged), []
    except ValidationError as error:
        return None, [_problem(entry, layers) for entry in error.errors(include_url=False)]


def _policy(
    firewall: Any, layers: Layers, *, root: Path, environ: Mapping[str, str], policy_file: Path | None
) -> tuple[Policy | None, list[_Problem]]:
    from netpolicy import policy as language

    try:
        if policy_file is not None:
            return language.load(policy_file, environ=environ), []
        if not isinstance(firewall, Mapping):
            message = 'must be an object, e.g. {"domains": ["example.org"]}'
            return None, [_row(layers.owner("firewall"), "firewall", firewall, message)]
        source = layers.documents[-1][0] if layers.documents else COMMITTED
        return language.parse(firewall, source=source, base=root), []
    except UserError as error:
        if error.code != "bad-policy":
            raise
        rows: list[_Problem] = error.details.get("problems") or [_row("", "firewall", None, error.message)]
        if policy_file is None:
            rows = [{**row, "file": layers.owner(str(row.get("key", "firewall")))} for row in rows]
        return None, rows


def _problem(entry: Any, layers: Layers) -> _Problem:
    location: tuple[str | int, ...] = entry["loc"]
    key = _key(location)
    value = entry["input"]
    if entry["type"] == "extra_forbidden":
        return _row(layers.owner(key), key, value, f"unknown key; {_nearest(location)}", show=False)
    message = entry["msg"].removeprefix("Input ")
    return _row(layers.owner(key), key, value, message, show=not key.startswith(_SECRET))


def _nearest(location: tuple[str | int, ...]) -> str:
    model: type[BaseModel] = Document
    for step in location[:-1]:
        annotation = model.model_fields[str(step)].annotation
        assert isinstance(annotation, type)
        model = annotation
    known = [*model.model_fields, *(["firewall"] if model is Document else [])]
    near = get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"


def _key(location: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def _row(file: str, key: str, value: Any, message: str, *, show: bool = True) -> _Problem:
    return {"file": file, "key": key, "value": value if show else None, "message": message}


def _error(problems: list[_Problem], *, code: str) -> UserError:
    lines = [_line(problem) for problem in problems]
    message = lines[0] if len(lines) == 1 else f"{len(lines)} problems:" + "".join(f"\n  {line}" for line in lines)
    return UserError(
        code,
        message,
        hint="docs/config.md and docs/policy.md show every key.",
        exit_status=Exit.BAD_INPUT,
        details={"problems": problems},
    )


def _line(problem: _Problem) -> str:
    value = problem["value"]
    shown = "" if value is None else f" = {_short(value)}"
    return f"{problem['file']}: {problem['key']}{shown}: {problem['message']}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
