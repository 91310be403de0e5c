"""`down`: an instance with its volumes away, and no work lost that nobody was told of."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError
from sidecars import gate, names
from sidecars.engine import ContainerInfo, ContainerSpec, Engine, Mount
from sidecars.instance.box import ContainerBox
from sidecars.instance.exec import missing
from sidecars.instance.model import Phase
from sidecars.instance.objects import MOUNTS, ROOT, RUN, WORKSPACE, Objects, labels, look
from sidecars.instance.signals import held
from sidecars.journal import Journal, Key
from sidecars.progress import Reporter, Step, silent
from sidecars.workspace import Unsaved
from sidecars.workspace import unsaved as find_unsaved

_WAIT_SECONDS = 60.0
#: Seconds between asking and killing; the agent has been told by then, and its work is committed or given up.
_STOP_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Removed:
    """What `down` has done."""

    project: str
    name: str
    removed: tuple[str, ...]
    """Containers, volumes and networks, by name."""
    lost: Unsaved | None
    """Work that went with it, where that was demanded; None where it could not be told."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "project": self.project,
            "name": self.name,
            "removed": list(self.removed),
            "lost": None if self.lost is None else self.lost.to_json(),
        }


def down(
    engine: Engine,
    project: str,
    name: str,
    *,
    root: Path | None = None,
    force: bool = False,
    reporter: Reporter = silent,
    journal: Journal | None = None,
) -> Removed:
    """Remove an instance in whatever state it is, found by its labels alone.

    Args:
        engine: Where it is.
        project: Its project's name.
        name: The instance, as a person writes it.
        root: A checkout on the host whose commits are not lost, beside the one it was made from.
        force: Remove it over unsaved work.
        reporter: Told each step.
        journal: For tests; None for the user's own.

    Raises:
        UserError: ``instance-missing``; ``unsaved-work`` with what would be lost in the details, and ``work-unknown`` where that
            cannot be told (both change nothing); ``instance-busy``; ``down-incomplete`` where something resisted.
    """
    journal = journal or Journal()
    instance = names.parse(name).text
    key = Key(str(engine.address), project, instance)

    def waiting(holder: str) -> None:
        reporter(Step("name", f"waiting for {holder}, which is changing {instance}"))

    with journal.lock(key, seconds=_WAIT_SECONDS, waiting=waiting):
        objects = look(engine, project, instance)
        if not objects:
            journal.forget(key)
            raise missing(engine, project, instance)
        reporter(Step("work", f"looking for work in {instance} that is nowhere else"))
        lost = _checked(engine, project, instance, objects, root, force=force)
        journal.record(key, Phase.STOPPING)
        removed = _remove(engine, project, instance, objects, reporter)
        journal.forget(key)
    return Removed(project, instance, removed, lost)


def unsaved(engine: Engine, project: str, name: str, root: Path | None = None) -> Unsaved:
    """The work that would be lost with an instance.

    Raises:
        UserError: ``instance-missing``, ``work-unknown``.
    """
    objects = look(engine, project, names.parse(name).text)
    if not objects:
        raise missing(engine, project, name)
    return _unsaved(engine, project, name, objects, root)


def _checked(
    engine: Engine, project: str, instance: str, objects: Objects, root: Path | None, *, force: bool
) -> Unsaved | None:
    try:
        lost = _unsaved(engine, project, instance, objects, root)
    except UserError as error:
        if force:
            return None
        raise UserError(
            "work-unknown",
            f"cannot tell whether removing {instance} would lose work: {error.message}",
            hint=f"'cspace down {instance} --force' removes it all the same.",
            exit_status=Exit.CONFLICT,
            details={"reason": error.as_dict()},
        ) from error
    if lost and not force:
        raise UserError(
            "unsaved-work",
            "\n    ".join([f"removing {instance} would lose work that is nowhere else:", *lost.describe()]),
            hint=f"Commit and push it, or keep the commits with\n"
            f"    cspace exec {instance} -- git bundle create - --all > {instance}.bundle\n"
            f"  'cspace down {instance} --force' removes it all the same.",
            exit_status=Exit.CONFLICT,
            details={"unsaved": lost.to_json()},
        )
    return lost


def _unsaved(engine: Engine, project: str, instance: str, objects: Objects, root: Path | None) -> Unsaved:
    if objects.workspace is None:
        return Unsaved()
    known = objects.labels.get(ROOT)
    hosts = [path for path in dict.fromkeys([Path(known) if known else None, root]) if path is not None]
    dev = objects.dev
    if dev is not None and dev.running:
        return find_unsaved(ContainerBox(engine, dev.id), hosts)
    with _helper(engine, project, instance, objects, dev) as helper:
        return find_unsaved(ContainerBox(engine, helper), hosts, partial=True)


@contextmanager
def _helper(engine: Engine, project: str, instance: str, objects: Objects, dev: ContainerInfo | None) -> Iterator[str]:
    """A container over the workspace of an instance that does not run, without any network."""
    workspace = objects.workspace
    if workspace is None:
        raise UserError("work-unknown", f"{instance} has no workspace")
    run = uuid.uuid4().hex
    spec = ContainerSpec(
        name=names.object_name(project, instance, f"look-{run[:8]}"),
        image=dev.image_id if dev is not None else "cspace-instance:latest",
        labels=labels(project, instance, "helper", {RUN: run}),
        command=["sleep", "600"],
        user="dev",
        network="none",
        mounts=(Mount(MOUNTS[WORKSPACE], workspace.name, read_only=True),),
        cap_drop=("ALL",),
        security_options=("no-new-privileges",),
        init=True,
    )
    try:
        with held():
            made = engine.containers.create(spec)
        engine.containers.start(made)
        yield made
    finally:
        for container in engine.containers.list({RUN: run}):
            engine.containers.remove(container.id)


def _remove(engine: Engine, project: str, instance: str, objects: Objects, reporter: Reporter) -> tuple[str, ...]:
    """Everything away; what resists does not keep the rest."""
    removed: list[str] = []
    resisted: list[tuple[str, UserError]] = []

    def attempt(what: str, command: str, act: Callable[[], object]) -> None:
        reporter(Step("down", f"removing {what}"))
        try:
            act()
        except UserError as error:
            resisted.append((command, error))
        else:
            removed.append(what.rpartition(" ")[2])

    for container in objects.containers:
        # The dev container gets the time to end its processes; removing kills.
        def end(container: ContainerInfo = container) -> None:
            if container.running:
                engine.containers.stop(container.id, _STOP_SECONDS)
            engine.containers.remove(container.id)

        attempt(f"container {container.name}", f"docker rm --force {container.name}", end)
    for volume in objects.volumes:
        attempt(f"volume {volume.name}", f"docker volume rm {volume.name}", partial(engine.volumes.remove, volume.name))
    if objects.network is not None:
        network = objects.network
        attempt(
            f"network {network.name}", f"docker network rm {network.name}", partial(engine.networks.remove, network.id)
        )
    _detach(engine, names.tag(project, instance), resisted)
    if resisted:
        commands = [command for command, _ in resisted]
        raise UserError(
            "down-incomplete",
            f"not everything of {instance} could be removed: {'; '.join(error.message for _, error in resisted)}",
            hint="Try again, or by hand: " + "; ".join(commands),
            details={"removed": removed, "left_over": commands},
        )
    return tuple(removed)


def _detach(engine: Engine, tag: str, resisted: list[tuple[str, UserError]]) -> None:
    """Tell the gate. One that does not run is not started for this: its interface is gone, and its next start notices."""
    container = gate.find(engine)
    if container is None or not container.running:
        return
    try:
        with gate.conversation(engine, container) as client:
            client.detach(tag)
    except UserError as error:
        resisted.append((f"docker exec {container.name} netpolicy gate call detach '{json.dumps({'id': tag})}'", error))
