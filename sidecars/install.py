"""A Docker engine for machines that have none: found, or (as root on Debian or Ubuntu, after saying so) installed and started.

It is started by systemd where that runs this machine; else by Debian's script for services; and where that gives up (in containers
and minimal machines it does), ``dockerd`` itself is started in the background, with its output in a log file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from netpolicy.clock import Clock, SystemClock
from netpolicy.command import run
from netpolicy.errors import Exit, UserError
from sidecars.engine import Engine
from sidecars.progress import Reporter, Step, silent
from sidecars.watched import Watched

#: The engine; and Docker's client, which newer Debian packages apart and people (and our hints) like to have.
PACKAGES = ("docker.io", "docker-cli")
START_SECONDS = 60.0
_APT_SECONDS = 900.0
_LOG = Path("/var/log/cspace-dockerd.log")
_SCRIPT = Path("/etc/init.d/docker")
_SCRIPT_LOG = Path("/var/log/docker.log")


@dataclass(frozen=True, slots=True)
class Installed:
    """How the engine came to be there."""

    engine: Engine
    actions: tuple[str, ...]
    """What was done, for people; empty when it was there all along."""


def ensure_engine(reporter: Reporter = silent, *, host: str | None = None) -> Installed:
    """An engine that answers. See the module's docstring for what may be done to get one.

    Raises:
        UserError: ``engine-unreachable`` or ``engine-permission`` where nothing can or may be done about it,
            ``engine-not-started`` with the daemon's last words, ``install-failed``.
    """
    engine = Engine(host)
    try:
        engine.info()
    except UserError as error:
        if error.code != "engine-unreachable" or engine.address.origin != "default":
            # An engine that the user has named is theirs to mend, and a permission is not ours to take.
            raise
        reason = error
    else:
        return Installed(engine, ())
    if os.geteuid() != 0:
        raise _advised(reason, "Only root can install or start one.")
    actions = []
    if shutil.which("dockerd") is None:
        if not can_install():
            raise _advised(reason, "This is neither Debian nor Ubuntu, so install it as your system does.")
        packages = [PACKAGES[0], *(p for p in PACKAGES[1:] if _known(p))]
        apt_install(packages, "to have a Docker engine", reporter)
        actions.append(f"installed the Debian packages {' '.join(packages)}")
    if not _answers(engine):
        actions.append(start(engine, reporter))
    return Installed(engine, tuple(actions))


def can_install() -> bool:
    """Whether Debian packages can be installed: root, and apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: tuple[str, ...] | list[str], why: str, reporter: Reporter) -> None:
    """Install Debian packages, saying so first. Raises ``install-failed`` with apt's last words."""
    names = " ".join(packages)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        watched = Watched(reporter, Step("install", f"installing the Debian packages {names}, {why}"))
        try:
            _apt_get_install(watched, packages, quiet)
        except UserError as error:
            if error.code != "program-failed":
                raise
            # Package lists may be absent or too old to name files that still exist.
            watched.program(["apt-get", "update", "-qq"], seconds=_APT_SECONDS, env=quiet)
            _apt_get_install(watched, packages, quiet)
    except UserError as error:
        raise UserError(
            "install-failed",
            f"could not install the Debian packages {names}: {error.message}",
            hint=f"Try it by hand: apt-get update && apt-get install {names}",
            details=error.details,
        ) from error


def _known(package: str) -> bool:
    return run(["apt-cache", "show", package], ok=range(256)).status == 0


def _apt_get_install(watched: Watched, packages: tuple[str, ...] | list[str], env: dict[str, str]) -> None:
    argv = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *packages]
    watched.program(argv, seconds=_APT_SECONDS, env=env)


def start(engine: Engine, reporter: Reporter, *, seconds: float = START_SECONDS, clock: Clock | None = None) -> str:
    """Start the machine's engine and wait until it answers; returns what was done.

    Raises:
        UserError: ``engine-not-started``, with the last lines of its log where it was started in the background.
    """
    clock = clock or SystemClock()
    if Path("/run/systemd/system").is_dir():
        _started_by(["systemctl", "start", "docker"], reporter, seconds, must=True)
        _await(engine, None, Path("/dev/null"), Watched(reporter, _starting("waiting for it"), clock), seconds, clock)
        return "started it with 'systemctl start docker'"
    # Where nothing is in charge of services Debian's script may be there all the same; it gives up where it may not raise limits.
    if _SCRIPT.exists() and _started_by([str(_SCRIPT), "start"], reporter, seconds, must=False):
        _await(engine, None, _SCRIPT_LOG, Watched(reporter, _starting("waiting for it"), clock), seconds, clock)
        return f"started it with '{_SCRIPT} start'"
    watched = Watched(reporter, _starting(f"dockerd in the background, its output goes to {_LOG}"), clock)
    begin = _LOG.stat().st_size if _LOG.exists() else 0
    process = _background()
    with ExitStack() as undo:
        # One that does not come up, or is not waited for any more, would be in the way of the next.
        undo.callback(process.terminate)
        _await(engine, process, _LOG, watched, seconds, clock, begin)
        undo.pop_all()
    return f"started dockerd in the background (process {process.pid}, its output is in {_LOG})"


def _starting(how: str) -> Step:
    return Step("install", f"starting the Docker engine: {how}")


def _started_by(argv: list[str], reporter: Reporter, seconds: float, *, must: bool) -> bool:
    try:
        Watched(reporter, _starting(" ".join(argv))).program(argv, seconds=seconds)
    except UserError as error:
        if must:
            raise UserError(
                "engine-not-started",
                f"the Docker engine does not start: {error.message}",
                hint="Its own words: journalctl -u docker -n 20",
                exit_status=Exit.MISSING,
                details=error.details,
            ) from error
        return False
    return True


def _await(
    engine: Engine,
    process: subprocess.Popen[bytes] | None,
    log: Path,
    watched: Watched,
    seconds: float,
    clock: Clock,
    begin: int = 0,
) -> None:
    deadline = clock.monotonic() + seconds
    while not _answers(engine):
        watched.beat()
        if process is not None and process.poll() is not None:
            raise _not_started(f"it ended at once with status {process.returncode}", log, begin)
        if clock.monotonic() > deadline:
            raise _not_started(f"it does not answer after {seconds:g} s", log, begin)
        time.sleep(0.1)


def _background() -> subprocess.Popen[bytes]:
    """``dockerd`` in a session of its own, so that it outlives us and our terminal."""
    with _LOG.open("ab") as log:
        return subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )


def _answers(engine: Engine) -> bool:
    try:
        engine.info()
    except UserError as error:
        if error.code in ("engine-unreachable", "engine-timeout"):
            return False
        raise
    return True


def _not_started(why: str, log: Path, begin: int) -> UserError:
    text = log.read_bytes()[begin:].decode(errors="replace") if log.is_file() else ""
    lines = text.splitlines()[-5:]
    tail = "".join(f"\n    {line}" for line in lines)
    return UserError(
        "engine-not-started",
        f"the Docker engine was started, but {why}{tail}",
        hint=f"Its output is in {log}. Without Docker, 'netpolicy run -- COMMAND' still runs a command behind the firewall.",
        exit_status=Exit.MISSING,
        details={"log": str(log), "lines": lines},
    )


def _advised(error: UserError, why: str) -> UserError:
    return UserError(
        error.code,
        error.message,
        hint=f"{why} Without Docker, 'netpolicy run -- COMMAND' still runs a command behind the firewall.",
        exit_status=error.exit_status,
        details=error.details,
    )
