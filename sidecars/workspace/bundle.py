"""A git bundle of what a `Source` names, in a temporary file: its size is known before it is sent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecars.workspace.git import LONG, git
from sidecars.workspace.source import Source


@contextmanager
def bundled(source: Source) -> Iterator[Path]:
    """Write the bundle; it is removed when the block ends.

    It holds the references of `Source.refspecs` with their whole history, and the tags in that history (version numbers are
    often made from tags).

    Raises:
        UserError: ``program-failed`` (for instance a full disk), with git's own words.
    """
    with tempfile.TemporaryDirectory(prefix="cspace-bundle-") as folder:
        path = Path(folder) / "source.bundle"
        starts = [spec.split(":")[0] for spec in source.refspecs]
        merged = [word for start in starts for word in ("--merged", start)]
        tags = git(source.root, "for-each-ref", "--format=%(refname)", *merged, "refs/tags", seconds=300)
        wanted = [*starts, *tags.text.splitlines()]
        # Deltas are reused, new ones are not searched for: the bundle lives for seconds.
        git(
            source.root, "-c", "pack.window=0", "bundle", "create", "-q", str(path), "--stdin",
            stdin="".join(f"{line}\n" for line in wanted).encode(), seconds=LONG,
        )  # fmt: skip
        yield path
