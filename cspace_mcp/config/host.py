"""What is set once for a machine, not for a project: one gate serves all projects of a Docker host.

``$XDG_CONFIG_HOME/cspace/host.json`` (``~/.config/cspace/host.json``): ``{"gate": {"prefix": "csp-", "backend": "auto"}}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from netpolicy.errors import Exit, UserError
from netpolicy.policy import Problem
from netpolicy.policy.files import read_json
from netpolicy.policy.problems import nearest
from sidecars.gate import Backend
from sidecars.networks import PREFIX

#: An interface's name has at most 15 bytes (IFNAMSIZ), and eight of ours are the instance's tag.
_VALID = re.compile(r"[a-z][a-z0-9]{0,5}-")


def _prefix(value: str) -> str:
    if not _VALID.fullmatch(value):
        text = "must be a letter, at most five more letters or digits, and a dash, e.g. 'csp-' (lower case)"
        raise PydanticCustomError("cspace", "{text}", {"text": text})
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HostGate(_Section):
    """`gate`: the one gate of the machine's Docker engine."""

    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default=PREFIX, description="How names of instances' bridge interfaces begin; what begins so is locked."
    )
    backend: Backend = Field(
        default="auto",
        description="What filters packets: auto, nftables, or ipset (with iptables, for kernels without nf_tables).",
    )


class HostSettings(_Section):
    """The whole file."""

    gate: HostGate = HostGate()


def host_file(environ: Mapping[str, str]) -> Path:
    """Where the settings are; a relative XDG_CONFIG_HOME is ignored, as the specification asks."""
    base = environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".config"
    return folder / "cspace" / "host.json"


def host_settings(environ: Mapping[str, str]) -> HostSettings:
    """Read and check them; without the file everything has its default.

    Raises:
        UserError: ``bad-config``, as with a project's files.
    """
    path = host_file(environ)
    problems: list[Problem] = []
    document = read_json(path, str(path), problems) if path.is_file() else {}
    if document is not None:
        try:
            return HostSettings.model_validate(document)
        except ValidationError as error:
            problems += [_problem(entry, path) for entry in error.errors(include_url=False)]
    raise UserError(
        "bad-config",
        "\n  ".join(str(problem) for problem in problems),
        hint="docs/config.md shows every key.",
        exit_status=Exit.BAD_INPUT,
        details={"problems": [asdict(problem) for problem in problems]},
    )


def _problem(entry: Any, path: Path) -> Problem:
    key = ".".join(map(str, entry["loc"]))
    if entry["type"] == "extra_forbidden":
        known = HostGate.model_fields if len(entry["loc"]) > 1 else HostSettings.model_fields
        return Problem(str(path), key, None, f"unknown key; {nearest(str(entry['loc'][-1]), list(known))}")
    return Problem(str(path), key, entry["input"], entry["msg"].removeprefix("Input ").replace("should be", "must be"))
