"""Where a ruleset is enforced: an `Attachment`, and the interface every enforcer offers.

An attachment is one interface of the namespace in which the gate runs (a Docker bridge, or the router's end of a veth pair)
behind which the workload stands. Attaching at the output hook inside a namespace is the second kind that the architecture
names; its place is a second dataclass beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from netpolicy.flow import Address
from netpolicy.ruleset import Learned, Network, Ruleset


@dataclass(frozen=True, slots=True)
class Attachment:
    """One firewalled interface."""

    id: str
    """Lower-case letters and digits, at most 16, unique in the gate; names the kernel's chains and sets."""
    name: str
    """For people, e.g. ``myproject/mercury``."""
    interface: str
    """Interface name, at most 15 bytes, in the gate's namespace. It need not exist yet."""
    networks: tuple[Network, ...]
    """The workload's own subnets: source NAT for what leaves, and free traffic among themselves."""
    gateways: tuple[Address, ...]
    """The gate's own addresses on the interface, at most one per family; the DNS gate listens there."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form used by the control protocol and the gate's state file."""
        return {
            "id": self.id,
            "name": self.name,
            "interface": self.interface,
            "networks": [str(n) for n in self.networks],
            "gateways": [str(a) for a in self.gateways],
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
        )


class Enforcer(Protocol):
    """What an enforcement backend offers. Every call returns only after the kernel has acknowledged.

    A failure or a kill leaves the old state or the new one and never opens anything. Failures raise
    `netpolicy.errors.UserError` with code ``kernel-refused`` (or ``kernel-missing`` where a facility is absent);
    docs/enforcement.md lists the others.
    """

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

    def uninstall(self) -> None:
        """Remove our table and nothing else."""

    def close(self) -> None:
        """Release the sockets; the kernel's state stays."""
