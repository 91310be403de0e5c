"""The copies of providers' lists that `netpolicy presets refresh` keeps below the user's cache directory."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from netpolicy.presets.judging import Absurd, Lists, judged

#: A copy is some hundred lines; a file beyond this is something else.
LARGEST_BYTES = 4 << 20


class Damaged(ValueError):
    """A copy that cannot be used; its message is a clause for people."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What a provider answered."""

    source: str
    """The address that was asked."""
    at: float
    """When, in seconds since 1970."""
    lists: Lists


def place(name: str, environ: Mapping[str, str] | None = None) -> Path | None:
    """Where the copy of a preset's list is kept: ``$XDG_CACHE_HOME/netpolicy/presets/NAME.json``; None for users without a home."""
    known = os.environ if environ is None else environ
    # "All paths set in these environment variables must be absolute" (XDG Base Directory Specification).
    cache = Path(known.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        home = Path(known.get("HOME", ""))
        if not home.is_absolute():
            return None
        cache = home / ".cache"
    return cache / "netpolicy" / "presets" / f"{name}.json"


def read(path: Path, keys: Iterable[str]) -> Copy | None:
    """The copy at a path; None where there is none.

    Raises:
        Damaged: it cannot be read, is not whole, or was written by somebody else.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            _refuse_foreign(os.fstat(stream.fileno()))
            data = stream.read(LARGEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST_BYTES:
        raise Damaged("it is too large")
    try:
        document = json.loads(data)
        lists, dropped = judged(document, keys, {})
        source, at = document["source"], datetime.fromisoformat(document["fetched_at"])
        late = at.astimezone(UTC).year > 9000
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Damaged(str(error) if isinstance(error, Absurd) else "it is no copy that was written here") from error
    if dropped or late or at.tzinfo is None or not (isinstance(source, str) and source.isprintable()):
        raise Damaged("it is no copy that was written here")
    return Copy(source, at.timestamp(), lists)


def write(path: Path, copy: Copy) -> None:
    """Put a copy in the place of the one before, whole or not at all.

    Raises:
        OSError: it cannot be written; the one before is still there.
    """
    # Only whoever refreshes writes; loading it is to stay cheap.
    from tempfile import NamedTemporaryFile

    at = datetime.fromtimestamp(int(copy.at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {"source": copy.source, "fetched_at": at, **copy.lists}
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.stem}-", delete=False, encoding="utf-8") as stream:
        made = Path(stream.name)
        try:
            json.dump(document, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
            made.replace(path)
        except OSError:
            made.unlink(missing_ok=True)
            raise


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, or what stands in its place, such as a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_foreign(status: os.stat_result) -> None:
    """What others can write, others could open the firewall with."""
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Damaged("somebody else can write it")
    if not stat.S_ISREG(status.st_mode):
        raise Damaged("it is no file")
