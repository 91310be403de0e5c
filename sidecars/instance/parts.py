"""The volumes and the container of a new instance: what they are like, and how each is taken back."""

from __future__ import annotations

import hashlib
import json
from functools import partial

from netpolicy.errors import Exit, UserError
from sidecars import names
from sidecars.engine import CONTENT, ROLE, ContainerInfo, ContainerSpec, Mount
from sidecars.instance.making import Making, made
from sidecars.instance.objects import DEV, MOUNTS, RUN, labels, volume_name
from sidecars.instance.signals import held

#: What root may do in an instance: own and change files, switch users, end processes. No NET_ADMIN, no NET_RAW, nothing of the kernel's.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
#: Seconds between asking a container's processes to end and killing them.
STOP_SECONDS = 3
#: Claude Code keeps part of its state beside ~/.claude unless it is told where all of it belongs.
ENVIRONMENT = {"CLAUDE_CONFIG_DIR": MOUNTS["claude"]}


def make_volumes(m: Making) -> None:
    """Make the volumes that are not there. A volume with the same name that is not this instance's is refused (``name-taken``)."""
    for role in MOUNTS:
        name = volume_name(m.project.name, m.name.text, role)
        wanted = labels(m.project.name, m.name.text, role, m.marks)
        if any(volume.name == name for volume in m.found.volumes):
            continue
        m.undo.add(f"the volume {name}", f"docker volume rm {name}", partial(_remove_volume, m, role))
        with held():
            volume = m.engine.volumes.create(name, wanted)
        if volume.labels.get(RUN) != m.run:
            raise UserError(
                "name-taken",
                f"a volume named {name} exists that does not belong to {m.name.text}",
                hint=f"Remove it ('docker volume rm {name}') if it is not needed, or choose another name.",
                exit_status=Exit.CONFLICT,
            )


def make_container(m: Making) -> ContainerInfo:
    """Make the dev container on the instance's network, not started."""
    name = names.object_name(m.project.name, m.name.text)
    m.undo.add(f"the container {name}", f"docker rm --force {name}", lambda: _remove_containers(m))
    with held():
        identifier = m.engine.containers.create(_container(m))
    info = m.engine.containers.get(identifier)
    if info is None:
        raise UserError("container-missing", f"the container {name} vanished while it was being made")
    return info


def outdated(m: Making, container: ContainerInfo) -> str | None:
    """What has changed since the container was made that can only be had in a new one; None where it is as it should be."""
    image = m.engine.images.get(m.spec.image)
    if image is None or container.labels.get(CONTENT) == _container(m).labels[CONTENT]:
        # Without the image there is nothing to make another one of.
        return None
    return "its settings have changed" if container.image_id == image.id else "its image has changed"


def replace_container(m: Making, old: ContainerInfo) -> ContainerInfo:
    """Make a new dev container in the place of `old`, which is there again as it was should anything fail."""
    name = names.object_name(m.project.name, m.name.text)
    aside = f"{name}-{m.run[:8]}"
    m.undo.add(
        f"the new {name} (putting the former one back)", f"docker rename {aside} {name}", partial(_put_back, m, old)
    )
    with held():
        m.engine.containers.stop(old.id, STOP_SECONDS)
        m.engine.containers.rename(old.id, aside)
    return make_container(m)


def _put_back(m: Making, old: ContainerInfo) -> None:
    found = m.engine.containers.get(old.id)
    if found is not None and found.name != old.name:
        m.engine.containers.rename(old.id, old.name)
    if old.running:
        m.engine.containers.start(old.id)


def _container(m: Making) -> ContainerSpec:
    network = made(m.network)
    identity = {"CSPACE_PROJECT": m.project.name, "CSPACE_INSTANCE": m.name.text}
    marks = labels(m.project.name, m.name.text, DEV, m.marks)
    spec = ContainerSpec(
        name=names.object_name(m.project.name, m.name.text),
        image=m.spec.image,
        labels=marks,
        environment={**ENVIRONMENT, **m.spec.environment, **identity},
        user="dev",
        working_dir=MOUNTS["workspace"],
        hostname=m.name.text,
        network=network.name,
        dns=tuple(str(address) for address in network.gateways),
        mounts=tuple(Mount(target, volume_name(m.project.name, m.name.text, role)) for role, target in MOUNTS.items()),
        cap_drop=("ALL",),
        cap_add=CAPABILITIES,
        security_options=("no-new-privileges",),
        init=True,
        memory=m.spec.memory,
        processors=m.spec.processors,
        processes=m.spec.processes,
    )
    # The image by what it is, not by its name: a rebuilt one has the same. Labels say who made it and when, not what it is.
    image = m.engine.images.get(m.spec.image)
    body = {key: value for key, value in spec.document().items() if key != "Labels"}
    definition = json.dumps([image.id if image else None, body], sort_keys=True)
    marks[CONTENT] = hashlib.sha256(definition.encode()).hexdigest()[:16]
    return spec


def _remove_containers(m: Making) -> None:
    for container in m.engine.containers.list({RUN: m.run}):
        m.engine.containers.remove(container.id)


def _remove_volume(m: Making, role: str) -> None:
    for volume in m.engine.volumes.list({RUN: m.run, ROLE: role}):
        m.engine.volumes.remove(volume.name)
