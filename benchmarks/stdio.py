"""The idle stdio server against the smallest server that the MCP SDK makes: time to the first answer, and memory.

Both are started in turns by the same interpreter and compared by their medians of one run. Usage: stdio.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from _table import ms, show

MINIMAL = """
from mcp.server import MCPServer
server = MCPServer("minimal")
@server.tool()
def nothing() -> str:
    return "nothing"
server.run()
"""
SERVERS: dict[str, Sequence[str]] = {
    "cspace mcp": (sys.executable, "-m", "cspace_mcp", "mcp"),
    "SDK, one tool": (sys.executable, "-c", MINIMAL),
}
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "0"}}


@dataclass(frozen=True)
class Run:
    """One server's life; seconds and bytes."""

    start: float
    tools: float
    memory: int
    """Proportional set size, after the tools were listed."""
    leave: float


def run(argv: Sequence[str]) -> Run:
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        ask(process, 1, "initialize", INITIALIZE)
        started = time.perf_counter()
        send(process, {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}})
        ask(process, 2, "tools/list", {})
        listed = time.perf_counter()
        memory = proportional(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        ending = time.perf_counter()
        process.wait(30)
        return Run(started - begun, listed - started, memory, time.perf_counter() - ending)


def ask(process: subprocess.Popen[bytes], number: int, method: str, params: dict[str, object]) -> None:
    send(process, {"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    assert "result" in answer, answer


def send(process: subprocess.Popen[bytes], message: dict[str, object]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def proportional(pid: int) -> int:
    """Shared pages count by the share that is this process's."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell the proportional set size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    runs: dict[str, list[Run]] = {name: [] for name in SERVERS}
    for _ in range(rounds + 1):
        for name, argv in SERVERS.items():
            runs[name].append(run(argv))
    # The first round fills caches.
    middle = {name: [median(getattr(r, key) for r in found[1:]) for key in ("start", "tools", "memory", "leave")]
              for name, found in runs.items()}  # fmt: skip
    rows = [
        [name, ms(start), ms(tools), f"{memory / 1e6:.1f}", ms(leave)]
        for name, (start, tools, memory, leave) in middle.items()
    ]
    ours, peer = (middle[name] for name in SERVERS)
    rows.append(["ratio", *(f"{mine / theirs:.2f}" for mine, theirs in zip(ours, peer, strict=True))])
    show(
        "an idle stdio server",
        ["server", "to initialize, ms", "tools/list, ms", "memory, MB", "leaving at end-of-file, ms"],
        rows,
        f"medians of {rounds} rounds; memory is the proportional set size; {len(SERVERS)} servers in turns",
    )


if __name__ == "__main__":
    main()
