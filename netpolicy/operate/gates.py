"""The gate in the background: found, started where none answers, and ended when nothing is left for it to hold."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from netpolicy.clock import SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.gate.client import GateClient
from netpolicy.kernel.backends import BACKENDS, Backend, open_enforcer
from netpolicy.operate.homes import Home

#: Seconds that a gate may take until it answers: it restores what it remembers first.
START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_BEAT = 0.05


@contextlib.contextmanager
def talk(home: Home, *, start: bool, backend: Backend = "auto") -> Iterator[GateClient]:
    """A conversation with the home's gate.

    Args:
        home: Where it lives.
        start: Start one in the background where none answers.
        backend: What the gate that is started filters packets with; ``auto``: as the one before it was told, where there was one.

    Raises:
        UserError: ``gate-unreachable`` or ``not-permitted``; ``gate-failed`` where it was started and does not answer.
    """
    if not start:
        with _connected(home) as gate:
            yield gate
        return
    with _used(home), _ensured(home, backend) as gate:
        yield gate


def forget(home: Home) -> bool:
    """End the gate if we have started it in the background and nothing is attached any more; says whether it was ended.

    One that somebody else is just about to attach something to is left running. Its table goes as well, so that nothing of it is left in the kernel.

    Raises:
        UserError: as the gate and the kernel.
    """
    with _unused(home) as unused:
        if not unused:
            return False
        with _connected(home) as gate:
            hello = gate.handshake()
            if gate.status().attachments or not _ours(home, hello.pid):
                return False
        netns = json.loads(home.background.read_text())["netns"]
        _end(hello.pid)
        # Where the namespace is gone, so is what was in it.
        with contextlib.suppress(UserError) if netns else contextlib.nullcontext():
            _uninstall(home.table, netns, cast(Backend, hello.backend))
        for path in (home.background, home.socket):
            path.unlink(missing_ok=True)
        if netns:
            shutil.rmtree(home.state, ignore_errors=True)  # there will be no such namespace again
        return True


def remembers(home: Home) -> bool:
    """Whether a gate that is not running has something to take up again."""
    try:
        document = json.loads((home.state / "attachments.json").read_text())
        return bool(document["attachments"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _connected(home: Home) -> GateClient:
    try:
        return GateClient.connect(home.socket)
    except UserError as error:
        if error.code == "gate-unreachable" and os.geteuid() != 0:
            raise needs_root() from error
        raise


def needs_root() -> UserError:
    """The error for whoever may not change the kernel's rules."""
    return UserError(
        "not-permitted",
        "the firewall of this machine's networks is root's business",
        hint="Try again with sudo.",
        exit_status=Exit.MISSING,
    )


def _ensured(home: Home, backend: Backend) -> GateClient:
    found = _answering(home)
    if found is not None:
        return found
    with _alone(home):
        # Another one may have started it while we waited for our turn.
        return _answering(home) or _wait(home, _start(home, backend))


def _answering(home: Home) -> GateClient | None:
    try:
        return _connected(home)
    except UserError as error:
        if error.code != "gate-unreachable":
            raise
        return None


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Of all programs that would start this gate, be the only one."""
    if os.geteuid() != 0:
        raise needs_root()
    with _open(home, "starting") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _used(home: Home) -> Iterator[None]:
    """While we use the gate nobody ends it for want of attachments. Who may talk to it without being root takes his chance."""
    if os.geteuid() != 0:
        yield
        return
    with _open(home, "used") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def _unused(home: Home) -> Iterator[bool]:
    """Whether nobody uses the gate; if so, nobody begins to in the block."""
    with _open(home, "used") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _open(home: Home, name: str) -> Iterator[int]:
    try:
        home.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(home.state / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            "state-directory", f"the state directory {home.state} cannot be used: {error.strerror}"
        ) from error
    try:
        yield lock
    finally:
        os.close(lock)


def _start(home: Home, backend: Backend) -> subprocess.Popen[bytes]:
    """The daemon, in a session of its own: neither the terminal nor a Ctrl-C of ours reaches it."""
    if backend == "auto":
        backend = _asked_for(home)
    words = ["gate", "serve", "--socket", str(home.socket), "--state", str(home.state), "--table", home.table]
    words += ["--no-prefix", "--backend", backend, *([] if home.netns is None else ["--netns", home.netns])]
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "netpolicy", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    known = {"pid": process.pid, "born": _born(process.pid), "netns": home.netns, "backend": backend}
    home.background.write_text(json.dumps(known))
    return process


def _asked_for(home: Home) -> Backend:
    """What the gate that we started last was to filter with; one that takes up again what it held must not change that."""
    try:
        asked = json.loads(home.background.read_text())["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
    return cast(Backend, asked) if asked in BACKENDS else "auto"


def _wait(home: Home, process: subprocess.Popen[bytes]) -> GateClient:
    clock = SystemClock()
    deadline = clock.monotonic() + START_SECONDS
    while True:
        found = _answering(home)
        if found is not None:
            return found
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_BEAT)
            raise _failed(home, f"it ended with status {process.returncode}")
        if clock.monotonic() > deadline:
            raise _failed(home, f"it does not answer after {START_SECONDS:g} s")


def _failed(home: Home, why: str) -> UserError:
    lines = home.log.read_text(errors="replace").splitlines()[-20:]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = [*(lines or ["it said nothing"]), *errors][-1]
    return UserError(
        "gate-failed",
        f"the gate could not be started: {why}: {said}",
        hint=f"Its log is {home.log}.",
        details={"log": lines},
    )


def _ours(home: Home, pid: int) -> bool:
    """Whether the gate is the process that we have started, and not one of a service manager or a person."""
    try:
        known = json.loads(home.background.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and known.get("pid") == pid and known.get("born") == _born(pid)


def _end(pid: int) -> None:
    """Ask it to end, and wait until it has: what it holds of the table must be gone before the table can go."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        ended, _, _ = select.select([descriptor], [], [], _STOP_SECONDS)
        if not ended:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _uninstall(table: str, netns: str | None, backend: Backend) -> None:
    enforcer = open_enforcer(backend, table=table, netns=netns)
    try:
        enforcer.uninstall()
    finally:
        enforcer.close()


def _born(pid: int) -> str:
    """When a process started, in the kernel's ticks (field 22 of /proc/PID/stat, proc(5)); empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
