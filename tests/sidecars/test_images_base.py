"""Where the base image comes from, on a Docker host without a registry, and what happens when its disk is full."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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
def place() -> Iterator[tuple[Lab, Engine]]:
    """A lab's host: its internet has no registry."""
    with Lab() as lab, docker_host(lab) as host, Engine(host.url) as engine:
        yield lab, engine


@pytest.fixture
def engine(place: tuple[Lab, Engine]) -> Engine:
    return place[1]


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
    assert (found.id, found.labels) == (made, {"cspace.role": "base"})
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


class Registry(BaseHTTPRequestHandler):
    """Just enough of a registry for one image of one layer: https://distribution.github.io/distribution/spec/api/"""

    protocol_version = "HTTP/1.1"
    blobs: ClassVar[dict[str, bytes]] = {}
    manifest: ClassVar[bytes] = b""
    KIND = "application/vnd.docker.distribution.manifest.v2+json"

    @classmethod
    def serve_one(cls, layer: bytes) -> None:
        packed = gzip.compress(layer)
        rootfs = {"type": "layers", "diff_ids": [cls._digest(layer)]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        cls.blobs = {cls._digest(blob): blob for blob in (packed, config)}
        layers = [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **cls._of(packed)}]
        kinds = {"schemaVersion": 2, "mediaType": cls.KIND}
        entry = {"mediaType": "application/vnd.docker.container.image.v1+json", **cls._of(config)}
        cls.manifest = json.dumps({**kinds, "config": entry, "layers": layers}).encode()

    @classmethod
    def _of(cls, blob: bytes) -> dict[str, object]:
        return {"size": len(blob), "digest": cls._digest(blob)}

    @staticmethod
    def _digest(blob: bytes) -> str:
        return f"sha256:{hashlib.sha256(blob).hexdigest()}"

    def do_GET(self) -> None:
        kind, last = "application/octet-stream", self.path.rpartition("/")[2]
        body = self.blobs.get(last, b"{}")
        if "/manifests/" in self.path:
            kind, body = self.KIND, self.manifest
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", self._digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry(place: tuple[Lab, Engine]) -> Iterator[str]:
    """A registry on the Docker host's own loopback, where the engine speaks plain HTTP."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    Registry.serve_one(buffer.getvalue())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry, bind_and_activate=False)
    server.socket.close()
    server.socket = place[0].host.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.server_bind()
    server.server_activate()
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def test_a_registry_that_answers_is_asked_first(engine: Engine, registry: str) -> None:
    steps: list[Step] = []
    name = f"{registry}/base:1"
    made = ensure_base(engine, steps.append, name)
    assert [s.message for s in steps if s.seconds is None] == [f"pulling {name}"]
    found = engine.images.get(name)
    assert found is not None
    assert found.id == made
    engine.images.remove(name)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("debian:trixie-slim", ("debian", "trixie-slim")),
        ("debian", ("debian", "latest")),
        ("registry.example:5000/a/b", ("registry.example:5000/a/b", "latest")),
        ("registry.example:5000/a/b:c", ("registry.example:5000/a/b", "c")),
        ("a/b@sha256:0ab", ("a/b", "sha256:0ab")),
    ],
)
def test_names_of_images(name: str, parts: tuple[str, str]) -> None:
    assert base.split(name) == parts


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
