"""From files and the environment to a `Policy`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError
from netpolicy.policy.files import COMMITTED, LOCAL, merge, read_json
from netpolicy.policy.model import Policy
from netpolicy.policy.parsing import read
from netpolicy.policy.problems import Problem, bad_policy
from netpolicy.policy.reading import Reader

_SECTION = "firewall"
#: Keys of a policy that the configuration of a project has no use for at its top: a misplaced policy, not another section.
_MISPLACED = ("domains", "allow", "presets", "host_access", "policy_file")


def load(path: Path | None, *, environ: Mapping[str, str] | None = None) -> Policy:
    """Read a policy.

    Args:
        path: A ``.cspace.json`` (its `firewall` object, under that of a ``.cspace.local.json`` beside it), or a file that is a
            policy object itself, or a directory that holds a ``.cspace.json``; None for the built-in defaults.
        environ: Where ``CSPACE_FIREWALL_DOMAINS`` is looked up; None for nowhere.

    Raises:
        UserError: ``no-policy-file``, or ``bad-policy`` with every problem in its details.
    """
    problems: list[Problem] = []
    if path is None:
        policy = read({}, source="built-in defaults", prefix="", base=None, environ=environ, problems=problems)
    else:
        policy = _load(path, environ, problems)
    if problems:
        raise bad_policy(problems)
    return policy


def _load(path: Path, environ: Mapping[str, str] | None, problems: list[Problem]) -> Policy:
    folder = path if path.is_dir() else path.parent
    files = [folder / COMMITTED, folder / LOCAL] if path.is_dir() or path.name == COMMITTED else [path]
    found = [file for file in files if file.is_file()]
    if not found or (not path.is_dir() and path not in found):
        raise UserError(
            "no-policy-file",
            f"there is no policy file {path}",
            hint="Name a .cspace.json, or a JSON file that is a policy (docs/policy.md).",
            exit_status=Exit.BAD_INPUT,
        )
    merged: dict[str, Any] = {}
    prefix = ""
    for file in found:
        document = read_json(file, _named(file), problems)
        section, prefix = _section(document or {}, file, problems)
        merged = merge(merged, section)
    return read(merged, source=_named(found[-1]), prefix=prefix, base=folder, environ=environ, problems=problems)


def _section(document: Mapping[str, Any], file: Path, problems: list[Problem]) -> tuple[Mapping[str, Any], str]:
    if file.name not in (COMMITTED, LOCAL) and _SECTION not in document:
        return document, ""
    for key in _MISPLACED:
        if key in document:
            problems.append(
                Problem(_named(file), key, None, f'belongs inside `{_SECTION}`: {{"{_SECTION}": {{"{key}": ...}}}}')
            )
    section = document.get(_SECTION, {})
    if not isinstance(section, Mapping):
        problems.append(
            Problem(_named(file), _SECTION, section, 'must be an object, such as {"domains": ["example.com"]}')
        )
        section = {}
    return section, _SECTION


def replaced(text: str, reader: Reader, *, base: Path | None, environ: Mapping[str, str] | None) -> Policy:
    """The policy that `policy_file` names, which replaces everything else."""
    path = (base or Path()) / text
    document = read_json(path, text, reader.problems)
    section, prefix = _section(document or {}, path, reader.problems)
    if "policy_file" in section:
        reader.problems.append(
            Problem(text, "policy_file", section["policy_file"], "a policy file cannot name another one")
        )
        section = {key: value for key, value in section.items() if key != "policy_file"}
    return read(section, source=text, prefix=prefix, base=base, environ=environ, problems=reader.problems)


def _named(path: Path) -> str:
    """The path as short as it can be said from here."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
