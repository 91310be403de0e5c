"""The base image: there already, or pulled, or (where no registry can be reached) made from Debian packages."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError
from sidecars.engine import ROLE, Engine
from sidecars.engine.longcalls import Message
from sidecars.install import apt_install, can_install
from sidecars.progress import Reporter, Step
from sidecars.watched import Watched

BASE = "debian:trixie-slim"
#: A registry that says nothing for so long is taken for absent.
PULL_SILENCE_SECONDS = 20.0
BOOTSTRAP_SECONDS = 900.0
_MIRROR = "http://deb.debian.org/debian"
_SECURITY = "http://security.debian.org/debian-security"


def ensure_base(engine: Engine, reporter: Reporter, name: str = BASE, *, clock: Clock | None = None) -> str:
    """Have the base image `name` on the engine and return its id.

    Raises:
        UserError: ``base-missing``, with what was tried; ``disk-full``.
    """
    clock = clock or SystemClock()
    if (found := engine.images.get(name)) is not None:
        return found.id
    repository, tag = split(name)
    tried: dict[str, str] = {}
    try:
        _pull(engine, reporter, repository, tag, clock)
    except UserError as error:
        if error.code in ("disk-full", "engine-unreachable", "engine-permission"):
            raise
        tried["pull"] = error.message
    else:
        return _there(engine, name)
    if name != BASE:
        raise _missing(name, tried)
    try:
        _bootstrap(engine, reporter, repository, tag, clock)
    except UserError as error:
        if error.code == "disk-full":
            raise
        tried["bootstrap"] = error.message
        raise _missing(name, tried) from error
    return _there(engine, name)


def split(name: str) -> tuple[str, str]:
    """An image's name as the engine wants it: repository, and tag or digest. A colon may also belong to a registry's port."""
    repository, at, digest = name.partition("@")
    if at:
        return repository, digest
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (name, "latest")


def _there(engine: Engine, name: str) -> str:
    found = engine.images.get(name)
    if found is None:
        raise UserError("base-missing", f"the image {name} has vanished from the engine while it was being made")
    return found.id


def _missing(name: str, tried: Mapping[str, str]) -> UserError:
    return UserError(
        "base-missing",
        f"there is no base image {name}: " + "; ".join(f"{how} failed ({why})" for how, why in tried.items()),
        hint=f"Load one with 'docker load' or 'docker pull', or make one where Debian packages can be had: "
        f"'mmdebstrap --variant=minbase trixie - | docker import - {name}'.",
        exit_status=Exit.MISSING,
        details={"tried": dict(tried)},
    )


def _pull(engine: Engine, reporter: Reporter, repository: str, tag: str, clock: Clock) -> None:
    step = Step("image", f"pulling {repository}:{tag}")
    layers: dict[str, tuple[int, int]] = {}
    with closing(engine.images.pull(repository, tag)) as messages:
        watched = Watched(reporter, step, clock)
        heard = clock.monotonic()
        for message in messages:
            if message is None:
                if clock.monotonic() - heard > PULL_SILENCE_SECONDS:
                    raise UserError("registry-unreachable", f"the registry said nothing for {PULL_SILENCE_SECONDS:g} s")
                watched.beat()
                continue
            heard = clock.monotonic()
            watched.beat(_fraction(layers, message))


def _fraction(layers: dict[str, tuple[int, int]], message: Mapping[str, Any]) -> float | None:
    detail = message.get("progressDetail") or {}
    if message.get("status") == "Downloading" and detail.get("total"):
        layers[str(message.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
    total = sum(size for _, size in layers.values())
    return sum(done for done, _ in layers.values()) / total if total else None


def _bootstrap(engine: Engine, reporter: Reporter, repository: str, tag: str, clock: Clock) -> None:
    program = shutil.which("mmdebstrap")
    if program is None:
        if not can_install():
            raise UserError(
                "program-missing",
                "mmdebstrap is not installed, and only root on Debian or Ubuntu can have it installed",
                exit_status=Exit.MISSING,
            )
        apt_install(["mmdebstrap", "debian-archive-keyring"], "to make the base image from Debian packages", reporter)
        program = "mmdebstrap"
    step = Step("image", f"making {repository}:{tag} from Debian packages, because no registry answers")
    suite = tag.removesuffix("-slim")
    with tempfile.TemporaryDirectory(prefix="cspace-base-") as folder:
        archive = Path(folder) / "root.tar"
        argv = [program, "--variant=minbase", *_slimming(), suite, str(archive), *_sources(suite)]
        Watched(reporter, step, clock).program(argv, seconds=BOOTSTRAP_SECONDS, env={"TMPDIR": folder})
        with archive.open("rb") as stream, closing(_loaded(engine, stream, repository, tag)) as messages:
            loading = Watched(reporter, Step("image", f"importing {repository}:{tag}"), clock)
            for _ in messages:
                loading.beat()


def _loaded(engine: Engine, stream: Any, repository: str, tag: str) -> Generator[Message | None, None, None]:
    return engine.images.load(stream, repository, tag, changes=['CMD ["bash"]', f"LABEL {ROLE}=base"])


def _sources(suite: str) -> list[str]:
    mirror = os.environ.get("CSPACE_DEBIAN_MIRROR") or _MIRROR
    return [
        f"deb {mirror} {suite} main",
        f"deb {mirror} {suite}-updates main",
        f"deb {os.environ.get('CSPACE_DEBIAN_SECURITY_MIRROR') or _SECURITY} {suite}-security main",
    ]


def _slimming() -> list[str]:
    """What the slim images of Debian leave out, and the package lists."""
    kept = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "info", "locale", "lintian")]
    return [*left_out, kept, '--aptopt=Acquire::Languages "none"']
