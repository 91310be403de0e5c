"""The volumes and the container of a new instance: what they are like, and how each is taken back."""

from __future__ import annotations

from functools import partial

from netpolicy.errors import Exit, UserError
from sidecars import names
from sidecars.engine import ROLE, ContainerInfo, ContainerSpec, Mount
from sidecars.instance.making import Making, made
from sidecars.instance.objects import DEV, MOUNTS, RUN, labels, volume_name
from sidecars.instance.signals import held

#: What root may do in an instance: own and change files, switch users, end processes. No NET_ADMIN, no NET_RAW, nothing of the kernel's.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
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
    name, network = names.object_name(m.project.name, m.name.text), made(m.network)
    m.undo.add(f"the container {name}", f"docker rm --force {name}", lambda: _remove_containers(m))
    identity = {"CSPACE_PROJECT": m.project.name, "CSPACE_INSTANCE": m.name.text}
    spec = ContainerSpec(
        name=name,
        image=m.spec.image,
        labels=labels(m.project.name, m.name.text, DEV, m.marks),
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
    with held():
        identifier = m.engine.containers.create(spec)
    info = m.engine.containers.get(identifier)
    if info is None:
        raise UserError("container-missing", f"the container {name} vanished while it was being made")
    return info


def _remove_containers(m: Making) -> None:
    for container in m.engine.containers.list({RUN: m.run}):
        m.engine.containers.remove(container.id)


def _remove_volume(m: Making, role: str) -> None:
    for volume in m.engine.volumes.list({RUN: m.run, ROLE: role}):
        m.engine.volumes.remove(volume.name)
