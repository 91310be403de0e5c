"""Where a ruleset is enforced: an `Attachment`, and the interface every enforcer offers.

An attachment has one of two hooks. ``forward``: an interface of the namespace in which the rules stand (a Docker bridge, or
the router's end of a veth pair), with the workload behind it. ``output``: the namespace itself, whose own processes are the
workload; whoever is root there can take the rules away again, so it is for workloads that are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal, Protocol

from netpolicy.flow import Address
from netpolicy.ruleset import Learned, Network, Ruleset

Hook = Literal["forward", "output"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """One firewalled interface."""

    id: str
    """Lower-case letters and digits, at most 16, unique in the gate; names the kernel's chains and sets."""
    name: str
    """For people, e.g. ``myproject/mercury``."""
    interface: str
    """Interface name, at most 15 bytes, in the gate's namespace. It need not exist yet. Empty at the output hook."""
    networks: tuple[Network, ...]
    """The workload's own subnets: source NAT for what leaves, and free traffic among themselves.

    At the output hook: networks to which traffic is free (none, as a rule); there is no source NAT.
    """
    gateways: tuple[Address, ...]
    """The gate's own addresses on the interface, at most one per family; the DNS gate listens there.

    At the output hook the DNS gate listens on the loopback addresses, and these are the addresses that count as the host.
    """
    hook: Hook = "forward"
    published: bool = False
    """At an interface: connections that the host has translated to the workload (published ports) come in; else none does."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form used by the control protocol and the gate's state file."""
        return {
            "id": self.id,
            "name": self.name,
            "interface": self.interface,
            "networks": [str(n) for n in self.networks],
            "gateways": [str(a) for a in self.gateways],
            "hook": self.hook,
            "published": self.published,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Attachment:
        """Read what `to_json` wrote. Raises ValueError or KeyError on a malformed document."""
        return cls(
            id=str(document["id"]),
            name=str(document["name"]),
            interface=str(document["interface"]),
            networks=tuple(ip_network(n) for n in document["networks"]),
            gateways=tuple(ip_address(a) for a in document["gateways"]),
            hook=_hook(document.get("hook", "forward")),
            published=bool(document.get("published", False)),
        )


def _hook(text: Any) -> Hook:
    if text == "forward":
        return "forward"
    if text == "output":
        return "output"
    raise ValueError(f"{text!r} is no hook: neither 'forward' nor 'output'")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One destination that a workload was refused (or, with a policy that is only observed, would have been)."""

    address: Address
    protocol: int
    port: int
    """0 for protocols without ports."""
    packets: int


class Packets(Protocol):
    """A kernel counter."""

    @property
    def packets(self) -> int:
        """How many so far."""


class Enforcer(Protocol):
    """What an enforcement backend offers. Every call returns only after the kernel has acknowledged.

    A failure or a kill leaves the old state or the new one and never opens anything. Failures raise
    `netpolicy.errors.UserError` with code ``kernel-refused`` (or ``kernel-missing`` where a facility is absent);
    docs/enforcement.md lists the others.
    """

    @property
    def backend(self) -> str:
        """What it is called in settings and listings: ``nftables`` or ``ipset``."""

    def install(self, prefix: str | None) -> None:
        """Create what all attachments share; refuse everything from interfaces whose name begins with `prefix`. Repeatable."""

    def attach(self, attachment: Attachment, dns_port: int | None) -> None:
        """Lock the interface: everything from it is refused (not even DNS). Connections it already has are cut."""

    def apply(self, attachment: Attachment, ruleset: Ruleset, dns_port: int | None) -> None:
        """Put `ruleset` in force in place; keeps learned addresses the ruleset still allows, cuts withdrawn flows.

        DNS queries of the workload, whatever server they name, are redirected to `dns_port` on the gate's address. It needs
        no `attach` before it, so a gate that starts again interrupts nobody.
        """

    def learn(self, attachment_id: str, learned: Sequence[Learned]) -> None:
        """Insert or refresh learned addresses; acknowledged by the kernel on return.

        What the ruleset in force does not allow is left out: an answer that comes after its name was withdrawn opens nothing.
        """

    def learned(self, attachment_id: str) -> list[tuple[Address, int, int, int, float]]:
        """The learned elements in force: (address, protocol, first port, last port, seconds left)."""

    def detach(self, attachment_id: str) -> None:
        """Remove the attachment's rules. An interface with the locked prefix falls back to refusing everything."""

    def attachments(self) -> list[str]:
        """The ids the kernel holds rules for."""

    def refused(self, attachment_id: str | None = None) -> Mapping[str, Packets]:
        """What each attachment's workload (or the one's) was refused since it was attached, by attachment id."""

    def refusals(self, attachment_id: str) -> list[Refusal]:
        """The destinations it was refused lately, the most packets first; bounded by the kernel, the oldest forgotten."""

    def in_force(self, attachment_id: str) -> str | None:
        """The id of the ruleset whose rules the kernel holds; None where it is locked or not attached."""

    def drifted(self) -> list[str]:
        """What another program changed in our rules since we wrote them last, a sentence each; empty where nothing.

        Cheap enough to be asked twice a second. `install` and then `attach` or `apply` of each attachment put it right.
        """

    def uninstall(self) -> None:
        """Remove our table and nothing else."""

    def close(self) -> None:
        """Release the sockets; the kernel's state stays."""
