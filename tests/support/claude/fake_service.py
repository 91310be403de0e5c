"""A `Service` without Docker: its instances are files in a directory, so that a server and its workers share them."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from cspace_mcp.results import (
    Destruction,
    Execution,
    Firewall,
    FirewallView,
    Instance,
    Judgement,
    Probe,
    Rule,
    Unsaved,
    Verification,
)
from cspace_mcp.service import Spawn
from netpolicy.errors import Exit, UserError
from sidecars.names import first_free, parse
from sidecars.progress import Reporter, Step

FIREWALL = Firewall(state="enforced", policy=".cspace.json", ruleset="0123456789ab", names=2, ranges=0, refused=3)
PROOF = Verification(
    state="verified",
    blocked=[Probe(target="example.com", state="proven", outcome="dns-denied", milliseconds=1.5, control="reached")],
    allowed=[Probe(target="https://api.github.com/zen", state="proven", outcome="reached", milliseconds=80)],
)


class FakeService:
    """Instances in a directory.

    ``hold`` (a FIFO) in the directory makes `spawn` wait in its middle until somebody writes to it. ``unsaved`` (JSON) is what
    every instance has to lose. ``log`` collects what was done, one line each.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def log(self, line: str) -> None:
        with (self.directory / "log").open("a") as file:
            file.write(line + "\n")

    @property
    def logged(self) -> list[str]:
        path = self.directory / "log"
        return path.read_text().splitlines() if path.exists() else []

    def _known(self) -> list[str]:
        return sorted(path.stem for path in self.directory.glob("*.instance"))

    def _instance(self, name: str) -> Instance:
        path = self.directory / f"{name}.instance"
        if not path.exists():
            known = ", ".join(self._known()) or "none"
            raise UserError("instance-missing", f"no instance {name!r}; there is: {known}", exit_status=Exit.MISSING)
        return Instance.model_validate_json(path.read_text())

    def spawn(self, request: Spawn, report: Reporter) -> Instance:
        name = parse(request.name).text if request.name else first_free(self._known())
        path = self.directory / f"{name}.instance"
        if path.exists():
            raise UserError("name-taken", f"there is an instance {name!r} already", exit_status=Exit.CONFLICT)
        made = Instance(
            name=name, project="demo", state="ready", branch="main", firewall=FIREWALL, verification=PROOF,
            subnets=["10.213.0.0/28"], container="c0ffee", created="2026-01-01T00:00:00Z",
        )  # fmt: skip
        path.write_text(made.model_dump_json())
        try:
            report(Step("network", "making the network", 0.2))
            hold = self.directory / "hold"
            if hold.exists():
                self.log(f"holding {name}")
                hold.read_text()
            report(Step("verify", "verifying the firewall"))
        except BaseException:
            path.unlink()
            self.log(f"undone {name}")
            raise
        self.log(f"spawned {name}")
        return made

    def instances(self, *, all_projects: bool) -> list[Instance]:
        return [self._instance(name) for name in self._known()]

    def unsaved(self, name: str) -> Unsaved:
        self._instance(name)
        path = self.directory / "unsaved"
        return Unsaved.model_validate_json(path.read_text()) if path.exists() else Unsaved()

    def destroy(self, name: str, *, force: bool, report: Reporter) -> Destruction:
        unsaved = self.unsaved(name)
        if unsaved and not force:
            raise UserError(
                "unsaved-work",
                f"{name} holds work that exists nowhere else: {unsaved.sentence()}",
                exit_status=Exit.CONFLICT,
            )
        report(Step("remove", f"removing {name}", 0.5))
        (self.directory / f"{name}.instance").unlink()
        self.log(f"destroyed {name}")
        return Destruction(name=name, project="demo", removed=[f"cspace-demo-{name}"], lost=unsaved or None)

    def execute(self, name: str, command: Sequence[str], *, seconds: float, stop: threading.Event) -> Execution:
        self._instance(name)
        with subprocess.Popen(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            self.log(f"running {name}")
            threading.Thread(target=lambda: (stop.wait(), process.kill()), daemon=True).start()
            out, err = process.communicate(timeout=seconds)
        self.log(f"ran {name} {process.returncode}")
        stdout = out.decode()
        return Execution(
            exit_status=process.returncode, stdout=stdout[:1000], stderr=err.decode(), truncated=len(stdout) > 1000,
            full_output="/tmp/cspace/output-1" if len(stdout) > 1000 else None,
        )  # fmt: skip

    def firewall(self, name: str | None) -> FirewallView:
        if name is not None:
            self._instance(name)
        rules = [
            Rule(
                target=f"host{number}.example",
                services=["443/tcp"],
                source=".cspace.json",
                key=f"firewall.domains[{number}]",
            )
            for number in range(45)
        ]
        return FirewallView(instance=name, firewall=FIREWALL, rules=rules)

    def check(self, target: str, name: str | None) -> Judgement:
        if target == "stuck.example":
            self.log("stuck")
            threading.Event().wait()
        if " " in target:
            raise UserError("bad-target", f"{target!r} is not HOST[:PORT[/PROTO]]", exit_status=Exit.BAD_INPUT)
        if target.startswith("allowed.example"):
            return Judgement(
                target=target,
                allowed=True,
                layer="dns",
                identity="ip",
                explanation="an allowed name",
                rule="allowed.example",
            )
        return Judgement(
            target=target, allowed=False, layer="dns", identity="none", explanation=f"no rule names {target}",
            suggestion=f"{target}:443/tcp",
        )  # fmt: skip


def broken(directory: Path) -> FakeService:
    """One whose every listing is a defect."""

    class Broken(FakeService):
        def instances(self, *, all_projects: bool) -> list[Instance]:
            return [Instance.model_validate(json.loads('{"secret": "hunter2"}'))]

    return Broken(directory)
