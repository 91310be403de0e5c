"""Docker's networks and who is on them, asked through the `docker` program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netpolicy import command
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address

_PROJECT = "com.docker.compose.project"
_BRIDGE = "com.docker.network.bridge.name"
_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Container:
    """A running container of a network."""

    name: str
    pid: int
    """Of one of its processes, as we see it."""
    networks: tuple[str, ...]
    """The names of all networks it is on."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of Docker's bridge driver."""

    name: str
    id: str
    interface: str
    """Its bridge, on the engine's machine."""
    containers: tuple[str, ...]
    """The ids of those that are connected and running."""
    held: tuple[str, ...]
    """Their addresses."""
    internal: bool
    """Docker itself lets nothing out of it."""


def network(name: str) -> Network:
    """The network of a name or id.

    Raises:
        UserError: ``no-network``, ``not-a-bridge``, ``docker`` where the engine cannot be asked, ``program-missing``.
    """
    done = _docker(["network", "inspect", name], ok=(0, 1))
    rows = _rows(done)
    if done.status != 0 or not rows:
        said = done.stderr.decode(errors="replace").strip()
        if "no such network" in said.lower() or "not found" in said.lower():
            raise UserError(
                "no-network",
                f"Docker has no network {name!r}",
                hint="'docker network ls' lists them.",
                exit_status=Exit.MISSING,
            )
        raise _unasked(said)
    return _read(rows[0])


def project(name: str) -> list[Network]:
    """The bridge networks of a compose project, by name.

    Raises:
        UserError: ``no-network``, ``not-a-bridge``, ``docker``, ``program-missing``.
    """
    done = _docker(["network", "ls", "--quiet", "--no-trunc", "--filter", f"label={_PROJECT}={name}"])
    ids = done.text.split()
    if not ids:
        raise UserError(
            "no-network",
            f"no Docker network belongs to the compose project {name!r}",
            hint="Start it first ('docker compose up'); 'docker compose ls' lists the projects.",
            exit_status=Exit.MISSING,
        )
    return sorted((_read(row) for row in _rows(_docker(["network", "inspect", *ids]))), key=lambda found: found.name)


def of_bridge(interface: str) -> Network | None:
    """The network whose bridge an interface is; None where it is none of Docker's, or Docker cannot be asked."""
    name = "bridge" if interface == "docker0" else interface.removeprefix("br-")
    try:
        found = network(name)
    except UserError:
        return None
    return found if found.interface == interface else None


def addresses(found: Network) -> list[Address]:
    """What Docker has given to the network's containers."""
    return [ip_address(text) for text in found.held]


def containers(found: Network) -> list[Container]:
    """The running containers of a network, by name; those that end meanwhile are left out. Raises UserError as `network`."""
    if not found.containers:
        return []
    form = "{{.Id}} {{.State.Pid}} {{.Name}}{{range $name, $_ := .NetworkSettings.Networks}} {{$name}}{{end}}"
    done = _docker(["inspect", "--type", "container", "--format", form, *found.containers], ok=(0, 1))
    boxes = []
    for line in done.text.splitlines():
        identity, pid, name, *networks = line.split(" ")
        own = _process(identity, pid)
        if own is not None:
            boxes.append(Container(name.lstrip("/"), own, tuple(networks)))
    return sorted(boxes, key=lambda box: box.name)


def _process(identity: str, pid: str) -> int | None:
    """A container's process as we see it: the engine may count processes in a namespace of its own (rootless, nested)."""
    if _belongs(pid, identity):
        return int(pid)
    return next((int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _belongs(entry.name, identity)), None)


def _belongs(pid: str, identity: str) -> bool:
    """Whether a process is in the container's control group, which is named after it whichever driver made it."""
    try:
        return identity in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _docker(words: Sequence[str], ok: Sequence[int] = (0,)) -> command.Completed:
    try:
        return command.run(["docker", *words], seconds=_SECONDS, ok=ok)
    except UserError as error:
        if error.code == "program-missing":
            raise UserError(
                "program-missing",
                "the program 'docker' is not installed, so Docker's networks cannot be looked up",
                hint="Name the bridge itself with --bridge.",
                exit_status=Exit.MISSING,
            ) from error
        if error.code == "program-failed":
            raise _unasked(str(error.details.get("stderr") or error.message)) from error
        raise


def _unasked(said: str) -> UserError:
    last = said.splitlines()[-1:] or ["it printed nothing"]
    return UserError("docker", f"Docker cannot be asked about its networks: {last[0]}", exit_status=Exit.MISSING)


def _rows(done: command.Completed) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(done.text or "[]")
    except ValueError as error:
        raise UserError("docker", f"what Docker says of its networks is not JSON: {done.text[:200]!r}") from error
    return list(rows)


def _read(row: Mapping[str, Any]) -> Network:
    name, identity = str(row["Name"]), str(row["Id"])
    if row.get("Driver") != "bridge":
        raise UserError(
            "not-a-bridge",
            f"the Docker network {name} is of the driver {row.get('Driver')!r}: it has no bridge to firewall here",
            hint="Only networks of the driver 'bridge' can be attached.",
            exit_status=Exit.BAD_INPUT,
        )
    interface = (row.get("Options") or {}).get(_BRIDGE) or f"br-{identity[:12]}"
    members = row.get("Containers") or {}
    given = (member.get(key) or "" for member in members.values() for key in ("IPv4Address", "IPv6Address"))
    return Network(
        name,
        identity,
        interface,
        tuple(sorted(key for key in members if not key.startswith("ep-"))),
        tuple(sorted(text.partition("/")[0] for text in given if text)),
        bool(row.get("Internal")),
    )
