"""From files and the environment to a `Policy`."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError
from netpolicy.policy.files import COMMITTED, LOCAL, Layers, find, is_toml, read_json, read_policy
from netpolicy.policy.model import DEFAULTS, Policy
from netpolicy.policy.parsing import Place, read
from netpolicy.policy.problems import Problem, bad_policy, printable, shown

_SECTION = "firewall"
#: Keys of a policy that the configuration of a project has no other use for at its top: a policy in the wrong place.
_MISPLACED = ("domains", "allow", "deny", "presets", "host_access", "policy_file")


def load(path: Path | None, *, environ: Mapping[str, str] | None = None) -> Policy:
    """Read a policy.

    Args:
        path: A ``.cspace.json`` (its `firewall` object, under that of a ``.cspace.local.json`` beside it), or a directory that
            holds one, or a file that is a policy object itself, TOML by its suffix and JSON otherwise; None for the built-in defaults.
        environ: Where ``CSPACE_FIREWALL_DOMAINS`` is looked up; None for nowhere.

    Raises:
        UserError: ``no-policy-file``, or ``bad-policy`` with every problem in its details.
    """
    problems: list[Problem] = []
    if path is None:
        policy = read({}, Place(DEFAULTS), environ, problems)
    elif _is(stat.S_ISDIR, path) or path.name == COMMITTED:
        policy = _project(base_of(path), environ, problems)
    else:
        policy = _file(path, environ, problems)
    if problems:
        raise bad_policy(problems)
    return policy


def base_of(path: Path) -> Path:
    """The directory of the project that a policy belongs to: presets and `policy_file` are looked for from there."""
    if _is(stat.S_ISDIR, path):
        return path
    return path.parent if path.name == COMMITTED else find(path.absolute().parent) or path.parent


def replaced(text: str, place: Place, key: str, environ: Mapping[str, str] | None, problems: list[Problem]) -> Policy:
    """The policy that `policy_file` names, which replaces everything but the environment."""
    path = (place.base or Path()) / text
    if not _is(stat.S_ISREG, path):
        problems.append(Problem(place.owner_of(key), key, text, f"there is no such file in {place.base or Path.cwd()}"))
        return Policy()
    document = read_policy(path, text, problems) or {}
    section, prefix = _section(document, path, text, problems)
    if "policy_file" in section:
        problems.append(Problem(text, "policy_file", section["policy_file"], "a policy file cannot name another one"))
        return Policy()
    return read(section, Place(printable(text), prefix, None, place.base), environ, problems)


def _project(folder: Path, environ: Mapping[str, str] | None, problems: list[Problem]) -> Policy:
    found = [folder / name for name in (COMMITTED, LOCAL) if (folder / name).is_file()]
    if not found:
        raise _missing(folder / COMMITTED)
    documents = []
    for file in found:
        document = read_json(file, _named(file), problems) or {}
        _misplaced(document, _named(file), problems)
        documents.append((_named(file), document))
    layers = Layers(tuple(documents))
    section = layers.merged().get(_SECTION, {})
    return read(section, Place(_named(found[0]), _SECTION, layers.owner, folder), environ, problems)


def _file(path: Path, environ: Mapping[str, str] | None, problems: list[Problem]) -> Policy:
    # A pipe is what a shell makes of --policy <(command).
    if not (_is(stat.S_ISREG, path) or _is(stat.S_ISFIFO, path)):
        raise _missing(path)
    name = _named(path)
    section, prefix = _section(read_policy(path, name, problems) or {}, path, name, problems)
    return read(section, Place(name, prefix, None, base_of(path)), environ, problems)


def _section(document: Mapping[str, Any], path: Path, name: str, problems: list[Problem]) -> tuple[Any, str]:
    """The policy object of a file, and the key that holds it."""
    if _SECTION not in document and path.name not in (COMMITTED, LOCAL):
        return document, ""
    _misplaced(document, name, problems)
    return document.get(_SECTION, {}), _SECTION


def _misplaced(document: Mapping[str, Any], name: str, problems: list[Problem]) -> None:
    for key in _MISPLACED:
        if key in document:
            form = f"[{_SECTION}]" if is_toml(name) else f'{{"{_SECTION}": {{"{key}": ...}}}}'
            problems.append(Problem(name, key, None, f"belongs inside `{_SECTION}`: {form}"))


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    """Whether a path is there and of a kind; what cannot be a path, for its length or its characters, is none."""
    try:
        return kind(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _missing(path: Path) -> UserError:
    return UserError(
        "no-policy-file",
        f"there is no policy file {shown(str(path))}",
        hint="Name a .cspace.json, or a JSON or TOML file that is a policy (docs/policy.md).",
        exit_status=Exit.BAD_INPUT,
    )


def _named(path: Path) -> str:
    """The path as short as it can be said from here."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
