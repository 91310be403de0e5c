"""What Docker's labels cannot say: in which phase an instance is, why, and who is working on it right now.

One SQLite file (WAL) in ``$XDG_STATE_HOME/cspace``. It is a help, not the record: what exists is told by labels, and an
instance without an entry is listed and removed all the same. Beside it one lock file an instance, held with flock by whoever
changes that instance, so a process that dies holds nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError

_SCHEMA = """
create table if not exists phase (
    engine text not null, project text not null, instance text not null,
    phase text not null, reasons text not null, at real not null
);
create index if not exists phase_instance on phase (engine, project, instance);
pragma user_version = 1;
"""
_BUSY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Key:
    """Which instance, where."""

    engine: str
    """The engine's address: the same project may have instances on several."""
    project: str
    instance: str

    def __str__(self) -> str:
        return f"{self.project}/{self.instance}"


@dataclass(frozen=True, slots=True)
class Entry:
    """The last thing recorded of an instance."""

    key: Key
    phase: str
    reasons: tuple[str, ...]
    at: float
    """Seconds since the epoch."""


def state_folder(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/cspace``; a relative value is ignored, as the specification asks."""
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "cspace"
    return Path(environ.get("HOME") or Path.home()) / ".local/state/cspace"


class Journal:
    """The phases of all instances that this user works with.

    Args:
        folder: Where the files are; None for the user's own (`state_folder`).
        clock: For the times recorded.

    Every method raises UserError ``state-unusable`` when the files cannot be written.
    """

    def __init__(self, folder: Path | None = None, clock: Clock | None = None) -> None:
        self.folder = state_folder(os.environ) if folder is None else folder
        self._clock = clock or SystemClock()

    def record(self, key: Key, phase: str, reasons: Sequence[str] = ()) -> None:
        """Note that an instance entered a phase."""
        with self._database() as database:
            database.execute(
                "insert into phase values (?, ?, ?, ?, ?, ?)",
                (key.engine, key.project, key.instance, phase, json.dumps(list(reasons)), self._clock.now()),
            )

    def entries(self, engine: str, project: str | None = None) -> dict[Key, Entry]:
        """The last entry of each instance on an engine, of one project or of all."""
        with self._database() as database:
            rows = database.execute(
                "select project, instance, phase, reasons, at from phase where engine = ? order by rowid", (engine,)
            ).fetchall()
        found = {}
        for name, instance, phase, reasons, at in rows:
            if project is None or name == project:
                key = Key(engine, name, instance)
                found[key] = Entry(key, phase, tuple(json.loads(reasons)), at)
        return found

    def history(self, key: Key) -> list[Entry]:
        """Every phase of an instance since it was made, oldest first."""
        with self._database() as database:
            rows = database.execute(
                "select phase, reasons, at from phase where engine = ? and project = ? and instance = ? order by rowid",
                (key.engine, key.project, key.instance),
            ).fetchall()
        return [Entry(key, phase, tuple(json.loads(reasons)), at) for phase, reasons, at in rows]

    def forget(self, key: Key) -> None:
        """Drop everything about an instance that is gone."""
        with self._database() as database:
            database.execute(
                "delete from phase where engine = ? and project = ? and instance = ?",
                (key.engine, key.project, key.instance),
            )

    @contextmanager
    def lock(self, key: Key, *, seconds: float = 0.0, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Be the only one who changes an instance, in all threads and processes of this user.

        Args:
            key: The instance.
            seconds: How long to wait for whoever holds it.
            waiting: Called now and then while waiting, with the holder's own words; it may raise to give up.

        Raises:
            UserError: ``instance-busy`` when somebody else still holds it.
        """
        deadline = self._clock.monotonic() + seconds
        path = self._lock_file(key)
        while (descriptor := self._try_lock(path)) is None:
            holder = self.holder(key) or "another process"
            if self._clock.monotonic() >= deadline:
                raise UserError(
                    "instance-busy",
                    f"{key.instance} is being changed by {holder}",
                    hint="Wait for it to end, then try again.",
                    exit_status=Exit.CONFLICT,
                )
            if waiting is not None:
                waiting(holder)
            time.sleep(0.1)
        try:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
            yield
        finally:
            # Removed while held: whoever waits for this file sees that it is not the one at this path any more.
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def holder(self, key: Key) -> str | None:
        """Who is changing an instance now, None where nobody is."""
        path = self._lock_file(key)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "another process"
        else:
            return None
        finally:
            os.close(descriptor)

    def _lock_file(self, key: Key) -> Path:
        digest = hashlib.sha256(json.dumps([key.engine, key.project, key.instance]).encode()).hexdigest()[:16]
        return self.folder / "locks" / f"{key.project}-{key.instance}-{digest}"

    def _try_lock(self, path: Path) -> int | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = path.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            current = False
        if current:
            return descriptor
        os.close(descriptor)
        return None

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection with one transaction around the block."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(sqlite3.connect(self.folder / "instances.db", timeout=_BUSY_SECONDS)) as database:
                if database.execute("pragma user_version").fetchone() == (0,):
                    self._prepare(database)
                with database:
                    database.execute("begin immediate")
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def _prepare(self, database: sqlite3.Connection) -> None:
        # Changing the journal's mode does not wait for others as statements do, so only one may be at it.
        with (self.folder / "instances.lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            database.executescript(f"pragma journal_mode=wal; begin immediate; {_SCHEMA} commit;")

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            "state-unusable",
            f"cannot keep records in {self.folder}: {error}",
            hint="Free space or mend the permissions there, or set XDG_STATE_HOME to another folder.",
        )
