"""The phases of a start, one function each. Every one looks first and makes only what is not right, so that the same sequence
creates an instance, takes up one that was left half-way, and repairs one that was.

Order is safety: the network is locked before anything runs on it, the policy is filled before the workspace, and nothing counts as
ready before it was tried for real. What a phase makes is recorded in `Making.undo` before it is made.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

from netpolicy.errors import Exit, UserError
from netpolicy.gate.client import GateClient
from netpolicy.gate.protocol import State
from sidecars import gate, names, networks, workspace
from sidecars.engine import ROLE, ContainerInfo, ContainerSpec, Engine, Mount
from sidecars.instance.box import ContainerBox
from sidecars.instance.model import InstanceSpec, Phase
from sidecars.instance.objects import BRANCH, DEV, MOUNTS, ROOT, RUN, Objects, labels, volume_name
from sidecars.instance.signals import held
from sidecars.instance.undo import Undo
from sidecars.journal import Journal, Key
from sidecars.names import Name
from sidecars.networks import InstanceNetwork
from sidecars.progress import Reporter, Step
from sidecars.project import Project
from sidecars.verify import verify
from sidecars.workspace import Source

#: What root may do in an instance: own and change files, switch users, end processes. No NET_ADMIN, no NET_RAW, nothing of the kernel's.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
#: Claude Code keeps part of its state beside ~/.claude unless it is told where all of it belongs.
ENVIRONMENT = {"CLAUDE_CONFIG_DIR": MOUNTS["claude"]}


@dataclass
class Making:
    """One run of `up` over one instance: what is wanted, what there is, and what has to be taken back if it fails."""

    engine: Engine
    project: Project
    spec: InstanceSpec
    name: Name
    reporter: Reporter
    journal: Journal
    undo: Undo
    found: Objects
    source: Source | None = None
    """The host's repository, where it was looked at already."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    handle: gate.GateHandle | None = None
    network: InstanceNetwork | None = None
    dev: ContainerInfo | None = None
    state: State | None = None
    branch: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Under which the journal knows it."""
        return Key(str(self.engine.address), self.project.name, self.name.text)

    @property
    def tag(self) -> str:
        """Under which the gate knows it."""
        return names.tag(self.project.name, self.name.text)

    @cached_property
    def marks(self) -> Mapping[str, str]:
        """Labels that everything made in this run carries."""
        asked = {BRANCH: self.name.branch} if self.name.branch else {}
        return {RUN: self.run, ROOT: str(self.project.root), **asked}

    def enter(self, phase: Phase, message: str) -> None:
        """Record a phase and report it."""
        self.journal.record(self.key, phase)
        self.say(phase, message)

    def say(self, phase: str, message: str, fraction: float | None = None) -> None:
        """Report a step. Whatever the reporter raises ends the run, and undoes it."""
        self.reporter(Step(str(phase), message, fraction))

    @contextmanager
    def gate(self) -> Iterator[GateClient]:
        """A conversation with the gate, of its own: one that was cut off in the middle cannot be taken up again."""
        if self.handle is None:
            raise UserError("gate-gone", "no gate was started")
        with self.handle.client() as client:
            yield client


def reserve(m: Making) -> None:
    """Take the name, by making the network that only one can make."""
    m.network = m.found.network
    if m.network is not None:
        return
    m.enter(Phase.CREATING, f"reserving {m.name.text}")
    name = names.object_name(m.project.name, m.name.text)
    m.undo.add(f"the network {name}", f"docker network rm {name}", lambda: _remove_networks(m))
    wanted = labels(m.project.name, m.name.text, "network", m.marks)
    with held():
        m.network = networks.reserve(
            m.engine, m.project.name, m.name.text, wanted, pool=m.spec.pool, prefix=m.spec.prefix
        )


def lock(m: Making) -> None:
    """Have the gate refuse everything from the network, before anything is on it."""
    network = _made(m.network)
    m.handle = gate.ensure(m.engine, m.reporter, prefix=m.spec.prefix, options=m.spec.build)
    wanted = network.attachment(m.project.name, m.name.text)
    with m.gate() as client:
        known = [s for s in client.status().attachments if s.attachment.id == wanted.id]
        if known and known[0].attachment == wanted:
            m.state = known[0]
            return
        m.enter(Phase.LOCKED, f"locking {network.interface}")
        if not m.found.network:
            argument = json.dumps({"id": wanted.id})
            by_hand = f"docker exec {m.handle.name} netpolicy gate call detach '{argument}'"
            m.undo.add("the gate's attachment", by_hand, lambda: _detach(m, wanted.id))
        with held():
            m.state = client.attach(wanted)


def start(m: Making) -> None:
    """Have the volumes, and the dev container running on the locked network."""
    m.dev = m.found.dev
    if m.dev is not None and m.dev.running:
        return
    m.enter(Phase.STARTING, f"starting the container of {m.name.text}")
    if m.dev is None:
        _make_volumes(m)
        m.dev = _make_container(m)
    else:
        stopped = m.dev
        m.undo.add(
            f"the container {stopped.name} (stopping it again)", f"docker stop {stopped.name}",
            lambda: m.engine.containers.stop(stopped.id, 1),
        )  # fmt: skip
    with held():
        m.engine.containers.start(m.dev.id)


def apply(m: Making) -> None:
    """Put the policy in force, if it is not."""
    state = _made(m.state)
    wanted = m.spec.ruleset
    if state.ruleset == wanted.id and not state.warnings and not state.unresolved:
        return
    m.say("policy", f"applying {wanted.policy}: {len(wanted.by_name)} names, {len(wanted.ranges)} ranges")
    with m.gate() as client:
        m.state = client.apply(m.tag, wanted, upstreams=m.spec.upstreams)


def fill_workspace(m: Making) -> None:
    """Have the repository in the workspace; one that is there is left alone."""
    box = ContainerBox(m.engine, _made(m.dev).id)
    if workspace.exists(box):
        return
    source = m.source or workspace.inspect(m.project.root, m.name.branch)
    m.say("workspace", f"packing {source.branch or source.commit[:12]} of {source.root}")
    with workspace.bundled(source) as bundle:
        cloned = workspace.clone(box, source, bundle, progress=_sending(m))
    m.branch = cloned.branch
    m.notes += source.notes


def prove(m: Making) -> None:
    """Try the firewall for real, and have the gate keep the report. A breach raises ``firewall-breached``."""
    state, dev, handle = _made(m.state), _made(m.dev), _made(m.handle)
    if state.phase == "off" or (state.verification or {}).get("state") == "verified":
        return
    m.enter(Phase.VERIFYING, "verifying the firewall")
    with m.gate() as client:
        report = verify(
            m.engine,
            inside=dev.id,
            control=handle.container,
            ruleset=m.spec.ruleset,
            settings=m.spec.verify,
            permits=lambda flow: client.check(m.tag, flow).allowed,
            reporter=m.reporter,
            seconds=m.spec.verify_seconds,
        )
        if report.state == "breached":
            raise UserError(
                "firewall-breached",
                f"the firewall of {m.name.text} does not hold: {'; '.join(report.reasons)}",
                hint="The instance was stopped. Look at the policy with 'netpolicy check', and at the host with 'cspace doctor'.",
                details={"verification": report.to_json()},
            )
        m.state = client.verified(m.tag, m.spec.ruleset.id, report.to_json())


#: In this order. Each entry is one phase's work; between any two of them a run may end and a later one go on.
PHASES = (reserve, lock, start, apply, fill_workspace, prove)


def _make_volumes(m: Making) -> None:
    for role in MOUNTS:
        name = volume_name(m.project.name, m.name.text, role)
        wanted = labels(m.project.name, m.name.text, role, m.marks)
        if any(volume.name == name for volume in m.found.volumes):
            continue
        m.undo.add(f"the volume {name}", f"docker volume rm {name}", partial(_remove_volume, m, role))
        with held():
            made = m.engine.volumes.create(name, wanted)
        if made.labels.get(RUN) != m.run:
            raise UserError(
                "name-taken",
                f"a volume named {name} exists that does not belong to {m.name.text}",
                hint=f"Remove it ('docker volume rm {name}') if it is not needed, or choose another name.",
                exit_status=Exit.CONFLICT,
            )


def _make_container(m: Making) -> ContainerInfo:
    name, network = names.object_name(m.project.name, m.name.text), _made(m.network)
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
        made = m.engine.containers.create(spec)
    info = m.engine.containers.get(made)
    if info is None:
        raise UserError("container-missing", f"the container {name} vanished while it was being made")
    return info


def _sending(m: Making) -> Callable[[float], None]:
    def tell(fraction: float) -> None:
        m.say("workspace", "sending the repository", fraction)

    return tell


def _remove_networks(m: Making) -> None:
    for network in m.engine.networks.list({RUN: m.run}):
        m.engine.networks.remove(network.id)


def _remove_containers(m: Making) -> None:
    for container in m.engine.containers.list({RUN: m.run}):
        m.engine.containers.remove(container.id)


def _remove_volume(m: Making, role: str) -> None:
    for volume in m.engine.volumes.list({RUN: m.run, ROLE: role}):
        m.engine.volumes.remove(volume.name)


def _detach(m: Making, attachment_id: str) -> None:
    with m.gate() as client:
        client.detach(attachment_id)


T = TypeVar("T")


def _made(thing: T | None) -> T:
    """What an earlier phase has made."""
    if thing is None:
        raise AssertionError("the phases were run out of order")
    return thing
