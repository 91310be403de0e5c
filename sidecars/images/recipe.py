"""Which images there are, and where what goes into them is found: in a checkout and in an installed wheel."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from netpolicy.errors import Exit, UserError

#: The distribution that this code came in.
DISTRIBUTION = "cspace"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image of ours."""

    template: str
    """Folder below ``lib/templates``."""
    repository: str
    """The image's name; its tag is always ``latest``, its version stands in a label."""
    packages: tuple[str, ...]
    """Our own packages that go in."""
    below: str
    """Folder of the build context that holds those packages."""
    metadata: bool
    """Whether the distribution's metadata goes in beside them."""
    own_lock: bool
    """Whether the lock file is the template's own (else the project's)."""

    @property
    def name(self) -> str:
        """As the engine names it."""
        return f"{self.repository}:latest"


INSTANCE = Recipe("instance", "cspace-instance", ("netpolicy", "sidecars", "cspace_mcp"), "cspace/", True, False)
GATE = Recipe("gate", "cspace-gate", ("netpolicy",), "", False, True)


def our_version() -> str:
    """The version of the running installation."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError as error:
        raise UserError(
            "not-installed",
            "cspace runs from files that are not installed, so it cannot say which version it is",
            hint="Install it: 'pip install -e .' in the checkout, or 'make up'.",
            exit_status=Exit.MISSING,
        ) from error


def templates() -> Path:
    """The folder with one template a sub-folder."""
    package = Path(__file__).parents[1]
    carried = package / "_templates"
    return _existing(carried if carried.is_dir() else package.parent / "lib" / "templates")


def lock_file(recipe: Recipe) -> Path:
    """The pinned Python packages of an image."""
    if recipe.own_lock:
        return _existing(templates() / recipe.template / "requirements.lock")
    carried = templates() / "requirements.lock"
    return _existing(carried if carried.is_file() else templates().parents[1] / "requirements.lock")


def package_folder(name: str) -> Path:
    """Where one of our packages is."""
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise _incomplete(f"the package {name}")
    return Path(places[0])


def _existing(path: Path) -> Path:
    if not path.exists():
        raise _incomplete(str(path))
    return path


def _incomplete(what: str) -> UserError:
    return UserError(
        "installation-incomplete",
        f"this installation of cspace lacks {what}, without which no image can be built",
        hint="Install it again, from a wheel or with 'make up' in a checkout.",
        exit_status=Exit.MISSING,
    )
