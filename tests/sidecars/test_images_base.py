"""Where the base image comes from, on a Docker host without a registry, and what happens when its disk is full."""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker_host import docker_host

from netpolicy.clock import SystemClock
from netpolicy.errors import UserError
from netpolicy.lab import Lab
from sidecars.engine import ContainerSpec, Engine
from sidecars.images import base
from sidecars.images.base import BASE, ensure_base
from sidecars.images.context import Context
from sidecars.images.narration import Narration
from sidecars.progress import Step, silent

pytestmark = pytest.mark.docker

#: Stands in for mmdebstrap: a root file system of one file, and a record of how it was asked for.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" > {record}
case "$*" in *" trixie "*) ;; *) echo 'E: no suite' >&2; exit 2;; esac
for word in "$@"; do case "$word" in *.tar) out=$word;; esac; done
cp {archive} "$out"
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """On a lab's host: its internet has no registry."""
    with Lab() as lab, docker_host(lab) as host, Engine(host.url) as engine:
        yield engine


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Iterator[Path]:
    record, archive = tmp_path / "argv", tmp_path / "one-file.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("etc/debian_version")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"13.1\n"))
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(record=record, archive=archive))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    yield record
    engine.images.remove(BASE, force=True)


@pytest.mark.requirement("I5")
def test_without_a_registry_the_base_is_made_from_debian_packages(engine: Engine, mmdebstrap: Path) -> None:
    steps: list[Step] = []
    made = ensure_base(engine, steps.append)
    found = engine.images.get(BASE)
    assert found is not None
    assert found.id == made
    messages = [s.message for s in steps]
    assert messages[0] == "pulling debian:trixie-slim"
    assert any("from Debian packages" in m for m in messages)
    words = mmdebstrap.read_text().splitlines()
    assert "--variant=minbase" in words
    assert "trixie" in words
    assert any(w.startswith("deb ") and "trixie-security" in w for w in words)
    # It is there now, so nothing is done and nothing is said.
    steps.clear()
    assert ensure_base(engine, steps.append) == made
    assert steps == []


def test_a_bootstrap_that_fails_says_why_after_saying_why_there_was_one(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\necho 'E: the mirror is not there' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError) as caught:
        ensure_base(engine, silent)
    assert caught.value.code == "base-missing"
    assert "pull failed" in caught.value.message
    assert "the mirror is not there" in caught.value.message
    assert engine.images.get(BASE) is None


def test_whoever_may_not_install_mmdebstrap_reads_what_to_do(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.shutil, "which", lambda _program: None)
    monkeypatch.setattr(base, "can_install", lambda: False)
    with pytest.raises(UserError, match="mmdebstrap is not installed") as caught:
        ensure_base(engine, silent)
    assert caught.value.code == "base-missing"
    assert "docker import" in str(caught.value.hint)


def test_stopping_a_bootstrap_stops_its_program(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    class Cancelled(BaseException):
        pass

    def report(step: Step) -> None:
        if "Debian packages" in step.message and step.seconds:
            raise Cancelled

    with pytest.raises(Cancelled):
        ensure_base(engine, report)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert engine.images.get(BASE) is None


def test_a_registry_that_says_nothing_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def silence(repository: str, tag: str) -> Iterator[None]:
        asked.append((repository, tag))
        while True:
            yield None

    class Hurried(SystemClock):
        time = 0.0

        def monotonic(self) -> float:
            Hurried.time += 1.0
            return Hurried.time

    monkeypatch.setattr(engine.images, "pull", silence)
    with pytest.raises(UserError, match="said nothing for 20 s"):
        ensure_base(engine, silent, "registry.example/base:1", clock=Hurried())
    assert asked == [("registry.example/base", "1")]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Engine]:
    """An engine whose whole disk is 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "cst-disk", str(disk)], check=True)
    try:
        with Lab() as lab, docker_host(lab, options=["--data-root", str(disk)]) as host, Engine(host.url) as engine:
            yield engine
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def narrated(engine: Engine, context: Context) -> UserError:
    narration = Narration("cspace-toy", context.dockerfile, silent, SystemClock(), None)
    with pytest.raises(UserError) as caught:
        for message in engine.images.build(context.archive(), "toy:latest", labels={}):
            narration.hear(message)
    return narration.failure(caught.value)


def test_a_full_disk_is_one_clear_message_wherever_it_fills(full: Engine, tmp_path: Path) -> None:
    heavy = os.urandom(30 << 20)
    error = narrated(full, Context({"Dockerfile": b"FROM scratch\n# step: copying\nCOPY heavy /\n", "heavy": heavy}))
    assert error.code == "disk-full"
    assert "\n" not in error.message
    assert "docker image prune" in str(error.hint)
    assert full.images.get("toy:latest") is None
    assert full.containers.list() == []

    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("heavy")
        entry.size = len(heavy)
        tar.addfile(entry, io.BytesIO(heavy))
    with pytest.raises(UserError) as caught, archive.open("rb") as stream:
        list(full.images.load(stream, "toy", "latest"))
    assert caught.value.code == "disk-full"

    light = Context({"Dockerfile": b'FROM scratch\nCOPY light /\nCMD ["/light"]\n', "light": b"x"})
    list(full.images.build(light.archive(), "toy:latest", labels={}))
    name = f"cst-{secrets.token_hex(3)}"
    full.containers.create(ContainerSpec(name, "toy:latest", {}, network="none"))
    with pytest.raises(UserError) as caught:
        full.containers.put(name, "/", archive.read_bytes())
    assert caught.value.code == "disk-full"
    # What was written half goes with its container, and then there is room again.
    assert full.containers.remove(name)
    full.containers.create(ContainerSpec(name, "toy:latest", {}, network="none"))
    full.containers.put(name, "/", light.archive())
