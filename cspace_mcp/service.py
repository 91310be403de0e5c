"""Everything that a person or a tool can do, once: the command line and the MCP server both call a `Service`.

Synchronous; long calls take a `Reporter` and may be cancelled by it (it raises, the work is undone). Importing this module
costs little: Docker and the firewall are imported by the calls that need them (`cspace_mcp.host`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cspace_mcp.results import Destruction, Execution, FirewallView, Instance, Judgement, Unsaved
from sidecars.progress import Reporter


@dataclass(frozen=True, slots=True)
class Spawn:
    """What `Service.spawn` is asked for."""

    name: str | None = None
    """None takes the first free of the planets, then further bodies."""
    policy_file: Path | None = None
    """Replaces the project's firewall policy."""
    new: bool = False
    """Refuse an instance that exists already (``name-taken``); otherwise it is brought up to date and returned."""


class Service(Protocol):
    """One project's instances. Every call raises `netpolicy.errors.UserError` for what a person can cure."""

    def spawn(self, request: Spawn, report: Reporter) -> Instance:
        """Make an instance and prove its firewall. On failure or cancellation nothing of it is left."""

    def instances(self, *, all_projects: bool) -> list[Instance]:
        """Every instance of the project (or of all), sorted by project and name."""

    def unsaved(self, name: str) -> Unsaved:
        """The work that would be lost with an instance."""

    def destroy(self, name: str, *, force: bool, report: Reporter) -> Destruction:
        """Remove an instance with its volumes. Raises ``unsaved-work`` over unsaved work without `force`."""

    def execute(self, name: str, command: Sequence[str], *, seconds: float, stop: threading.Event) -> Execution:
        """Run a command in ``/workspace`` as the instance's user, output bounded.

        Args:
            name: The instance.
            command: Program and arguments.
            seconds: Time limit; the command is then stopped and the output so far returned.
            stop: Set by the caller to stop the command early.
        """

    def firewall(self, name: str | None) -> FirewallView:
        """The policy in force around an instance; with None the one that a new instance would get."""

    def check(self, target: str, name: str | None) -> Judgement:
        """What would happen to a connection to `target`, ``HOST[:PORT[/PROTO]]``."""
