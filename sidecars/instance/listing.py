"""What instances there are: Docker's labels, the journal and the gate, merged. Starts nothing and changes nothing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from netpolicy.errors import UserError
from netpolicy.gate.protocol import State
from sidecars import gate, names
from sidecars.engine import Engine
from sidecars.instance.assess import Facts, assess
from sidecars.instance.model import FirewallInfo, InstanceInfo
from sidecars.instance.objects import BRANCH, MOUNTS, ROOT, WORKSPACE, Objects, look_all
from sidecars.journal import Journal, Key

_READERS = 8


@dataclass(frozen=True, slots=True)
class GateView:
    """What the gate says of its attachments, by id."""

    states: Mapping[str, State]
    silence: str | None = None
    """Why it says nothing; None where it answers."""


def list_instances(
    engine: Engine, project: str | None = None, *, name: str | None = None, journal: Journal | None = None
) -> list[InstanceInfo]:
    """Every instance of a project (None: of all), sorted by project and name.

    Args:
        engine: Where they are.
        project: A project's name.
        name: Only this one.
        journal: For tests; None for the user's own.

    Raises:
        UserError: as the engine.
    """
    journal = journal or Journal()
    found = look_all(engine, project, name)
    if not found:
        return []
    view = gate_view(engine)
    entries = journal.entries(str(engine.address), project)

    def one(key: tuple[str, str]) -> InstanceInfo:
        record = Key(str(engine.address), *key)
        facts = Facts(
            objects=found[key],
            state=view.states.get(names.tag(*key)),
            gate=view.silence,
            entry=entries.get(record),
            holder=journal.holder(record),
        )
        return describe(*key, facts, branch(engine, found[key]))

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(one, found))


def describe(project: str, name: str, facts: Facts, branch: str | None) -> InstanceInfo:
    """Everything about one instance."""
    objects = facts.objects
    phase, reasons = assess(facts)
    dev, network = objects.dev, objects.network
    return InstanceInfo(
        project=project,
        name=name,
        phase=phase,
        reasons=tuple(reason.replace("NAME", name) for reason in reasons),
        branch=branch,
        container=dev.name if dev else None,
        container_id=dev.id if dev else None,
        image=dev.image if dev else None,
        network=network.name if network else None,
        interface=network.interface if network else None,
        subnets=tuple(str(subnet) for subnet in network.subnets) if network else (),
        firewall=FirewallInfo.of(facts.state),
        verification=facts.state.verification if facts.state else None,
        root=objects.labels.get(ROOT),
        created=dev.created if dev else None,
    )


def gate_view(engine: Engine) -> GateView:
    """Ask the gate that runs, without starting one."""
    try:
        found = gate.find(engine)
        if found is None or not found.running:
            return GateView({}, "the gate does not run")
        with gate.conversation(engine, found) as client:
            return GateView({state.attachment.id: state for state in client.status().attachments})
    except UserError as error:
        return GateView({}, f"the gate does not answer ({error.message})")


def branch(engine: Engine, objects: Objects) -> str | None:
    """The branch that the workspace is on, read from its repository without running anything there."""
    if objects.dev is None:
        return objects.labels.get(BRANCH)
    try:
        with engine.containers.fetch(objects.dev.id, f"{MOUNTS[WORKSPACE]}/.git/HEAD") as parts:
            archive = io.BytesIO(b"".join(parts))
    except UserError:
        return objects.labels.get(BRANCH)
    with tarfile.open(fileobj=archive) as tar:
        member = tar.next()
        stream = tar.extractfile(member) if member is not None and member.isreg() else None
        text = stream.read(1000).decode(errors="replace").strip() if stream else ""
    return text.removeprefix("ref: refs/heads/") if text.startswith("ref: refs/heads/") else None
