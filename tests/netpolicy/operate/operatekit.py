"""Helpers of these tests: the `netpolicy` program as an operator of a lab's host uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netpolicy import presets
from netpolicy.errors import UserError
from netpolicy.gate.client import GateClient
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab, Site
from netpolicy.lab.lab import Workload

#: Nothing but what a test says.
BARE: dict[str, Any] = {"presets": dict.fromkeys(presets.names(), False), "ssh": False}


@dataclass(frozen=True)
class Done:
    """One command that has ended."""

    status: int
    text: str
    errors: str

    @property
    def json(self) -> Any:
        """What it printed."""
        return json.loads(self.text)


@dataclass
class Operator:
    """Types commands on a lab's host. The gate's places are the lab's own."""

    lab: Lab
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where the gate listens."""
        return self.lab.directory / "gate" / "gate.sock"

    @property
    def state(self) -> Path:
        """What it remembers."""
        return self.lab.directory / "state"

    def argv(self, *words: str) -> list[str]:
        """The command line."""
        own = ("--socket", str(self.socket), "--state", str(self.state))
        return [sys.executable, "-m", "netpolicy", *words, *own]

    def run(self, *words: str, status: int | None = 0) -> Done:
        """Run a command to its end, and look at its exit status (None: whatever it is)."""
        done = self.lab.host.run(self.argv(*words), ok=range(256), env=self.env)
        result = Done(done.status, done.text, done.stderr.decode())
        assert status is None or done.status == status, result
        return result

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command."""
        return self.lab.host.popen(self.argv(*words), **options)

    def policy(self, *domains: str, name: str = "policy.json", **keys: Any) -> str:
        """Write a policy that allows `domains`; what is to be proven are the lab's own sites."""
        allowed = [f"{domains[0].partition(':')[0]}:443"] if domains else []
        verify = {"blocked": ["example.com"], "allowed": allowed}
        path = self.lab.directory / name
        path.write_text(json.dumps({**BARE, "domains": list(domains), "verify": verify, **keys}))
        return str(path)

    def gate(self) -> GateClient:
        """Talk to the gate ourselves."""
        return GateClient.connect(self.socket)

    def close(self) -> None:
        """Kill whatever gates are left."""
        for socket in self.socket.parent.glob("*.sock"):
            with contextlib.suppress(UserError, ProcessLookupError), GateClient.connect(socket) as gate:
                os.kill(gate.handshake().pid, signal.SIGKILL)


def bridged(lab: Lab, bridge: str) -> Workload:
    """A workload behind a bridge of the host, which has the addresses of the gateway."""
    port = f"p{bridge}"[:15]
    box = lab.add_workload(port)
    lab.host.run(["ip", "address", "flush", "dev", port])
    with Links(lab.host.name) as links:
        links.bridge(bridge)
        for address in box.ends["host"]:
            links.address(bridge, address)
        links.enslave(port, bridge)
        links.up(bridge, port)
    return box


def reaches(lab: Lab, box: Workload, target: Site | str, port: int = 443) -> bool:
    """Whether a connection from the workload gets to the far end: the receiver's word, not the workload's."""
    addresses = (target,) if isinstance(target, str) else target.addresses
    host = target if isinstance(target, str) else target.name
    lab.receiver.forget()
    box.probe(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", seconds=3)
    return any(lab.receiver.arrived(address, port) for address in addresses)
