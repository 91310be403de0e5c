"""The phases of a start, one function each. Every one looks first and makes only what is not right, so that the same sequence
creates an instance, takes up one that was left half-way, and repairs one that was.

Order is safety: the network is locked before anything runs on it, the policy is filled before the workspace, and nothing counts as
ready before it was tried for real. What a phase makes is recorded in `Making.undo` before it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from netpolicy.clock import SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.gate.protocol import State
from sidecars import gate, names, networks, workspace
from sidecars.engine import INSTANCE
from sidecars.instance.box import ContainerBox
from sidecars.instance.making import Making, made
from sidecars.instance.model import Phase
from sidecars.instance.objects import RUN, labels
from sidecars.instance.parts import make_container, make_volumes, outdated, replace_container
from sidecars.instance.signals import held
from sidecars.verify import verify


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
    network = made(m.network)
    _one_prefix(m)
    m.handle = gate.ensure(
        m.engine,
        m.reporter,
        prefix=m.spec.prefix,
        backend=m.spec.backend,
        options=m.spec.build,
        older=m.shortcomings.append,
    )
    wanted = network.attachment(m.project.name, m.name.text)
    with m.gate() as client:
        known = [s for s in client.status().attachments if s.attachment.id == wanted.id]
        if known and known[0].attachment == wanted and not _under_other_rules(m, known[0]):
            m.state = known[0]
            return
        m.enter(Phase.LOCKED, f"locking {network.interface}")
        if not m.found.network:
            argument = json.dumps({"id": wanted.id})
            by_hand = f"docker exec {m.handle.name} netpolicy gate call detach '{argument}'"
            m.undo.add("the gate's attachment", by_hand, lambda: _detach(m, wanted.id))
        with held():
            m.state = client.attach(wanted)


def _one_prefix(m: Making) -> None:
    """Refuse to have a gate that would no longer lock the networks of instances that exist."""
    known = [networks.of(info) for info in m.engine.networks.list({INSTANCE: None})]
    others = sorted(network.name for network in known if not network.interface.startswith(m.spec.prefix))
    if others:
        raise UserError(
            "prefix-in-use",
            f"the interfaces of {', '.join(others)} do not begin with {m.spec.prefix!r}, and one gate locks one prefix",
            hint="Remove those instances ('cspace list --all'), or set gate.prefix of this machine back.",
            exit_status=Exit.CONFLICT,
        )


def _under_other_rules(m: Making, state: State) -> bool:
    """Whether a container that is about to start would run under rules that are not those wanted, until these are applied."""
    dev = m.found.dev
    stays = dev is not None and dev.running and outdated(m, dev) is None
    return not stays and state.ruleset not in (None, m.spec.ruleset.at(SystemClock().now()).id)


def start(m: Making) -> None:
    """Have the volumes, and the dev container running on the locked network."""
    m.dev, *cut_short = m.found.devs or (None,)
    for container in cut_short:
        m.engine.containers.remove(container.id)
    own = names.object_name(m.project.name, m.name.text)
    if m.dev is not None and m.dev.name != own:
        # It was to be replaced, and whoever was at it did not come to that.
        m.engine.containers.rename(m.dev.id, own)
        m.dev = replace(m.dev, name=own)
    why = None if m.dev is None else outdated(m, m.dev)
    if m.dev is not None and m.dev.running and why is None:
        return
    m.enter(Phase.STARTING, f"starting the container of {m.name.text}")
    if m.dev is None:
        make_volumes(m)
        m.dev = make_container(m)
    elif why is not None:
        make_volumes(m)
        m.say(Phase.STARTING, f"making the container of {m.name.text} anew: {why}")
        m.notes.append(
            f"the container was made anew, for {why}; what was outside of its volumes is gone, its processes too"
        )
        m.former = m.dev
        m.dev = replace_container(m, m.dev)
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
    state = made(m.state)
    wanted = m.spec.ruleset
    same = state.ruleset == wanted.at(SystemClock().now()).id and (state.upstreams or ()) == (m.spec.upstreams or ())
    # What waits to be confirmed would be undone by itself.
    if same and state.confirm_by is None and not state.warnings and not state.unresolved:
        return
    m.say("policy", f"applying {wanted.policy}: {len(wanted.by_name)} names, {len(wanted.ranges)} ranges")
    with m.gate() as client:
        m.state = client.apply(m.tag, wanted, upstreams=m.spec.upstreams)


def fill_workspace(m: Making) -> None:
    """Have the repository in the workspace; one that is there is left alone."""
    box = ContainerBox(m.engine, made(m.dev).id)
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
    state, dev, handle = made(m.state), made(m.dev), made(m.handle)
    if state.phase in ("off", "observed") or (state.verification or {}).get("state") == "verified":
        return
    m.enter(Phase.VERIFYING, "verifying the firewall")
    with m.gate() as client:
        report = verify(
            m.engine,
            inside=dev.id,
            control=handle.container,
            ruleset=m.spec.ruleset.at(SystemClock().now()),
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
        m.state = client.verified(m.tag, state.ruleset or "", report.to_json())


#: In this order. Each entry is one phase's work; between any two of them a run may end and a later one go on.
PHASES = (reserve, lock, start, apply, fill_workspace, prove)


def _sending(m: Making) -> Callable[[float], None]:
    def tell(fraction: float) -> None:
        m.say("workspace", "sending the repository", fraction)

    return tell


def _remove_networks(m: Making) -> None:
    for network in m.engine.networks.list({RUN: m.run}):
        m.engine.networks.remove(network.id)


def _detach(m: Making, attachment_id: str) -> None:
    with m.gate() as client:
        client.detach(attachment_id)
