"""`doctor`: what an instance needs, looked at from the outside in; one line each. Changes and starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cspace_mcp.config import load
from cspace_mcp.results import Check, Diagnosis
from netpolicy.errors import UserError
from netpolicy.policy import find
from sidecars import gate, hostcheck, images
from sidecars.engine import Engine
from sidecars.instance import Phase, assess, list_instances
from sidecars.project import Project
from sidecars.workspace import inspect


def examine(directory: Path, environ: Mapping[str, str]) -> Diagnosis:
    """Look at everything; what fails does not keep the rest from being looked at."""
    checks = [_tried("configuration", lambda: _configuration(directory, environ))]
    checks.append(_tried("repository", lambda: _repository(directory, environ)))
    with Engine(environ=environ) as engine:
        reached = _tried("docker engine", lambda: _engine(engine))
        checks.append(reached)
        if reached.state != "failed":
            for name, look in (("images", _images), ("gate", _gate), ("host", _host), ("instances", _instances)):
                checks.append(_tried(name, lambda look=look: look(engine)))  # type: ignore[misc]  # mypy: cannot infer
    return Diagnosis(checks=checks)


def _tried(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except UserError as error:
        return Check(name=name, state="failed", message=error.message, hint=error.hint)


def _configuration(directory: Path, environ: Mapping[str, str]) -> Check:
    config = load(find(directory) or directory, environ=environ)
    return Check(
        name="configuration", state="ok", message=" and ".join(config.files) or "built-in defaults (no .cspace.json)"
    )


def _repository(directory: Path, environ: Mapping[str, str]) -> Check:
    project = Project.at(directory)
    source = inspect(project.root)
    where = f"branch {source.branch}" if source.branch else f"commit {source.commit[:12]}"
    return Check(name="repository", state="ok", message=f"{project.root}, {where}")


def _engine(engine: Engine) -> Check:
    info = engine.info()
    message = f"{info.version} at {engine.address}, {info.system}, Linux {info.kernel}"
    return Check(name="docker engine", state="ok", message=message)


def _images(engine: Engine) -> Check:
    drifted = images.drift(engine)
    if not drifted:
        return Check(name="images", state="ok", message="both are there and up to date")
    message = "; ".join(str(drift) for drift in drifted)
    return Check(
        name="images", state="warning", message=message, hint="'cspace up' or 'cspace image build' builds them."
    )


def _gate(engine: Engine) -> Check:
    found = gate.find(engine)
    if found is None:
        return Check(name="gate", state="ok", message="not needed yet; 'cspace up' starts it")
    if not found.running:
        hint = "What was denied stays denied. 'cspace up NAME' starts it again."
        return Check(name="gate", state="warning", message=f"{found.name} does not run", hint=hint)
    with gate.conversation(engine, found) as client:
        status = client.status()
    if status.problems:
        return Check(name="gate", state="failed", message="; ".join(status.problems), hint=f"docker logs {found.name}")
    drifted = [f"{state.attachment.name}: {text}" for state in status.attachments for text in assess.drift(state)]
    if drifted:
        hint = "Look for a program that rewrites the host's firewall. What firewall.on_drift says was done."
        return Check(name="gate", state="warning", message=" | ".join(drifted), hint=hint)
    resolvers = ", ".join(status.gate.upstreams) or "none"
    message = (
        f"{found.name} {status.gate.version} by {status.gate.backend or 'an unknown backend'}, "
        f"guards {len(status.attachments)} of its networks, resolvers {resolvers}"
    )
    return Check(name="gate", state="ok", message=message)


def _host(engine: Engine) -> Check:
    """What of the host itself is in the way of the gate, or of the rules."""
    found = gate.find(engine)
    if found is None or not found.running:
        return Check(name="host", state="ok", message="looked at once the gate runs")
    with gate.conversation(engine, found) as client:
        prefix = client.hello().prefix or gate.PREFIX
    routed = hostcheck.source_routes(engine, found.id, prefix)
    if routed:
        settings = " ".join(f"net.ipv4.conf.{name}.accept_source_route=0" for name in ("all", *routed))
        message = f"packets that name their own way are taken from {', '.join(routed)}: they may go past the rules"
        return Check(name="host", state="warning", message=message, hint=f"sysctl -w {settings}")
    inside = [i for i in list_instances(engine) if i.phase in _RUNNING and i.firewall.state in _ANSWERING]
    if not inside:
        return Check(name="host", state="ok", message="no source routing; its firewall is tried once an instance runs")
    silent = hostcheck.unanswered(engine, inside[0])
    if silent:
        rules = "; ".join(rule.format(prefix=prefix) for rule in hostcheck.ACCEPTS)
        message = (
            f"the gate does not get the questions of {inside[0].project}/{inside[0].name} to {', '.join(silent)}: no name "
            "resolves there; a firewall of the host (ufw, for one) drops what comes from bridges"
        )
        return Check(name="host", state="warning", message=message, hint=f"{rules} (docs/images.md has it for ufw)")
    return Check(name="host", state="ok", message="no source routing; its firewall lets questions through to the gate")


_RUNNING = (Phase.READY, Phase.DEGRADED)
_ANSWERING = ("enforced", "observed", "off")


def _instances(engine: Engine) -> Check:
    found = list_instances(engine)
    bad = [
        f"{i.project}/{i.name} is {i.phase.value}: {'; '.join(i.reasons)}" for i in found if i.phase.value == "failed"
    ]
    if bad:
        return Check(name="instances", state="failed", message=" | ".join(bad))
    open_ones = [f"{i.project}/{i.name}: {i.reasons[0]}" for i in found if i.firewall.state in ("off", "observed")]
    if open_ones:
        return Check(name="instances", state="warning", message=" | ".join(open_ones))
    counts: dict[str, int] = {}
    for info in found:
        counts[info.phase.value] = counts.get(info.phase.value, 0) + 1
    return Check(name="instances", state="ok", message=", ".join(_count(counts)) or "none")


def _count(counts: Mapping[str, int]) -> Iterator[str]:
    for state, number in sorted(counts.items()):
        yield f"{number} {state}"
