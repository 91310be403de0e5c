"""The real Claude Code client: installed once into a cache directory, run offline against a scripted Messages API.

Two versions, because they speak the two eras of the protocol: 2.1.197 shakes hands (2025-11-25) and lists every tool to the
model, 2.1.329 does not (2026-07-28) and holds back what is not marked as always loaded.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.claude.messages import ScriptedMessages

#: Protocol era: version of the client that speaks it.
VERSIONS = {"2025-11-25": "2.1.197", "2026-07-28": "2.1.329"}
PACKAGE = "@anthropic-ai/claude-code"
_INSTALL_SECONDS = 600.0


@dataclass(frozen=True)
class Ended:
    """A conversation that has ended."""

    status: int
    result: dict[str, Any]
    """What ``--output-format json`` printed."""
    stderr: str


def lacks() -> str | None:
    """Why the client cannot be had on this machine; None where it can."""
    if all(_binary(version).exists() for version in VERSIONS.values()):
        return None
    return None if shutil.which("npm") else "needs the program npm, to install Claude Code"


def installed(version: str) -> Path:
    """The client's program, installed from npm the first time anybody on this machine asks."""
    folder = _folder(version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _binary(version).exists():
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            words = ["npm", "install", "--prefix", str(fresh), "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(
                [*words, f"{PACKAGE}@{version}"], check=True, timeout=_INSTALL_SECONDS, stdout=subprocess.DEVNULL
            )
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    return _binary(version)


def run(
    version: str,
    api: ScriptedMessages,
    server: Sequence[str | Path],
    *,
    home: Path,
    cwd: Path,
    prompt: str = "go",
    allowed: str = "mcp__cspace",
    env: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Ended:
    """One conversation with the server `cspace` registered, to its end.

    Args:
        version: Of the client.
        api: Its model.
        server: The MCP server's command line.
        home: An empty directory for the client's own files.
        cwd: The project it works in.
        prompt: What it is asked.
        allowed: The permission rule for tools.
        env: Variables added for the client and its server.
        seconds: Deadline.
    """
    config = {"mcpServers": {"cspace": {"command": str(server[0]), "args": [str(word) for word in server[1:]]}}}
    argv = [
        str(installed(version)), "-p", "--mcp-config", json.dumps(config), "--strict-mcp-config",
        "--allowedTools", allowed, "--output-format", "json", "--model", "scripted", "--", prompt,
    ]  # fmt: skip
    done = subprocess.run(
        argv, cwd=cwd, env=environment(home, api.url, env), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
        check=False,
    )  # fmt: skip
    result = json.loads(done.stdout) if done.stdout.strip().startswith(b"{") else {"raw": done.stdout.decode()}
    return Ended(done.returncode, result, done.stderr.decode())


def environment(home: Path, url: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the person's own, nothing that would leave this machine."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "anything",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        # Wait for the server before the first turn, however busy the machine is.
        "MCP_CONNECTION_NONBLOCKING": "0",
        "MCP_CONNECT_TIMEOUT_MS": "60000",
        "CLAUDE_CODE_MCP_STARTUP_WAIT_MS": "60000",
        "IS_SANDBOX": "1",
        "NO_PROXY": "127.0.0.1",
        **(more or {}),
    }


def _folder(version: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cspace-tests" / "claude-code" / version


def _binary(version: str) -> Path:
    return _folder(version) / "node_modules" / ".bin" / "claude"
