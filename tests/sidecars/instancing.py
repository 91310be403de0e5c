"""What the instance tests share: a project on a Docker host in a lab, and a sender whose packets can be recognised."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.docker_host import DockerHost

from netpolicy.compile import compile_policy
from netpolicy.lab import Lab
from netpolicy.policy import parse
from netpolicy.presets import names as preset_names
from netpolicy.ruleset import Ruleset
from sidecars import gate, images, instance
from sidecars.engine import PROJECT, Engine
from sidecars.instance import InstanceInfo, InstanceSpec
from sidecars.journal import Journal
from sidecars.names import tag
from sidecars.progress import Reporter, silent
from sidecars.project import Project

STALE = images.BuildOptions(keep_stale=True)
#: Tries one connection and sends the nonce along: KIND ADDRESS PORT NONCE; prints [outcome, milliseconds].
SENDER = Path(__file__).with_name("sender.py")


@dataclass(frozen=True)
class Machine:
    """A Docker host with the lab's internet as its only uplink."""

    lab: Lab
    host: DockerHost
    engine: Engine

    def unfiltered(self, *words: str) -> tuple[str, float]:
        """Send from the host itself, where nothing filters: the positive control."""
        argv = [sys.executable, "-I", "-", *words]
        return result_of(self.lab.host.run(argv, stdin=SENDER.read_bytes()).text)


@dataclass
class World:
    """A project, its repository, and what an instance of it shall be like."""

    machine: Machine
    project: Project
    journal: Journal
    policy: dict[str, Any] = field(default_factory=lambda: {"domains": ["api.github.com"]})

    @classmethod
    def create(cls, machine: Machine, folder: Path) -> World:
        root = folder / f"p{secrets.token_hex(4)}"
        root.mkdir()
        world = cls(machine, Project(root.name, root), Journal())
        world.git("init", "-q", "-b", "main")
        world.git("remote", "add", "origin", "https://example.com/team/shop.git")
        (root / "README").write_text("hello\n")
        world.git("add", "-A")
        world.git("-c", "user.name=Kim", "-c", "user.email=kim@example.com", "commit", "-q", "-m", "first")
        return world

    @property
    def engine(self) -> Engine:
        return self.machine.engine

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", str(self.project.root), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def ruleset(self) -> Ruleset:
        presets = dict.fromkeys(preset_names(), False)
        return compile_policy(parse({"presets": presets, **self.policy}, source="test"))

    def spec(self, name: str | None = None, **options: Any) -> InstanceSpec:
        own = {
            "ruleset": self.ruleset(),
            "verify": parse(self.policy, source="test").verify,
            "image": images.INSTANCE.name,
            "name": name,
            # The images were made before the engine was cut off from registries.
            "build": STALE,
            "verify_seconds": 20,
        }
        return InstanceSpec(**{**own, **options})

    def up(self, name: str | None = None, reporter: Reporter = silent, **options: Any) -> InstanceInfo:
        return instance.up(self.engine, self.project, self.spec(name, **options), reporter)

    def down(self, name: str, **options: Any) -> instance.Removed:
        return instance.down(self.engine, self.project.name, name, root=self.project.root, **options)

    def list(self) -> dict[str, InstanceInfo]:
        return {info.name: info for info in instance.list_instances(self.engine, self.project.name)}

    def run(
        self, name: str, *argv: str, ok: Sequence[int] | None = (0,), stdin: bytes | None = None, **options: Any
    ) -> str:
        """A command in an instance, as its user."""
        container = instance.container_of(self.engine, self.project.name, name).id
        return self.engine.containers.execs.run(
            container, argv, user="dev", cwd="/workspace", ok=ok, stdin=stdin, **options
        ).text

    def send(self, name: str, *words: str) -> tuple[str, float]:
        """Send from inside an instance."""
        return result_of(self.run(name, "/usr/bin/python3", "-I", "-", *words, stdin=SENDER.read_bytes()))

    def traces(self) -> dict[str, Any]:
        """Everything of this project that exists anywhere: nothing, unless an instance does."""
        wanted = {PROJECT: self.project.name}
        links = json.loads(self.machine.lab.host.run(["ip", "-json", "link"]).text)
        bridges = {link["ifname"] for link in links}
        own = {"csp-" + tag(self.project.name, name) for name in ("mercury", "venus", "earth", "fix-it")}
        return {
            "containers": sorted(c.name for c in self.engine.containers.list(wanted)),
            "volumes": sorted(v.name for v in self.engine.volumes.list(wanted)),
            "networks": sorted(n.name for n in self.engine.networks.list(wanted)),
            "bridges": sorted(bridges & own),
            "attached": sorted(n for n in self.attached() if n.startswith(f"{self.project.name}/")),
            "journal": sorted(str(key) for key in self.journal.entries(str(self.engine.address), self.project.name)),
        }

    def attached(self) -> list[str]:
        """What the gate guards, by name; nothing where no gate runs."""
        found = gate.find(self.engine)
        if found is None or not found.running:
            return []
        with gate.conversation(self.engine, found) as client:
            return [state.attachment.name for state in client.status().attachments]

    def clear(self) -> None:
        for one in list(self.list().values()):
            self.down(one.name, force=True)


NOTHING = {"containers": [], "volumes": [], "networks": [], "bridges": [], "attached": [], "journal": []}


def nonce() -> str:
    return secrets.token_hex(12)


def retried(act: Callable[[], Any], seconds: float = 10) -> Any:
    """Call until it is true, without a sleep: each call takes its own time."""
    import time

    deadline = time.monotonic() + seconds
    while not (found := act()):
        assert time.monotonic() < deadline, "it did not come true in time"
    return found


def result_of(text: str) -> tuple[str, float]:
    outcome, milliseconds = json.loads(text.splitlines()[-1])
    return str(outcome), float(milliseconds)


def lie(patch: pytest.MonkeyPatch) -> None:
    """Probes inside go out through the gate's container, where nothing is filtered: a firewall with a hole."""
    from sidecars import verify as module

    honest = module._probe

    def holed(engine: object, container: str, targets: list[str], seconds: float) -> object:
        outside = gate.find(engine)  # type: ignore[arg-type]  # the engine, as given
        assert outside is not None
        return honest(engine, outside.id, targets, seconds)  # type: ignore[arg-type]  # the same

    patch.setattr(module, "_probe", holed)
