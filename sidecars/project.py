"""A project: a repository on the host, and the name under which its instances are kept together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import Exit, UserError
from sidecars import names
from sidecars.workspace.git import git


@dataclass(frozen=True, slots=True)
class Project:
    """Where instances come from."""

    name: str
    """A valid name (`sidecars.names.project`)."""
    root: Path
    """The top folder of the working tree, absolute."""

    @classmethod
    def at(cls, folder: Path, name: str | None = None) -> Project:
        """The project of a folder inside a checkout.

        Args:
            folder: Any folder of the working tree.
            name: The configured name; None makes one of the top folder's name.

        Raises:
            UserError: ``not-a-repository``, ``no-directory``, ``bad-name``, or as `sidecars.workspace.git.git`.
        """
        found = git(folder, "rev-parse", "--show-toplevel", ok=(0, 128))
        if found.status != 0 or not found.text:
            raise UserError(
                "not-a-repository",
                f"{folder} is not in the working tree of a git repository",
                hint="Go to a checkout, or make one: git init && git add -A && git commit -m first",
                exit_status=Exit.BAD_INPUT,
            )
        root = Path(found.text).resolve()
        return cls(names.project(root.name if name is None else name), root)
