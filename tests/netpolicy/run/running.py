"""Helpers of these tests: `netpolicy run` on a lab's host, in each of its forms."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import people

from netpolicy import command
from netpolicy.lab import Lab
from netpolicy.probe import ProbeResult, results, source


@dataclass(frozen=True)
class Form:
    """Who runs it, and over which uplink."""

    user: int | None
    uplink: str

    def __str__(self) -> str:
        return f"{'root' if self.user is None else 'user'}-{self.uplink}"


ROOT = Form(None, "host")
USER = Form(people.NOBODY, "pasta")
FORMS = (ROOT, USER, Form(None, "pasta"), Form(people.NOBODY, "slirp4netns"))


@dataclass
class Runner:
    """Runs `netpolicy run` on a lab's host."""

    lab: Lab
    form: Form = ROOT
    policy: dict[str, Any] = field(default_factory=dict)

    def argv(self, words: Sequence[str], *options: str) -> list[str]:
        """The command line; the policy is written first."""
        path = self.lab.directory / "policy.json"
        presets = dict.fromkeys(("anthropic", "claude", "github", "npm", "observability", "testing", "vercel"), False)
        path.write_text(json.dumps({"presets": presets, **self.policy}))
        path.chmod(0o644)
        own = ("--policy", str(path), "--uplink", self.form.uplink)
        return people.as_user(people.netpolicy("run", *own, *options, "--", *words), self.form.user)

    def run(self, *words: str, options: Sequence[str] = (), stdin: bytes = b"", **more: Any) -> command.Completed:
        """Run a command to its end."""
        return self.lab.host.run(self.argv(words, *options), stdin=stdin, ok=range(256), **more)

    def popen(self, *words: str, options: Sequence[str] = (), **more: Any) -> subprocess.Popen[bytes]:
        """Start a command."""
        return self.lab.host.popen(self.argv(words, *options), **more)

    def probe(self, *targets: str, seconds: float = 3.0, nonce: str = "") -> dict[str, ProbeResult]:
        """Try connections from behind the firewall."""
        words = [people.python(), "-I", "-S", "-", "--seconds", str(seconds), *(("--nonce", nonce) if nonce else ())]
        done = self.run(*words, *targets, stdin=source().encode())
        found = {r.target: r for r in results(done.text)}
        assert set(found) == set(targets), done.stderr.decode()
        return found


@contextlib.contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Wait for the first line of its output; kill it at the end."""
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it ended before it said anything"
        yield process
    finally:
        process.kill()
        process.wait()


def processes_with(word: str) -> list[str]:
    """The command lines in which a word occurs, of all processes of the machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found
