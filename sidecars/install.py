"""A Docker engine for machines that have none: found, or (as root on Debian or Ubuntu, after saying so) installed and started.

Started is tried in this order: systemd where it runs this machine, the ``service`` command where it knows docker, and else
``dockerd`` itself in the background with its output in a log file, as in containers and minimal machines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from netpolicy.clock import Clock, SystemClock
from netpolicy.command import run
from netpolicy.errors import Exit, UserError
from sidecars.engine import Engine
from sidecars.progress import Reporter, Step, silent
from sidecars.watched import Watched

PACKAGES = ("docker.io",)
START_SECONDS = 60.0
_APT_SECONDS = 900.0
_LOG = Path("/var/log/cspace-dockerd.log")
_PIDFILE = Path("/var/run/docker.pid")


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
        apt_install(PACKAGES, "to have a Docker engine", reporter)
        actions.append(f"installed the packages {' '.join(PACKAGES)}")
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
        how, process = "systemctl start docker", None
    elif _has_service():
        how, process = "service docker start", None
    else:
        how, process = "dockerd in the background", None
    watched = Watched(reporter, Step("install", f"starting the Docker engine: {how}"), clock)
    if how == "dockerd in the background":
        process = _background()
    else:
        run(how.split(), seconds=seconds, ok=range(256))
    deadline = clock.monotonic() + seconds
    while not _answers(engine):
        watched.beat()
        if process is not None and process.poll() is not None:
            raise _not_started(f"it ended at once with status {process.returncode}")
        if clock.monotonic() > deadline:
            raise _not_started(f"it does not answer after {seconds:g} s")
        time.sleep(0.1)
    return how if process is None else f"{how}, its output in {_LOG}"


def _has_service() -> bool:
    return shutil.which("service") is not None and Path("/etc/init.d/docker").exists()


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


def _not_started(why: str) -> UserError:
    lines = _LOG.read_text(errors="replace").splitlines()[-5:] if _LOG.exists() else []
    tail = "".join(f"\n    {line}" for line in lines)
    return UserError(
        "engine-not-started",
        f"the Docker engine was started, but {why}{tail}",
        hint=f"Its output is in {_LOG}; without Docker, 'netpolicy run -- COMMAND' still works.",
        exit_status=Exit.MISSING,
        details={"log": str(_LOG), "lines": lines},
    )


def _advised(error: UserError, why: str) -> UserError:
    return UserError(
        error.code,
        error.message,
        hint=f"{why} Without Docker, 'netpolicy run -- COMMAND' still runs a command behind the firewall.",
        exit_status=error.exit_status,
        details=error.details,
    )
