"""Pieces for tests of the gate: an enforcer that writes down what it is told, and policies in a line."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from netpolicy import policy, presets
from netpolicy.attachment import Attachment, Refusal
from netpolicy.compile import compile_policy
from netpolicy.errors import UserError
from netpolicy.flow import Address
from netpolicy.gate.client import GateClient
from netpolicy.lab import Lab, Node
from netpolicy.ruleset import Learned, Ruleset


@dataclass(frozen=True)
class Count:
    packets: int


class RecordingEnforcer:
    """The kernel as the gate sees it: survives gates, and fails on demand.

    `held` is what is in force: None for a locked attachment.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.prefix: str | None = None
        self.held: dict[str, Ruleset | None] = {}
        self.ports: dict[str, int | None] = {}
        self.elements: dict[str, list[Learned]] = {}
        self.failing: dict[str, int] = {}
        """Operations that fail, and how many times more."""
        self.drift: list[str] = []
        """What another program has changed; an `install` puts it right."""
        self.closed = False

    backend = "recording"

    def _note(self, operation: str, subject: str = "") -> None:
        self.calls.append(f"{operation} {subject}".strip())
        left = self.failing.get(operation, 0)
        if left:
            self.failing[operation] = left - 1
            raise UserError("kernel-refused", f"cannot {operation}")

    def install(self, prefix: str | None) -> None:
        self._note("install")
        self.prefix = prefix
        self.drift = []

    def attach(self, attachment: Attachment, dns_port: int | None) -> None:
        self._note("attach", attachment.id)
        self.held[attachment.id] = None
        self.elements[attachment.id] = []

    def apply(self, attachment: Attachment, ruleset: Ruleset, dns_port: int | None) -> None:
        self._note("apply", attachment.id)
        self.held[attachment.id] = ruleset
        self.ports[attachment.id] = dns_port
        kept = [entry for entry in self.elements.get(attachment.id, []) if ruleset.services_of(entry.name)]
        self.elements[attachment.id] = kept

    def learn(self, attachment_id: str, learned: Sequence[Learned]) -> None:
        self._note("learn", attachment_id)
        assert self.held[attachment_id] is not None
        self.elements[attachment_id] += learned

    def learned(self, attachment_id: str) -> list[tuple[Address, int, int, int, float]]:
        return [
            (entry.address, service.protocol, service.first, service.last, entry.seconds)
            for entry in self.elements[attachment_id]
            for service in entry.services
        ]

    def detach(self, attachment_id: str) -> None:
        self._note("detach", attachment_id)
        self.held.pop(attachment_id, None)

    def attachments(self) -> list[str]:
        return sorted(self.held)

    def refused(self, attachment_id: str | None = None) -> dict[str, Count]:
        return {held: Count(7) for held in self.held if attachment_id in (None, held)}

    def refusals(self, attachment_id: str) -> list[Refusal]:
        return [Refusal(ip_address("192.0.2.66"), 6, 443, 3)]

    def in_force(self, attachment_id: str) -> str | None:
        ruleset = self.held.get(attachment_id)
        return None if ruleset is None else ruleset.id

    def drifted(self) -> list[str]:
        return list(self.drift)

    def uninstall(self) -> None:
        self._note("uninstall")

    def close(self) -> None:
        self.closed = True


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.ahead = 1_800_000_000.0
        """Of the monotonic clock; the wall clock may be set."""

    def monotonic(self) -> float:
        return self.at

    def now(self) -> float:
        return self.at + self.ahead


def until(ruleset: Ruleset, moment: float, *names: str) -> Ruleset:
    """The ruleset with an end for the rules of these names (all, where none is given)."""
    changed = (replace(r, until=moment) if not names or r.name in names else r for r in ruleset.names)
    return replace(ruleset, names=tuple(changed))


def compiled(**document: Any) -> Ruleset:
    """The ruleset of this policy, without presets."""
    off = dict.fromkeys(presets.names(), False)
    return compile_policy(policy.parse({"presets": off, "ssh": False, **document}, source="test.json"))


@functools.cache
def rules(*domains: str, enabled: bool = True) -> Ruleset:
    """A ruleset of these names, without presets."""
    return compiled(domains=list(domains), enabled=enabled)


def attachment(identifier: str = "a1", interface: str = "lo", gateway: str = "127.0.0.1") -> Attachment:
    """By default on the loopback, which is always there to listen on."""
    network = ip_network(f"{gateway}/{'32' if '.' in gateway else '128'}")
    return Attachment(identifier, f"project/{identifier}", interface, (network,), (ip_address(gateway),))


_BEGIN = "import sys; from netpolicy.cli import main; sys.exit(main())"
_UNOWNED = """
from netpolicy.gate import daemon
from netpolicy.kernel.nftables import NftablesEnforcer
daemon.open_enforcer = lambda _backend, *, table, netns: NftablesEnforcer(table, netns, owned=False)
"""


class Daemon:
    """``netpolicy gate serve`` as a process on a lab's host. Killed with the lab.

    With `owned` false it leaves its table open to other programs, as kernels before Linux 6.9 do.
    """

    def __init__(
        self, lab: Lab, *options: str, wrap: Sequence[str] = (), name: str = "gate", owned: bool = True
    ) -> None:
        self._lab, self._options, self._wrap = lab, options, wrap
        self._begin = _BEGIN if owned else _UNOWNED + _BEGIN
        self.socket = lab.directory / f"{name}.sock"
        self.state = lab.directory / f"{name}-state"
        self.log: list[str] = []
        self.start()

    def start(self) -> None:
        """Start (again), and wait until it says that it is ready."""
        own = ["gate", "serve", "--socket", str(self.socket), "--state", str(self.state), *self._options]
        words = [*self._wrap, sys.executable, "-c", self._begin, *own]
        self.process = self._lab.host.popen(words, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode().rstrip())
            if "ready:" in self.log[-1]:
                break
        else:
            raise AssertionError("the daemon did not start:\n" + "\n".join(self.log))

    def kill(self) -> None:
        """As the kernel does it when memory runs out."""
        self._lab.host.stop(self.process)

    def client(self) -> GateClient:
        return GateClient.connect(self.socket, seconds=30)


@dataclass(frozen=True)
class Reply:
    """What dig printed."""

    status: str
    answers: tuple[str, ...]
    """Addresses and alias targets, sorted."""
    ede: str
    ttl: int | None
    flags: str


def dig(box: Node, name: str, kind: str = "A", *, server: str, tcp: bool = False, more: Sequence[str] = ()) -> Reply:
    """Ask as a workload asks. A query that nobody answers has the status ``none``."""
    words = ["dig", "+tries=1", "+time=3", "+tcp" if tcp else "+notcp", *more, f"@{server}", name, kind]
    text = box.run(words, ok=(0, 9)).text
    status = re.search(r"status: (\w+)", text)
    flags = re.search(r"flags: ([a-z ]*);", text)
    ede = re.search(r"; EDE: (.*)", text)
    rows = [
        line.split(None, 4) for line in text.splitlines() if line and not line.startswith(";") and "\tSOA\t" not in line
    ]
    return Reply(
        status=status[1] if status else "none",
        answers=tuple(sorted(row[4] for row in rows)),
        ede=ede[1] if ede else "",
        ttl=int(rows[0][1]) if rows else None,
        flags=flags[1] if flags else "",
    )
