"""Processes in an instance: a command with its streams, and a login shell."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from netpolicy.errors import Exit, UserError
from sidecars import names
from sidecars.engine import INSTANCE, PROJECT, ContainerInfo, Engine, ExecStream
from sidecars.instance.objects import DEV, MOUNTS, WORKSPACE

USER = "dev"
LOGIN = ("bash", "--login")


def container_of(engine: Engine, project: str, name: str) -> ContainerInfo:
    """The running dev container of an instance.

    Raises:
        UserError: ``instance-missing``, ``instance-stopped``.
    """
    instance = names.parse(name).text
    found = engine.containers.list({PROJECT: project, INSTANCE: instance, "cspace.role": DEV})
    if not found:
        raise missing(engine, project, instance)
    if not found[0].running:
        raise UserError(
            "instance-stopped",
            f"{instance} does not run",
            hint=f"'cspace up {instance}' starts it behind its firewall.",
            exit_status=Exit.CONFLICT,
        )
    return found[0]


def exec_stream(
    engine: Engine,
    project: str,
    name: str,
    argv: Sequence[str],
    *,
    stdin: bool = True,
    tty: bool = False,
    size: tuple[int, int] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str = MOUNTS[WORKSPACE],
) -> ExecStream:
    """Start a command as the instance's user, with its streams attached.

    Args:
        engine: Where the instance is.
        project: Its project's name.
        name: The instance.
        argv: Program and arguments.
        stdin: Whether it can be written to.
        tty: Give it a terminal.
        size: Columns and rows of that terminal.
        environment: Variables added to the container's.
        folder: Working directory.

    Raises:
        UserError: ``instance-missing``, ``instance-stopped``, ``command-missing``.
    """
    container = container_of(engine, project, name)
    return engine.containers.execs.open(
        container.id, argv, stdin=stdin, tty=tty, size=size, user=USER, cwd=folder, env=environment
    )


def missing(engine: Engine, project: str, instance: str) -> UserError:
    """The error for an instance that is not there, naming those that are."""
    known = sorted({n.labels.get(INSTANCE, "") for n in engine.networks.list({PROJECT: project, INSTANCE: None})})
    near = difflib.get_close_matches(instance, known, n=1)
    if near:
        hint = f"Did you mean {near[0]}?"
    elif known:
        hint = f"There are: {', '.join(known)}."
    else:
        hint = f"The project {project} has none. 'cspace up' makes one."
    return UserError(
        "instance-missing",
        f"there is no instance {instance} in the project {project}",
        hint=hint,
        exit_status=Exit.MISSING,
    )
