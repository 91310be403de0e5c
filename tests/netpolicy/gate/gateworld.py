"""A lab with a daemon on its host, and a workload behind it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from gatekit import Daemon, rules

from netpolicy.gate.protocol import State
from netpolicy.lab import Lab, Site
from netpolicy.ruleset import Ruleset


class World:
    """A lab, a daemon on its host, and one workload that is attached to it."""

    def __init__(self, lab: Lab, *options: str, owned: bool = True) -> None:
        self.lab = lab
        self.daemon = Daemon(lab, *options, owned=owned)
        self.client = self.daemon.client()
        self.box = lab.add_workload(f"csp-{secrets.token_hex(4)}")
        self.attachment = self.box.attachment()
        self.client.attach(self.attachment)

    def apply(self, *names: str | Site, **more: object) -> State:
        ruleset = rules(*(name if isinstance(name, str) else name.name for name in names))
        return self.client.apply(self.attachment.id, ruleset, **more)  # type: ignore[arg-type]  # a test's keywords

    def put(self, ruleset: Ruleset, **more: object) -> State:
        return self.client.apply(self.attachment.id, ruleset, **more)  # type: ignore[arg-type]  # a test's keywords

    def until(self, done: Callable[[State], object], seconds: float = 10) -> State:
        """Ask until the state is so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.state()
            if done(state):
                return state
        raise AssertionError(f"it did not become so: {state}")

    def restart(self) -> None:
        self.client.close()
        self.daemon.start()
        self.client = self.daemon.client()

    def state(self) -> State:
        return self.client.status(self.attachment.id).attachments[0]

    def gateway(self, family: int) -> str:
        return str(self.box.gateways[family])

    def reaches(self, address: str, port: int = 443) -> bool:
        """Whether a connection succeeds; one that does not must not have knocked at the internet."""
        before = self._knocks(address, port)
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        outcome = self.box.reach(target).outcome
        arrived = self._knocks(address, port) > before
        assert (outcome, arrived) in (("reached", True), ("refused", False)), (outcome, arrived)
        return arrived

    def _knocks(self, address: str, port: int) -> int:
        """TCP segments with SYN and without ACK that arrived: the last ones of an earlier connection do not count."""
        header = 40 if ":" in address else 20
        packets = self.lab.receiver.arrived(address, port, 6)
        return sum(packet.data[header + 13] & 0x12 == 0x02 for packet in packets)
