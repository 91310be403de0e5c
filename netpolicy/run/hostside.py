"""What the root form changes on the host, on record before it is changed, so that it is undone whoever is left to do it.

A run has a record in a directory of its network namespace. `collect` undoes what the records of ended runs name, and the last
one's end puts the forwarding settings back. It is called by the run itself when it ends, by a process of its own that waits for
the run's death (`kill -9`), and by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy import command
from netpolicy.errors import Exit, UserError
from netpolicy.kernel.netlink import Netlink
from netpolicy.kernel.nftables.messages import Table

_BASE = Path("/run/netpolicy")
_IPV4 = "net/ipv4/ip_forward"
_IPV6 = "net/ipv6/conf/all/forwarding"
_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class Registry:
    """The records of all runs in one network namespace."""

    directory: Path

    @classmethod
    def of_this_namespace(cls) -> Registry:
        """The one of the namespace we are in.

        Raises:
            UserError: ``state-directory``.
        """
        directory = _BASE / f"run-{Path('/proc/self/ns/net').stat().st_ino}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UserError("state-directory", f"{directory} cannot be made: {error.strerror}") from error
        return cls(directory)

    def record(self, **what: Any) -> None:
        """Write down what this process is about to change; replaces what it wrote before."""
        with self._locked():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self.directory / "fresh"
            fresh.write_text(json.dumps(what))
            fresh.rename(self._own())

    def forward(self, *, v6: bool) -> None:
        """Switch forwarding on, remembering what it was. Only with a record."""
        with self._locked():
            wanted = {_IPV4: "1"}
            if v6 and (_SYSCTL / _IPV6).read_text().strip() == "0":
                # A host that learns its default route from advertisements would forget it when it begins to forward.
                wanted |= dict.fromkeys(_accepting(), "2") | {_IPV6: "1"}
            path = self.directory / "settings"
            before = json.loads(path.read_text()) if path.exists() else {}
            now = {key: (_SYSCTL / key).read_text().strip() for key in wanted}
            changes = {key: value for key, value in wanted.items() if now[key] != value}
            if not changes:
                return
            path.write_text(json.dumps({**{key: now[key] for key in changes}, **before}))
            for key, value in changes.items():
                _set(key, value)

    def collect(self, *, own: bool = False) -> None:
        """Undo what ended runs have left (and with `own`, what this one has made); the last one puts the settings back."""
        with self._locked():
            alive = 0
            for path in self.directory.glob("*.json"):
                if path != self._own() if own else _alive(path.stem):
                    alive += 1
                    continue
                _undo(json.loads(path.read_text()))
                path.unlink()
            settings = self.directory / "settings"
            if alive:
                return
            if settings.exists():
                # The other way round than they were made: forwarding off before advertisements count again.
                for key, value in reversed(json.loads(settings.read_text()).items()):
                    with contextlib.suppress(UserError):  # its interface may be gone
                        _set(key, value)
                settings.unlink()
            for leftover in ("fresh", "lock"):
                (self.directory / leftover).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.directory.rmdir()
                self.directory.parent.rmdir()

    def _own(self) -> Path:
        return self.directory / f"{os.getpid()}-{_born(os.getpid())}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Another one may remove the directory between our making it and our locking it.
        while True:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                lock = os.open(self.directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(lock).st_ino == (self.directory / "lock").stat().st_ino:
                    break
            os.close(lock)
        try:
            yield
        finally:
            os.close(lock)


def watch_over(registry: Registry) -> int:
    """Start the process that undoes things should this one be killed. Only while single-threaded.

    Returns:
        A descriptor; the process does its work and ends when all copies of it are closed.
    """
    reading, writing = os.pipe()
    if os.fork() != 0:
        os.close(reading)
        return writing
    try:
        # Out of the terminal's and the caller's reach, and holding nothing of theirs open.
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() != 0:
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.closerange(3, reading)
        os.closerange(reading + 1, os.sysconf("SC_OPEN_MAX"))
        os.read(reading, 1)
        registry.collect()
    finally:
        os._exit(0)


def _undo(record: dict[str, Any]) -> None:
    for words in record.get("rules", ()):
        # One that was never inserted cannot be deleted, and that is all right.
        with contextlib.suppress(UserError):
            command.run(words, seconds=20)
    if "table" in record:
        link = Netlink()
        try:
            table = Table(record["table"])
            link.transaction([table.add(), table.delete()])
        finally:
            link.close()


def _accepting() -> list[str]:
    """The settings of interfaces that take router advertisements only while the host does not forward."""
    base = _SYSCTL / "net/ipv6/conf"
    return [
        str(path.relative_to(_SYSCTL))
        for path in sorted(base.glob("*/accept_ra"))
        if path.parent.name not in ("all", "default", "lo") and path.read_text().strip() == "1"
    ]


def _set(key: str, value: str) -> None:
    try:
        (_SYSCTL / key).write_text(value)
    except OSError as error:
        raise UserError(
            "not-permitted",
            f"the host's setting {key} cannot be set to {value}: {error.strerror}",
            hint="Set it yourself, or use '--uplink pasta', which needs no change to the host.",
            exit_status=Exit.MISSING,
        ) from error


def _alive(stem: str) -> bool:
    pid, _, born = stem.partition("-")
    return _born(int(pid)) == born


def _born(pid: int) -> str:
    """When a process started (field 22 of /proc/PID/stat); empty where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
