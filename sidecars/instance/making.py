"""One run of `up`: everything that its phases hand on to each other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from netpolicy.errors import UserError
from netpolicy.gate.client import GateClient
from netpolicy.gate.protocol import State
from sidecars import gate, names
from sidecars.engine import ContainerInfo, Engine
from sidecars.instance.model import InstanceSpec, Phase
from sidecars.instance.objects import BRANCH, ROOT, RUN, Objects
from sidecars.instance.undo import Undo
from sidecars.journal import Journal, Key
from sidecars.names import Name
from sidecars.networks import InstanceNetwork
from sidecars.progress import Reporter, Step
from sidecars.project import Project
from sidecars.workspace import Source

T = TypeVar("T")


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
    former: ContainerInfo | None = None
    """The container that `dev` has replaced; it goes when all is well."""
    state: State | None = None
    branch: str | None = None
    notes: list[str] = field(default_factory=list)
    shortcomings: list[str] = field(default_factory=list)
    """What keeps it from being `ready` and can be seen only by this run."""

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


def made(thing: T | None) -> T:
    """What an earlier phase has made."""
    if thing is None:
        raise AssertionError("the phases were run out of order")
    return thing
