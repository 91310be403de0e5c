"""Containers of an engine: their life, their logs, files in and out. Processes in them are in `execs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from typing import IO, Any

from netpolicy.errors import UserError
from sidecars.engine.execs import Execs
from sidecars.engine.labels import selector
from sidecars.engine.part import Part
from sidecars.engine.spec import ContainerInfo, ContainerSpec, container_info


class Containers(Part):
    """Make, find, run and remove containers."""

    @cached_property
    def execs(self) -> Execs:
        """Processes in containers: `Execs.run` to its end, `Execs.open` with streams."""
        return Execs(self._engine)

    def create(self, spec: ContainerSpec) -> str:
        """Make a container, not started, and return its id.

        Raises:
            UserError: ``name-taken``, ``image-missing``, ``network-missing``, ``disk-full``, ``engine-refused``.
        """
        with self._explained(f"creating the container {spec.name}"):
            api: Any = self._api
            made = api.create_container_from_config(spec.document(), spec.name)
            return str(made["Id"])

    def start(self, name: str) -> None:
        """Start a container; nothing where it runs already. Raises ``port-taken``, ``command-missing``, ..."""
        with self._explained(f"starting the container {name}"):
            self._api.start(name)

    def stop(self, name: str, seconds: int = 10) -> bool:
        """Stop a container, killing it after `seconds`; False where it is not there."""
        return self._unless_missing(f"stopping the container {name}", lambda: self._api.stop(name, timeout=seconds))

    def kill(self, name: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the container's first process."""
        with self._explained(f"sending {signal} to the container {name}"):
            self._api.kill(name, signal)

    def remove(self, name: str, *, volumes: bool = True) -> bool:
        """Kill and remove a container, with its unnamed volumes; False where it was not there."""
        return self._unless_missing(
            f"removing the container {name}", lambda: self._api.remove_container(name, v=volumes, force=True)
        )

    def rename(self, name: str, new: str) -> None:
        """Give a container another name. Raises ``name-taken``."""
        with self._explained(f"renaming the container {name} to {new}"):
            self._api.rename(name, new)

    def get(self, name: str) -> ContainerInfo | None:
        """The container with this name or id, None where there is none."""
        try:
            with self._explained(f"inspecting the container {name}"):
                found: Any = self._api.inspect_container(name)
        except UserError as error:
            if error.code == "container-missing":
                return None
            raise
        return container_info(found)

    def list(self, labels: Mapping[str, str | None] | None = None) -> list[ContainerInfo]:
        """The containers, running or not, that carry all these labels (None as a value: any)."""
        with self._explained("listing containers"):
            filters = {"label": selector(labels)} if labels else None
            ids = [str(found["Id"]) for found in self._api.containers(all=True, filters=filters)]
        # One that vanishes between the listing and the look is simply not there.
        return [info for one in ids if (info := self.get(one)) is not None]

    def wait(self, name: str, seconds: float) -> int:
        """Wait until a container does not run and return its exit status. Raises ``engine-timeout``."""
        with self._explained(f"waiting for the container {name}"):
            return int(self._api.wait(name, timeout=max(1, round(seconds)))["StatusCode"])

    def logs(self, name: str, lines: int = 100) -> str:
        """The last lines of a container's output, both streams in order."""
        with self._explained(f"reading the logs of the container {name}"):
            return self._api.logs(name, stream=False, tail=lines).decode(errors="replace")

    def follow(self, name: str, lines: int = 100) -> Iterator[bytes]:
        """A container's output as it comes, from `lines` back, until it ends."""
        doing = f"following the logs of the container {name}"
        with self._explained(doing):
            stream = self._api.logs(name, stream=True, follow=True, tail=lines)
        with closing(stream):
            yield from self._each(stream, doing)

    def put(self, name: str, path: str, archive: bytes | IO[bytes] | Iterable[bytes]) -> None:
        """Unpack a tar archive below `path`, which must exist; the container need not run.

        Owners and modes are those in the archive. Raises ``path-missing``, ``disk-full``, ``container-missing``.
        """
        with self._explained(f"writing to {name}:{path}"):
            self._api.put_archive(name, path, archive)

    @contextmanager
    def fetch(self, name: str, path: str) -> Iterator[Iterator[bytes]]:
        """A file or folder of a container as the parts of a tar archive.

        Raises:
            UserError: ``path-missing``, ``container-missing``.
        """
        doing = f"reading {name}:{path}"
        with self._explained(doing):
            stream, _stat = self._api.get_archive(name, path)
        with closing(stream):
            yield self._each(stream, doing)

    def _unless_missing(self, doing: str, act: Any) -> bool:
        try:
            with self._explained(doing):
                act()
        except UserError as error:
            if error.code == "container-missing":
                return False
            raise
        return True
