"""The Docker objects of instances, found by their labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecars import names, networks
from sidecars.engine import INSTANCE, PROJECT, ROLE, ContainerInfo, Engine, VolumeInfo
from sidecars.engine import labels as basic_labels
from sidecars.images.recipe import our_version
from sidecars.networks import InstanceNetwork

#: Who made an object: one value a run of `up`. Undo removes what carries its own value, and never what somebody else has made.
RUN = "cspace.run"
#: The checkout on the host that an instance was made from.
ROOT = "cspace.root"
#: The branch that was asked for, where one was.
BRANCH = "cspace.branch"

DEV = "dev"
WORKSPACE = "workspace"

#: The volumes of an instance: role, and where each is mounted in the dev container.
MOUNTS = {WORKSPACE: "/workspace", "claude": "/home/dev/.claude", "gh": "/home/dev/.config/gh"}


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything that carries one instance's labels."""

    network: InstanceNetwork | None = None
    containers: tuple[ContainerInfo, ...] = ()
    volumes: tuple[VolumeInfo, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.network or self.containers or self.volumes)

    @property
    def dev(self) -> ContainerInfo | None:
        """The container that the agent works in."""
        return next(iter(self.devs), None)

    @property
    def devs(self) -> tuple[ContainerInfo, ...]:
        """The same, and after it one that it was to replace when that was cut short."""
        found = [c for c in self.containers if c.labels.get(ROLE) == DEV]
        return tuple(sorted(found, key=lambda c: c.name != names.object_name(*_key(c.labels))))

    @property
    def workspace(self) -> VolumeInfo | None:
        """The volume with the repository."""
        return next((v for v in self.volumes if v.labels.get(ROLE) == WORKSPACE), None)

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that all of them share."""
        every = [one.labels for one in self.containers] + [one.labels for one in self.volumes]
        return next(iter(every), self.network.labels if self.network else {})


def look(engine: Engine, project: str, instance: str) -> Objects:
    """What there is of one instance."""
    return look_all(engine, project, instance).get((project, instance), Objects())


def look_all(engine: Engine, project: str | None = None, instance: str | None = None) -> dict[tuple[str, str], Objects]:
    """What there is of all instances, by project and name."""
    wanted = {PROJECT: project, INSTANCE: instance}
    found_networks = engine.networks.list(wanted)
    found_containers = engine.containers.list(wanted)
    found_volumes = engine.volumes.list(wanted)
    keys = {_key(n.labels) for n in found_networks} | {_key(c.labels) for c in found_containers}
    keys |= {_key(v.labels) for v in found_volumes}
    return {
        key: Objects(
            network=next((networks.of(n) for n in found_networks if _key(n.labels) == key), None),
            containers=tuple(c for c in found_containers if _key(c.labels) == key),
            volumes=tuple(v for v in found_volumes if _key(v.labels) == key),
        )
        for key in sorted(keys)
    }


def labels(project: str, instance: str, role: str, more: Mapping[str, str]) -> dict[str, str]:
    """The labels of a new object of an instance."""
    return {**basic_labels(role, project=project, instance=instance, version=our_version()), **more}


def volume_name(project: str, instance: str, role: str) -> str:
    """``cspace-<project>-<instance>-<role>``."""
    return names.object_name(project, instance, role)


def _key(found: Mapping[str, str]) -> tuple[str, str]:
    return found.get(PROJECT, ""), found.get(INSTANCE, "")
