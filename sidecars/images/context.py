"""A build context: named files in memory, always the same archive and the same hash for the same contents."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import UserError
from sidecars.images import recipe as recipes
from sidecars.images.certificates import Certificate
from sidecars.images.recipe import Recipe

_LEFT_OUT = {"__pycache__", "_templates", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@dataclass(frozen=True)
class Context:
    """What is sent to the engine for a build."""

    files: Mapping[str, bytes]
    """Path to contents; a path that ends with ``/`` is an empty folder."""

    @property
    def dockerfile(self) -> str:
        """The instructions."""
        return self.files["Dockerfile"].decode()

    def hash(self, *more: str) -> str:
        """Sixteen hexadecimal digits over all names and contents, and over `more` (what else the image depends on)."""
        digest = hashlib.sha256()
        for name, data in [*sorted(self.files.items()), *((f"\0{i}", word.encode()) for i, word in enumerate(more))]:
            digest.update(f"{len(name)}:{name}:{len(data)}:".encode() + data)
        return digest.hexdigest()[:16]

    def archive(self) -> io.BytesIO:
        """The tar archive, with no times, owners or modes of this machine in it (the engine's cache looks at them)."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in sorted(self.files.items()):
                entry = tarfile.TarInfo(name.rstrip("/"))
                entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                entry.mode = 0o755 if name.endswith("/") else 0o644
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        buffer.seek(0)
        return buffer


def collect(recipe: Recipe, certificates: tuple[Certificate, ...]) -> Context:
    """Everything that an image is made from.

    Raises:
        UserError: ``installation-incomplete``, ``not-installed``.
    """
    files: dict[str, bytes] = {"certificates/": b""}
    files |= {f"certificates/{c.name}.crt": c.pem for c in certificates}
    files["Dockerfile"] = _read(recipes.templates() / recipe.template / "Dockerfile")
    files["requirements.lock"] = _read(recipes.lock_file(recipe))
    for package in recipe.packages:
        folder = recipes.package_folder(package)
        files |= {f"{recipe.below}{package}/{name}": _read(path) for name, path in _sources(folder)}
    if recipe.metadata:
        files |= _metadata(recipe.below)
    return Context(files)


def _sources(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not _LEFT_OUT.intersection(relative.parts) and path.suffix not in (".pyc", ".pyo"):
            yield relative.as_posix(), path


def _metadata(below: str) -> dict[str, bytes]:
    """Enough of a distribution that ``importlib.metadata`` knows our version inside the image as well."""
    folder = f"{below}{recipes.DISTRIBUTION}-{recipes.our_version()}.dist-info"
    text = f"Metadata-Version: 2.1\nName: {recipes.DISTRIBUTION}\nVersion: {recipes.our_version()}\n"
    return {f"{folder}/METADATA": text.encode()}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError("cannot-read", f"cannot read {path}, which goes into an image: {error.strerror}") from error
