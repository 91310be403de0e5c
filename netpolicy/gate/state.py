"""The gate's memory across restarts: one JSON file, replaced as a whole.

It is written before the kernel is changed, so that what the kernel holds is always known here. A file that cannot be read opens
nothing: its attachments stay locked until they are attached again, and `Loaded.problems` says so.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.gate import former
from netpolicy.ruleset import Ruleset

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """What to go back to, unless somebody confirms what was applied."""

    ruleset: Ruleset | None
    """None: locked."""
    upstreams: tuple[str, ...] | None
    applied_at: float | None
    by: float
    """The deadline, in seconds since the epoch."""
    seconds: float
    """How long it was when it began: no clock that was set back makes it longer."""

    def left(self, now: float) -> float:
        """Seconds that are left of it."""
        return min(self.by - now, self.seconds)

    def to_json(self) -> dict[str, Any]:
        """The form in the file."""
        return {
            "ruleset": None if self.ruleset is None else self.ruleset.to_json(),
            "upstreams": None if self.upstreams is None else list(self.upstreams),
            "applied_at": self.applied_at,
            "by": self.by,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Unconfirmed:
        """Read `to_json`'s form. Raises KeyError, TypeError or ValueError on a malformed document."""
        ruleset, upstreams = document["ruleset"], document["upstreams"]
        return cls(
            ruleset=None if ruleset is None else Ruleset.from_json(ruleset),
            upstreams=None if upstreams is None else tuple(upstreams),
            applied_at=document["applied_at"],
            by=_finite(document["by"]),
            seconds=_finite(document["seconds"]),
        )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no time")
    return number


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one attachment."""

    attachment: Attachment
    ruleset: Ruleset | None = None
    """As it was applied, with rules that have ended meanwhile. None: locked."""
    upstreams: tuple[str, ...] | None = None
    """None: the gate's own."""
    dns_port: int | None = None
    applied_at: float | None = None
    unconfirmed: Unconfirmed | None = None
    locked_by: str | None = None
    """Why the gate itself has locked it, until a ruleset is applied again."""

    def back(self) -> Record:
        """What was in force before something that nobody confirmed."""
        before = self.unconfirmed
        assert before is not None
        return replace(
            self,
            ruleset=before.ruleset,
            upstreams=before.upstreams,
            applied_at=before.applied_at,
            unconfirmed=None,
        )

    def to_json(self) -> dict[str, Any]:
        """The form in the file."""
        return {
            "attachment": self.attachment.to_json(),
            "ruleset": None if self.ruleset is None else self.ruleset.to_json(),
            "upstreams": None if self.upstreams is None else list(self.upstreams),
            "dns_port": self.dns_port,
            "applied_at": self.applied_at,
            "unconfirmed": None if self.unconfirmed is None else self.unconfirmed.to_json(),
            "locked_by": self.locked_by,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Record:
        """Read `to_json`'s form. Raises KeyError, TypeError or ValueError on a malformed document."""
        ruleset, upstreams, unconfirmed = document["ruleset"], document["upstreams"], document["unconfirmed"]
        return cls(
            attachment=Attachment.from_json(document["attachment"]),
            ruleset=None if ruleset is None else Ruleset.from_json(ruleset),
            upstreams=None if upstreams is None else tuple(upstreams),
            dns_port=document["dns_port"],
            applied_at=document["applied_at"],
            unconfirmed=None if unconfirmed is None else Unconfirmed.from_json(unconfirmed),
            locked_by=document["locked_by"],
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a state file held."""

    records: tuple[Record, ...]
    problems: tuple[str, ...]


class StateStore:
    """The state file of one gate, in a directory that no other gate uses.

    Args:
        directory: Made where it is missing, for root's eyes only.

    Raises:
        UserError: ``state-directory`` (it cannot be made), ``gate-running`` (another gate uses it).
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "attachments.json"
        self._damaged = False
        self._texts: dict[str, tuple[Record, bytes]] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                "state-directory",
                f"the state directory {directory} cannot be used: {error.strerror}",
                hint="Name another one with --state.",
                exit_status=Exit.BAD_INPUT,
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UserError(
                "gate-running", f"another gate uses the state directory {directory}", exit_status=Exit.CONFLICT
            ) from error

    def load(self) -> Loaded:
        """What was saved last. Never raises for what the file holds."""
        loaded = self._load()
        self._damaged = bool(loaded.problems)
        return loaded

    def _load(self) -> Loaded:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Loaded((), ())
        except OSError as error:
            return Loaded((), (f"the state file {self.path} cannot be read ({error.strerror}): everything is locked",))
        try:
            document = json.loads(text)
            if document["format"] not in (1, _FORMAT):
                raise ValueError(f"its format is {document['format']!r}, not {_FORMAT}")
            rows, old = list(document["attachments"]), document["format"] == 1
        except (ValueError, KeyError, TypeError) as error:
            return Loaded((), (f"the state file {self.path} is damaged ({error!r}): everything is locked",))
        records: list[Record] = []
        problems: list[str] = []
        for row in rows:
            record, problem = _read(row, old=old)
            if record is not None:
                records.append(record)
            if problem is not None:
                problems.append(f"in the state file {self.path}, {problem}")
        return Loaded(tuple(records), tuple(problems))

    def save(self, records: Iterable[Record]) -> None:
        """Replace the file; on return it is on the disk. A damaged one is kept beside it, as ``attachments.json.damaged``.

        Raises:
            UserError: ``state-not-saved``; the old file is still there.
        """
        parts = self._written(records)
        fresh = self.path.with_suffix(".json.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            if self._damaged:
                self.path.replace(self.path.with_suffix(".json.damaged"))
                self._damaged = False
            fresh.replace(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise UserError(
                "state-not-saved",
                f"the gate's state cannot be saved to {self.path}: {error.strerror}",
                hint="Free space there; nothing was changed.",
            ) from error

    def _written(self, records: Iterable[Record]) -> Iterator[bytes]:
        """The file's content, in pieces. What has not changed since the last time, most attachments of many, is not written out anew."""
        texts: dict[str, tuple[Record, bytes]] = {}
        for record in records:
            known = self._texts.get(record.attachment.id)
            if known is None or known[0] is not record:
                known = record, json.dumps(record.to_json()).encode()
            texts[record.attachment.id] = known
        self._texts = texts
        return _document(text for _, text in texts.values())

    def close(self) -> None:
        """Let another gate use the directory."""
        os.close(self._lock)


def _document(rows: Iterable[bytes]) -> Iterator[bytes]:
    yield b'{"format": %d, "attachments": [' % _FORMAT
    for number, row in enumerate(rows):
        yield b", " if number else b""
        yield row
    yield b"]}"


def _read(row: Any, *, old: bool) -> tuple[Record | None, str | None]:
    """One row: as much of it as is sound, and what was wrong with the rest."""
    try:
        return Record.from_json(former.row(row) if old else row), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"one attachment is damaged ({error!r})"
    try:
        attachment = Attachment.from_json(row["attachment"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, f"{problem}: it is locked until it is attached again"
    return Record(attachment), f"{problem}: {attachment.name} is locked until a policy is applied again"
