"""A Docker host of its own, with both images, on which the lab's internet holds the names that verification looks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netpolicy.lab import Lab
from sidecars import images
from sidecars.install import ensure_engine
from support.docker_host import DockerHost, docker_host


@dataclass(frozen=True)
class DockerLab:
    """A lab and the engine in it."""

    lab: Lab
    host: DockerHost


@contextmanager
def docker_lab() -> Iterator[DockerLab]:
    """The images come from the machine's own engine, which builds them where they are missing or out of date."""
    with ensure_engine().engine as own:
        images.ensure_all(own)
    names = (images.INSTANCE.name, images.GATE.name)
    with Lab() as lab, docker_host(lab, images=names) as host:
        for name in ("example.com", "api.github.com"):
            lab.site(name)
        yield DockerLab(lab, host)
