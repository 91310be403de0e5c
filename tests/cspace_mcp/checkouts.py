"""A repository on a Docker host in a lab, and our programs run in it as a person would."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.machine import DockerLab

from netpolicy import command
from netpolicy.command import Completed
from netpolicy.presets import names as preset_names
from sidecars.engine import PROJECT

CSPACE = (sys.executable, "-m", "cspace_mcp")
#: Nothing but what a test allows, so that everything allowed resolves in the lab and the state is `ready`.
ONLY: dict[str, Any] = {"presets": dict.fromkeys(preset_names(), False), "domains": ["api.github.com"]}
SECONDS = 180.0


@dataclass
class Checkout:
    """One project."""

    machine: DockerLab
    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, machine: DockerLab, folder: Path) -> Checkout:
        """A repository with one commit, an upstream and a policy that allows one name."""
        root = folder / f"p{secrets.token_hex(4)}"
        root.mkdir()
        environ = {
            "DOCKER_HOST": machine.host.url,
            "XDG_STATE_HOME": str(folder / "state"),
            "CSPACE_VERIFY_SECONDS": "60",
        }
        made = cls(machine, root, environ)
        made.git("init", "-q", "-b", "main")
        made.git("remote", "add", "origin", "https://example.com/team/shop.git")
        made.configure(firewall=ONLY)
        made.commit("README", "hello\n")
        return made

    def git(self, *words: str) -> str:
        """Git in the repository."""
        return command.run(
            ["git", "-c", "user.name=Kim", "-c", "user.email=kim@example.com", *words], cwd=self.root
        ).text

    def commit(self, name: str, text: str, mode: int = 0o644) -> None:
        """Commit a file, and everything else."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"add {name}")

    def configure(self, **sections: Any) -> None:
        """Write ``.cspace.json``."""
        (self.root / ".cspace.json").write_text(json.dumps(sections))

    def cspace(self, *words: str, stdin: bytes = b"", ok: tuple[int, ...] | range = (0,), **environ: str) -> Completed:
        """Run our program in the repository."""
        return command.run(
            [*CSPACE, *words], cwd=self.root, env={**self.environ, **environ}, stdin=stdin, ok=ok, seconds=SECONDS
        )

    def json(self, *words: str, ok: tuple[int, ...] = (0,)) -> Any:
        """The same with ``--json``, read."""
        return json.loads(self.cspace(*words, "--json", ok=ok).text)

    def variables(self) -> dict[str, str]:
        """The whole environment, for programs started another way."""
        return {**os.environ, **self.environ}

    def left(self) -> list[str]:
        """Every Docker object of this project."""
        label = f"label={PROJECT}={self.root.name}"
        docker = self.machine.host.docker
        found = docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()
        found += docker("volume", "ls", "--filter", label, "--format", "{{.Name}}").split()
        return found + docker("network", "ls", "--filter", label, "--format", "{{.Name}}").split()

    def clear(self) -> None:
        """Remove every instance."""
        for name in self.cspace("list", "--names").text.split():
            self.cspace("down", name, "--force")
