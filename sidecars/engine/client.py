"""`Engine`: one Docker engine, found, spoken to in its own API version, with errors that people can use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from sidecars.engine import errors
from sidecars.engine.address import Address, find
from sidecars.engine.containers import Containers
from sidecars.engine.images import Images
from sidecars.engine.networks import Networks
from sidecars.engine.transport import Client, client
from sidecars.engine.volumes import Volumes

#: For one answer of the engine; long work (build, pull, wait) sets its own.
ANSWER_SECONDS = 60.0
#: For long calls, which beat while they wait and can be cut off; only an engine that hangs takes this long.
SILENCE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself."""

    version: str
    api: str
    name: str
    """The host's name."""
    system: str
    kernel: str
    architecture: str
    data_root: str
    runtimes: tuple[str, ...]
    processors: int
    memory: int
    """Bytes."""
    warnings: tuple[str, ...]


class Engine:
    """The one door to Docker. Every method raises `UserError` and nothing of the SDK's.

    Args:
        host: Address of the engine; None looks at DOCKER_HOST, DOCKER_CONTEXT and the current context, as Docker's client does.
        environ: Where those are looked up.

    The connection is made at the first use. One engine object may be used from several threads.
    """

    def __init__(self, host: str | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        self.address: Address = find(host, os.environ if environ is None else environ)
        self.containers = Containers(self)
        self.networks = Networks(self)
        self.volumes = Volumes(self)
        self.images = Images(self)

    @cached_property
    def api(self) -> Client:
        """The SDK's client, for the modules of this package only."""
        with self.explained("connecting"):
            return client(self.address, ANSWER_SECONDS)

    def another_api(self) -> Client:
        """A second client with connections of its own, for a long call that may have to be cut off."""
        return Client(self.address, self.api.api_version, SILENCE_SECONDS)

    @property
    def local(self) -> bool:
        """Whether the engine's socket is on this machine."""
        return self.address.socket is not None

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Exceptions inside become `UserError`; `doing` names the act and its object."""
        with errors.explained(doing, self.address):
            yield

    def info(self) -> EngineInfo:
        """Ask the engine about itself. Raises ``engine-unreachable``, ``engine-permission`` or ``engine-timeout``."""
        with self.explained("asking the engine about itself"):
            found = self.api.info()
            return EngineInfo(
                version=str(found.get("ServerVersion", "")),
                api=self.api.api_version,
                name=str(found.get("Name", "")),
                system=str(found.get("OperatingSystem", "")),
                kernel=str(found.get("KernelVersion", "")),
                architecture=str(found.get("Architecture", "")),
                data_root=str(found.get("DockerRootDir", "")),
                runtimes=tuple(sorted(found.get("Runtimes") or {})),
                processors=int(found.get("NCPU", 0)),
                memory=int(found.get("MemTotal", 0)),
                warnings=tuple(found.get("Warnings") or ()),
            )

    def close(self) -> None:
        """Give the connections back."""
        if "api" in self.__dict__:
            self.api.close()
            del self.__dict__["api"]

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
