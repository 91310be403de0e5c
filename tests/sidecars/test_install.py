from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netpolicy.errors import Exit, UserError
from sidecars import install
from sidecars.engine import Engine, address
from sidecars.install import apt_install, ensure_engine, start
from sidecars.progress import Step, silent


class Machine:
    """A machine as the installer sees it: which programs it has, and what they were asked to do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.record = folder / "asked"
        self.record.write_text("")
        self.log = folder / "dockerd.log"
        self.socket = folder / "docker.sock"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setattr(address, "DEFAULT", f"unix://{self.socket}")
        monkeypatch.setattr(install, "_LOG", self.log)
        monkeypatch.setattr(install, "_SCRIPT", folder / "no-script")

    def program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.record}\n{body}\n')
        path.chmod(0o755)

    def user(self, number: int) -> None:
        self._monkeypatch.setattr(os, "geteuid", lambda: number)

    @property
    def asked(self) -> list[str]:
        return self.record.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_somebody_who_is_not_root_is_told_what_still_works(machine: Machine) -> None:
    machine.user(1000)
    machine.program("apt-get", "")
    with pytest.raises(UserError) as caught:
        ensure_engine()
    assert (caught.value.code, caught.value.exit_status) == ("engine-unreachable", Exit.MISSING)
    assert "netpolicy run" in str(caught.value.hint)
    assert machine.asked == []


def test_root_of_another_system_is_told_so(machine: Machine) -> None:
    machine.user(0)
    with pytest.raises(UserError, match="no socket") as caught:
        ensure_engine()
    assert "neither Debian nor Ubuntu" in str(caught.value.hint)


def test_an_engine_that_was_named_is_not_replaced(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.user(0)
    machine.program("apt-get", "")
    machine.program("dockerd", "")
    with pytest.raises(UserError, match="elsewhere"):
        ensure_engine(host="unix:///elsewhere.sock")
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    with pytest.raises(UserError, match="DOCKER_HOST"):
        ensure_engine()
    assert machine.asked == []


def test_a_permission_is_not_taken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.user(1000)

    def refused(_engine: Engine) -> None:
        raise UserError("engine-permission", "you may not")

    monkeypatch.setattr(Engine, "info", refused)
    with pytest.raises(UserError, match="you may not"):
        ensure_engine()


def test_it_is_said_before_it_is_installed(machine: Machine) -> None:
    machine.user(0)
    # The package brings a daemon that fails, which is enough to see the order of things.
    machine.program(
        "apt-get", f"printf '#!/bin/sh\\necho no bridges here >&2; exit 1\\n' > {machine.bin}/dockerd; "
        f"/bin/chmod 755 {machine.bin}/dockerd"
    )  # fmt: skip
    machine.program("apt-cache", '[ "$2" = docker-cli ] && exit 100; exit 0')
    steps: list[Step] = []

    def report(step: Step) -> None:
        if not steps:
            assert not [line for line in machine.asked if line.startswith("apt-get")]
        steps.append(step)

    with pytest.raises(UserError, match="no bridges here") as caught:
        ensure_engine(report)
    assert caught.value.code == "engine-not-started"
    assert steps[0].message == "installing the Debian packages docker.io, to have a Docker engine"
    (asked,) = [line for line in machine.asked if line.startswith("apt-get")]
    assert "install -y" in asked
    assert asked.endswith(" docker.io")
    assert str(machine.log) in str(caught.value.hint)


def test_old_package_lists_are_renewed_once(machine: Machine) -> None:
    machine.program("apt-get", f'case "$1" in update) : > {machine.bin}/fresh;; *) [ -e {machine.bin}/fresh ];; esac')
    apt_install(["one", "two"], "for a test", silent)
    assert [line.split()[1] for line in machine.asked] == ["install", "update", "install"]


def test_apts_last_words_are_shown(machine: Machine) -> None:
    machine.program("apt-get", "echo 'E: Unable to locate package one' >&2; exit 100")
    with pytest.raises(UserError, match="Unable to locate package one") as caught:
        apt_install(["one"], "for a test", silent)
    assert caught.value.code == "install-failed"
    assert "apt-get install one" in str(caught.value.hint)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_daemon_that_never_answers_is_given_up(machine: Machine) -> None:
    machine.program("dockerd", f"echo $$ > {machine.bin}/pid; exec /bin/sleep 300")

    class Hurried:
        time = 0.0

        def monotonic(self) -> float:
            # Not before it has begun, as it would be in 60 seconds.
            self.time += 5 if (machine.bin / "pid").exists() else 0.001
            return self.time

        def now(self) -> float:
            return 0.0

    with pytest.raises(UserError, match="does not answer after 60 s") as caught:
        start(Engine(), silent, clock=Hurried())
    assert caught.value.code == "engine-not-started"
    # It would be in the way of the next attempt.
    pid = int((machine.bin / "pid").read_text())
    deadline = time.monotonic() + 10
    while "sleep" in _command(pid):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


def test_only_this_starts_words_are_shown(machine: Machine) -> None:
    machine.log.write_text("words of long ago\n")
    machine.program("dockerd", "echo words of today; exit 3")
    with pytest.raises(UserError, match="words of today") as caught:
        start(Engine(), silent)
    assert "long ago" not in caught.value.message
    assert "status 3" in caught.value.message


def test_a_script_that_gives_up_is_followed_by_the_daemon_itself(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("script", "exit 2")
    machine.program("dockerd", "exit 3")
    monkeypatch.setattr(install, "_SCRIPT", machine.bin / "script")
    with pytest.raises(UserError):
        start(Engine(), silent)
    assert machine.asked == ["script start", "dockerd "]


PRIVATE = """
mount -t tmpfs none /run && mount -t tmpfs none /var/lib/docker && mount -t tmpfs none /var/log
ip link set lo up
exec "$@"
"""
PROGRAM = """
from sidecars.install import ensure_engine
first = ensure_engine(lambda step: print(step.message))
print("actions", len(first.actions))
again = ensure_engine()
print("again", len(again.actions), again.engine.info().data_root)
"""


@pytest.mark.docker
@pytest.mark.requirement("I5")
def test_a_machine_without_a_running_engine_gets_one() -> None:
    """In namespaces of its own: an empty /run, no engine, no service manager."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
    Path("/var/lib/docker").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", PRIVATE, "sh", sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, timeout=120, check=False, env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("dockerd in the background" in line or "/etc/init.d/docker" in line for line in lines)
    assert lines[-2:] == ["actions 1", "again 0 /var/lib/docker"]


def test_an_engine_that_answers_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "info", lambda _engine: None)
    machine.program("apt-get", "")
    found = ensure_engine()
    assert found.actions == ()
    assert machine.asked == []
