"""From a directory to a checked `Config`, or one error that names every problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cspace_mcp.config.model import Container, Document, Gate
from netpolicy import policy as language
from netpolicy.errors import Exit, UserError
from netpolicy.policy import Policy, Problem
from netpolicy.policy.files import COMMITTED, LOCAL, Layers, read_json
from netpolicy.policy.model import DEFAULTS
from netpolicy.policy.parsing import KEYS
from netpolicy.policy.problems import nearest

#: Sections whose values may be secrets: a message names the key, never the value.
_SECRET = ("container.environment",)
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Config:
    """What one project's files (and the environment) say."""

    folder: Path
    """Where they were looked for."""
    files: tuple[str, ...]
    """The names of those that exist, weakest first."""
    name: str | None
    """`project.name`, where it is set."""
    container: Container
    gate: Gate
    policy: Policy


def load(folder: Path, *, environ: Mapping[str, str], policy_file: Path | None = None) -> Config:
    """Read and check the configuration in a folder; without files there everything has its default.

    Args:
        folder: Where ``.cspace.json`` and ``.cspace.local.json`` are (`netpolicy.policy.find`).
        environ: Where ``CSPACE_FIREWALL_DOMAINS`` is looked up.
        policy_file: Take the firewall policy from here instead (``cspace up --policy``).

    Raises:
        UserError: ``bad-config`` (``bad-policy`` where only the firewall is wrong), exit status 2, with every problem in
            ``details["problems"]`` as {file, key, value, message}; ``no-policy-file``.
    """
    problems: list[Problem] = []
    layers = _read(folder, problems)
    merged = layers.merged()
    firewall = merged.pop("firewall", {})
    document = _check(merged, layers, problems)
    wrong_here = len(problems)
    policy = _policy(firewall, layers, problems, folder=folder, environ=environ, policy_file=policy_file)
    if problems:
        raise _error(problems, code="bad-config" if wrong_here else "bad-policy")
    return Config(
        folder=folder,
        files=tuple(name for name, _ in layers.documents),
        name=document.project.name,
        container=document.container,
        gate=document.gate,
        policy=policy,
    )


def project_name(folder: Path) -> str | None:
    """`project.name` alone, for what must work although something else in the files is wrong (`list`, `exec`, `down`).

    Raises:
        UserError: ``bad-config`` where the name itself cannot be known.
    """
    problems: list[Problem] = []
    layers = _read(folder, problems)
    section = layers.merged().get("project", {})
    document = _check({"project": section}, layers, problems)
    if problems:
        raise _error(problems, code="bad-config")
    return document.project.name


def _read(folder: Path, problems: list[Problem]) -> Layers:
    paths = [(name, folder / name) for name in (COMMITTED, LOCAL)]
    read = [(name, read_json(path, name, problems)) for name, path in paths if path.is_file()]
    return Layers(tuple((name, document) for name, document in read if document is not None))


def _check(merged: dict[str, Any], layers: Layers, problems: list[Problem]) -> Document:
    try:
        return Document.model_validate(merged)
    except ValidationError as error:
        problems += [_problem(entry, layers) for entry in error.errors(include_url=False)]
        return Document()


def _policy(
    firewall: Any,
    layers: Layers,
    problems: list[Problem],
    *,
    folder: Path,
    environ: Mapping[str, str],
    policy_file: Path | None,
) -> Policy:
    try:
        if policy_file is not None:
            return language.load(policy_file, environ=environ)
        source = layers.documents[0][0] if layers.documents else DEFAULTS
        owner = layers.owner if layers.documents else None
        return language.parse(firewall, source=source, base=folder, environ=environ, owner=owner)
    except UserError as error:
        if error.code != "bad-policy":
            raise
        problems += [Problem(**row) for row in error.details["problems"]]
        return Policy()


def _problem(entry: Any, layers: Layers) -> Problem:
    location: tuple[str | int, ...] = entry["loc"]
    key = _key(location)
    if entry["type"] == "extra_forbidden":
        if key in KEYS:
            inside = f'belongs inside `firewall`: {{"firewall": {{"{key}": ...}}}}'
            return Problem(layers.owner(key), key, None, inside)
        return Problem(layers.owner(key), key, None, f"unknown key; {nearest(str(location[-1]), _known(location))}")
    value = None if key.startswith(_SECRET) else entry["input"]
    message = entry["msg"].removeprefix("Input ").replace("should be", "must be")
    return Problem(layers.owner(key), key, value, message)


def _known(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Document
    for step in location[:-1]:
        annotation = model.model_fields[str(step)].annotation
        assert isinstance(annotation, type)
        model = annotation
    return [*model.model_fields, *(["firewall"] if model is Document else [])]


def _key(location: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def _error(problems: list[Problem], *, code: str) -> UserError:
    lines = [str(problem) for problem in problems[:_MOST_SHOWN]]
    if len(problems) > _MOST_SHOWN:
        lines.append(f"and {len(problems) - _MOST_SHOWN} more")
    message = (
        lines[0] if len(lines) == 1 else f"{len(problems)} problems in the configuration:\n  " + "\n  ".join(lines)
    )
    return UserError(
        code,
        message,
        hint="docs/config.md and docs/policy.md show every key.",
        exit_status=Exit.BAD_INPUT,
        details={"problems": [asdict(problem) for problem in problems]},
    )
