"""What a container is made from, and what is known of one that exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sidecars.engine.part import moment


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume (or, for the few that need one, a path of the host) inside a container."""

    target: str
    source: str
    """A volume's name, or with `kind` ``bind`` a path."""
    read_only: bool = False
    kind: str = "volume"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the container published on the host."""

    container: int
    host: int = 0
    """0: the engine chooses."""
    address: str = "127.0.0.1"
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be made. Nothing is granted by default beyond what the engine grants; no restart policy."""

    name: str
    image: str
    labels: Mapping[str, str]
    command: Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    working_dir: str | None = None
    hostname: str | None = None
    network: str | None = None
    """A network's name, ``host`` or ``none``; None is the engine's default bridge."""
    addresses: tuple[str, ...] = ()
    """Fixed addresses on `network`, at most one per family."""
    aliases: tuple[str, ...] = ()
    """Further names on `network`."""
    dns: tuple[str, ...] = ()
    extra_hosts: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    """Path to mount options, e.g. ``{"/run": "mode=0755,size=16m"}``."""
    ports: tuple[Port, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    read_only: bool = False
    init: bool = False
    tty: bool = False
    open_stdin: bool = False
    restart: str = "no"
    """``no``, ``always``, ``unless-stopped`` or ``on-failure``."""
    runtime: str | None = None
    memory: int = 0
    """Bytes; 0 is no limit."""
    processors: float = 0.0
    """How many; 0 is no limit."""
    processes: int = 0
    """Limit of processes and threads; 0 is no limit."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str | None = None

    def document(self) -> dict[str, Any]:
        """The body of ``POST /containers/create``."""
        host: dict[str, Any] = {
            "NetworkMode": self.network or "default",
            "Mounts": [_mount(m) for m in self.mounts],
            "Tmpfs": dict(self.tmpfs),
            "PortBindings": _bindings(self.ports),
            "CapDrop": list(self.cap_drop),
            "CapAdd": list(self.cap_add),
            "SecurityOpt": list(self.security_options),
            "ReadonlyRootfs": self.read_only,
            "RestartPolicy": {"Name": self.restart},
            "Init": self.init,
            "Memory": self.memory,
            "NanoCpus": int(self.processors * 1_000_000_000),
            "Dns": list(self.dns),
            "ExtraHosts": [f"{name}:{address}" for name, address in self.extra_hosts.items()],
            "Sysctls": dict(self.sysctls),
        }
        if self.processes:
            host["PidsLimit"] = self.processes
        if self.runtime:
            host["Runtime"] = self.runtime
        body: dict[str, Any] = {
            "Image": self.image,
            "Labels": dict(self.labels),
            "Env": [f"{key}={value}" for key, value in self.environment.items()],
            "ExposedPorts": {f"{p.container}/{p.protocol}": {} for p in self.ports},
            "Tty": self.tty,
            "OpenStdin": self.open_stdin,
            "HostConfig": host,
        }
        optional = {
            "Cmd": self.command,
            "Entrypoint": self.entrypoint,
            "User": self.user,
            "WorkingDir": self.working_dir,
            "Hostname": self.hostname,
            "StopSignal": self.stop_signal,
        }
        body |= {key: value if isinstance(value, str) else list(value) for key, value in optional.items() if value}
        if self.network and self.network not in ("host", "none") and (self.addresses or self.aliases):
            body["NetworkingConfig"] = {"EndpointsConfig": {self.network: self._endpoint()}}
        return body

    def _endpoint(self) -> dict[str, Any]:
        addresses = {("IPv6Address" if ":" in a else "IPv4Address"): a for a in self.addresses}
        return {"Aliases": list(self.aliases), "IPAMConfig": addresses}


def _mount(mount: Mount) -> dict[str, Any]:
    return {"Type": mount.kind, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}


def _bindings(ports: Sequence[Port]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        binding = {"HostIp": port.address, "HostPort": str(port.host or "")}
        found.setdefault(f"{port.container}/{port.protocol}", []).append(binding)
    return found


@dataclass(frozen=True, slots=True)
class Address:
    """A container's place on one network."""

    network: str
    v4: str | None
    v6: str | None
    mac: str | None


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container that exists."""

    id: str
    name: str
    image: str
    """As it was named when the container was made."""
    image_id: str
    labels: Mapping[str, str]
    state: str
    """``created``, ``running``, ``paused``, ``restarting``, ``exited`` or ``dead``."""
    exit_code: int | None
    """Of the last run, None while it runs or never ran."""
    error: str
    """Why the engine could not start it, mostly empty."""
    pid: int
    """On the engine's host; 0 when it does not run."""
    restarts: int
    created: datetime | None
    started: datetime | None
    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]
    mounts: tuple[Mount, ...]

    @property
    def running(self) -> bool:
        """Whether processes can be run in it."""
        return self.state == "running"


def container_info(found: Mapping[str, Any]) -> ContainerInfo:
    """Read the answer of ``GET /containers/ID/json``."""
    state, config = found.get("State") or {}, found.get("Config") or {}
    settings = found.get("NetworkSettings") or {}
    status = str(state.get("Status", ""))
    networks = settings.get("Networks") or {}
    return ContainerInfo(
        id=str(found["Id"]),
        name=str(found.get("Name", "")).removeprefix("/"),
        image=str(config.get("Image", "")),
        image_id=str(found.get("Image", "")),
        labels=dict(config.get("Labels") or {}),
        state=status,
        exit_code=None if status in ("running", "created", "paused") else int(state.get("ExitCode", 0)),
        error=str(state.get("Error", "")),
        pid=int(state.get("Pid", 0)),
        restarts=int(found.get("RestartCount", 0)),
        created=moment(found.get("Created")),
        started=moment(state.get("StartedAt")),
        addresses=tuple(
            Address(name, n.get("IPAddress") or None, n.get("GlobalIPv6Address") or None, n.get("MacAddress") or None)
            for name, n in networks.items()
        ),
        ports=tuple(_published(settings.get("Ports") or {})),
        mounts=tuple(
            Mount(
                m["Destination"], m.get("Name") or m.get("Source", ""), not m.get("RW", True), m.get("Type", "volume")
            )
            for m in found.get("Mounts") or []
        ),
    )


def _published(ports: Mapping[str, Any]) -> list[Port]:
    found = []
    for key, bindings in ports.items():
        number, _, protocol = key.partition("/")
        found += [Port(int(number), int(b["HostPort"]), b.get("HostIp", ""), protocol) for b in bindings or []]
    return found
