"""What makes a proof worth less than it looks: ways around the firewall, and firewalls in its way."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.gate.client import GateClient
from netpolicy.gate.protocol import State
from netpolicy.operate import docker, resolvers
from netpolicy.operate.docker import Container
from netpolicy.probe import VerificationReport
from netpolicy.probe.attempt import DNS_FAILED


def of(gate: GateClient, before: State, report: VerificationReport, network: docker.Network | None) -> tuple[str, ...]:
    """One sentence each.

    Args:
        gate: That holds the attachment.
        before: The attachment's state before the probes.
        report: What came of them.
        network: The Docker network it is.
    """
    attachment = before.attachment
    found = list(_unheard(gate, before, report))
    if network is not None:
        with contextlib.suppress(UserError):  # the engine has gone meanwhile; it was only asked for more
            boxes = docker.containers(network)
            interfaces = {state.attachment.interface for state in gate.status().attachments}
            beside = _open_networks(boxes, interfaces)
            found += _other_ways(boxes, beside)
            # Who has another way out asks over that one, and there is nothing to add to it.
            found += _elsewhere(gate, attachment, [box for box in boxes if not beside.intersection(box.networks)])
    return tuple(found)


def _unheard(gate: GateClient, before: State, report: VerificationReport) -> Iterator[str]:
    """Questions that were asked inside and never came to the gate (ufw and firewalld drop what bridges send to the host)."""
    attempts = [proof.inside for proof in (*report.blocked, *report.allowed)]
    failed = any(attempt is not None and attempt.outcome == DNS_FAILED for attempt in attempts)
    now = gate.status(before.attachment.id).attachments[0]
    if failed and _asked(now) == _asked(before):
        where, port = before.attachment.interface, now.dns.port
        if before.attachment.hook == "output":
            yield (
                "no question for a name reached the gate from inside: the namespace's loopback is down, "
                "or rules of somebody else in there drop them"
            )
            return
        yield (
            f"no question for a name reached the gate from inside: another firewall of this machine seems to drop them. "
            f"Let port {port} in there, for UDP and TCP: 'ufw allow in on {where} to any port {port}', or "
            f"'firewall-cmd --zone=trusted --add-interface={where}'"
        )


def _asked(state: State) -> int:
    dns = state.dns
    return dns.answered + dns.denied + dns.failed + dns.observed + dns.limited


def _open_networks(boxes: Sequence[Container], attached: Collection[str]) -> set[str]:
    """Networks that the containers are on as well, which lead out and which nobody has attached."""
    found = set()
    for name in {name for box in boxes for name in box.networks}:
        with contextlib.suppress(UserError):
            known = docker.network(name)
            if known.interface not in attached and not known.internal:
                found.add(name)
    return found


def _other_ways(boxes: Sequence[Container], beside: Collection[str]) -> Iterator[str]:
    for name in sorted(beside):
        names = ", ".join(box.name for box in boxes if name in box.networks)
        yield (
            f"{names}: a second way out, the Docker network {name}, is not attached: "
            f"'netpolicy attach --docker-network {name}'"
        )


def _elsewhere(gate: GateClient, attachment: Attachment, boxes: Sequence[Container]) -> Iterator[str]:
    """Containers whose names are asked outside of the firewall."""

    def seen() -> set[str]:
        # On several attached networks the question may have come by any of them.
        every = [gate.show(state.attachment.id) for state in gate.status().attachments]
        return {name for shown in every for name in (*shown.denied, *shown.observed)}

    lost = resolvers.astray(boxes, seen)
    if lost:
        yield resolvers.advice(lost, attachment)
