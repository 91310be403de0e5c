"""`HostService`: the service over a Docker engine and the repository around a directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cspace_mcp import diagnosis, running, views
from cspace_mcp.config import Config, host_settings, load, project_name
from cspace_mcp.results import (
    Destruction,
    Diagnosis,
    EngineFound,
    Execution,
    FirewallView,
    Image,
    Instance,
    Judgement,
    Unsaved,
)
from cspace_mcp.service import Spawn
from netpolicy.clock import SystemClock
from netpolicy.compile import compile_policy
from netpolicy.decide import decide
from netpolicy.errors import Exit, UserError
from netpolicy.gate.client import GateClient
from netpolicy.policy import find, parse_flow
from netpolicy.presets import freshening
from netpolicy.ruleset import Ruleset
from sidecars import gate, images, names, workspace
from sidecars import instance as instances
from sidecars.engine import Engine, ExecStream
from sidecars.images import BuildOptions
from sidecars.install import ensure_engine
from sidecars.instance import InstanceSpec
from sidecars.instance.exec import missing
from sidecars.instance.model import MEMORY, PROCESSES
from sidecars.networks import Pool
from sidecars.progress import Reporter, Step
from sidecars.project import Project

#: How long a probe of the verification may take, in seconds; slow machines want more than the default.
VERIFY_SECONDS = "CSPACE_VERIFY_SECONDS"


class HostService:
    """What a person at a checkout can do. Configuration and engine are looked at anew by each call.

    Args:
        directory: Somewhere in the checkout.
        environ: The environment: engine, ``CSPACE_FIREWALL_DOMAINS``.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ

    def spawn(self, request: Spawn, report: Reporter) -> Instance:
        """See `Service`. The images are built first, where they are missing or out of date."""
        config, project = self._configured(request.policy_file)
        seconds, shared = self._verify_seconds(), host_settings(self._environ).gate
        name = names.parse(request.name) if request.name is not None else None
        # What is wrong here would be found later too, but only after minutes of building.
        workspace.inspect(project.root, name.branch if name else None)
        ruleset = _compiled(self._freshened(config, request, report))
        with self._engine() as engine:
            engine.info()
            older: list[str] = []
            image, _ = images.ensure_all(engine, report, older=older.append)
            spec = _spec(config, request, ruleset, image.tags[0] if image.tags else image.id)
            spec = replace(
                spec,
                shortcomings=tuple(older),
                build=BuildOptions(keep_stale=True),
                prefix=shared.prefix,
                backend=shared.backend,
            )
            spec = spec if seconds is None else replace(spec, verify_seconds=seconds)
            return views.instance(instances.up(engine, project, spec, report))

    def instances(self, *, all_projects: bool) -> list[Instance]:
        """See `Service`."""
        project = None if all_projects else self._project().name
        with self._engine() as engine:
            return [views.instance(info) for info in instances.list_instances(engine, project)]

    def unsaved(self, name: str) -> Unsaved:
        """See `Service`."""
        project = self._project()
        with self._engine() as engine:
            return views.unsaved(instances.unsaved(engine, project.name, name, project.root))

    def destroy(self, name: str, *, force: bool, report: Reporter) -> Destruction:
        """See `Service`."""
        project = self._project()
        with self._engine() as engine:
            gone = instances.down(engine, project.name, name, root=project.root, force=force, reporter=report)
            return views.destruction(gone)

    def execute(self, name: str, command: Sequence[str], *, seconds: float, stop: threading.Event) -> Execution:
        """See `Service`."""
        project = self._project()
        with self._engine() as engine:
            return running.execute(engine, project.name, name, command, seconds=seconds, stop=stop)

    @contextmanager
    def open(self, name: str, command: Sequence[str], *, terminal: tuple[int, int] | None) -> Iterator[ExecStream]:
        """A command in an instance with its streams; `terminal` gives it one of that many columns and rows."""
        project = self._project()
        with (
            self._engine() as engine,
            instances.exec_stream(
                engine, project.name, name, command, tty=terminal is not None, size=terminal,
                environment=_terminal_environment(self._environ) if terminal else None,
            ) as stream,
        ):  # fmt: skip
            yield stream

    def firewall(self, name: str | None) -> FirewallView:
        """See `Service`."""
        if name is None:
            ruleset = _compiled(self._configured()[0])
            return views.show(None, views.planned(ruleset), ruleset)
        with self._gate(name) as (client, tag):
            shown = client.show(tag)
            rule = views.firewall(instances.FirewallInfo.of(shown.state))
            return views.show(names.parse(name).text, rule, shown.ruleset)

    def check(self, target: str, name: str | None) -> Judgement:
        """See `Service`."""
        flow = parse_flow(target)
        if name is None:
            return views.judgement(target, decide(_compiled(self._configured()[0]), flow))
        with self._gate(name) as (client, tag):
            return views.judgement(target, client.check(tag, flow))

    def diagnose(self) -> Diagnosis:
        """What is missing or wrong on this machine."""
        return diagnosis.examine(self._directory, self._environ)

    def build_images(self, *, no_cache: bool, report: Reporter) -> list[Image]:
        """Have both images; `no_cache` builds them anew."""
        with self._engine() as engine:
            before = {recipe.name: engine.images.get(recipe.name) for recipe in (images.INSTANCE, images.GATE)}
            made = images.ensure_all(engine, report, force=no_cache)
            return [
                Image(name=name, id=image.id, built=old is None or old.id != image.id)
                for (name, old), image in zip(before.items(), made, strict=True)
            ]

    def install_engine(self, report: Reporter) -> EngineFound:
        """Find a Docker engine, or install and start one."""
        report(Step("engine", "looking for a Docker engine"))
        found = ensure_engine(report)
        with found.engine as engine:
            return EngineFound(address=str(engine.address), version=engine.info().version, actions=list(found.actions))

    def _configured(self, policy_file: Path | None = None) -> tuple[Config, Project]:
        """The configuration first: what is wrong with it can be said without git and Docker."""
        config = load(find(self._directory) or self._directory, environ=self._environ, policy_file=policy_file)
        return config, Project.at(self._directory, config.name)

    def _freshened(self, config: Config, request: Spawn, report: Reporter) -> Config:
        """The configuration with provider lists fetched anew, where one is old and can be had; else as it is."""
        clock = SystemClock()
        names = freshening.due(config.policy.active, self._environ, clock.now())
        if not names:
            return config
        report(Step("presets", f"fetching the networks of {', '.join(names)}"))
        failed = freshening.freshen(names, self._environ, clock=clock)
        for name, why in failed.items():
            report(Step("presets", f"the networks of {name} stay as old as they are: {why}"))
        return config if len(failed) == len(names) else self._configured(request.policy_file)[0]

    def _project(self) -> Project:
        """The project alone: a mistake in the rest of the configuration must not keep anybody from an instance."""
        return Project.at(self._directory, project_name(find(self._directory) or self._directory))

    def _verify_seconds(self) -> float | None:
        text = self._environ.get(VERIFY_SECONDS)
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 600:
            message = f"{VERIFY_SECONDS} = {text!r} is not a number of seconds between 0 and 600"
            raise UserError("bad-environment", message, exit_status=Exit.BAD_INPUT)
        return seconds

    def _engine(self) -> Engine:
        return Engine(environ=self._environ)

    @contextmanager
    def _gate(self, name: str) -> Iterator[tuple[GateClient, str]]:
        """The gate, and the attachment of an instance that exists."""
        project, text = self._project(), names.parse(name).text
        with self._engine() as engine:
            if not instances.list_instances(engine, project.name, name=text):
                raise missing(engine, project.name, text)
            found = gate.find(engine)
            if found is None or not found.running:
                raise UserError(
                    "gate-stopped",
                    "the gate does not run, so it cannot be asked; what was denied stays denied",
                    hint=f"'cspace up {text}' starts it again.",
                )
            with gate.conversation(engine, found) as client:
                yield client, names.tag(project.name, text)


def _compiled(config: Config) -> Ruleset:
    """What a dev container may reach now."""
    return compile_policy(config.policy, role="dev", now=SystemClock().now())


def _spec(config: Config, request: Spawn, ruleset: Ruleset, image: str) -> InstanceSpec:
    """What is wanted; what the configuration leaves open has the defaults of `InstanceSpec`."""
    container, shared = config.container, config.gate
    return InstanceSpec(
        ruleset=ruleset,
        verify=config.policy.verify,
        image=image,
        name=request.name,
        new=request.new,
        upstreams=config.policy.dns.upstream or shared.upstream,
        environment=container.environment,
        memory=MEMORY if container.memory is None else container.memory,
        processors=container.cpus or 0.0,
        processes=PROCESSES if container.pids is None else container.pids,
        pool=Pool() if shared.pool is None else Pool.of(shared.pool),
    )


def _terminal_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What programs in a terminal want to know of it."""
    return {key: environ[key] for key in ("TERM", "COLORTERM", "LANG") if environ.get(key)}
