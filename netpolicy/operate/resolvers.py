"""Whose names does the gate see? Docker's own resolver, seen from inside its containers.

Containers on a user-defined network ask 127.0.0.11, where dockerd listens. What it does not know itself it forwards: from the
container's namespace, where the gate catches the query, or from the host's, where the host's own resolver is on a loopback address
(and, in newer versions, on an IPv6 address while the container has no IPv6; moby, resolvconf.go, ``HostLoopback``). In that case names
still resolve there, but the gate knows nothing of them, so not even an allowed name is opened. Which of both happens is not read out
of files that differ between versions: a name that nobody has is asked for, and the gate is asked whether it has seen it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.operate import resolvconf
from netpolicy.operate.docker import Container

#: Answered or not, a query that reached the gate has been counted by then; seconds.
_PATIENCE = 2.0
_MOST = 32
#: Nobody has such a name (RFC 6761), and nobody else asks for it.
_SUFFIX = ".netpolicy.invalid"


@dataclass(frozen=True, slots=True)
class Astray:
    """A container whose questions for names do not come to the gate."""

    container: str
    server: str
    """What it asks."""


def astray(boxes: Sequence[Container], seen: Callable[[], set[str]]) -> list[Astray]:
    """The containers that resolve names behind the gate's back.

    Args:
        boxes: Of one attached network, which is locked no more; at most `_MOST` are looked at.
        seen: The names that the gate was asked for and does not list.
    """
    asked: list[tuple[Container, str, str]] = []
    for box in boxes[:_MOST]:
        server = _server(box.pid)
        if server is not None:
            asked.append((box, server, f"{secrets.token_hex(8)}{_SUFFIX}"))
    if not asked:
        return []
    with ThreadPoolExecutor(len(asked)) as pool:
        answered = list(pool.map(lambda row: _ask(row[0].pid, row[1], row[2]), asked))
    names = seen()
    return [
        Astray(box.name, server)
        for (box, server, name), heard in zip(asked, answered, strict=True)
        if heard and name not in names
    ]


def ours(name: str) -> bool:
    """Whether a name that the gate was asked for is one of our questions."""
    return name.endswith(_SUFFIX)


def advice(lost: Sequence[Astray], attachment: Attachment) -> str:
    """What is wrong, and what to do about it, in one text."""
    names = ", ".join(dict.fromkeys(entry.container for entry in lost))
    servers = ", ".join(dict.fromkeys(entry.server for entry in lost))
    address = next((str(gateway) for gateway in attachment.gateways), "ADDRESS")
    return (
        f"{names}: names are asked of {servers}, which asks outside of the firewall (this machine's resolver is on a loopback "
        f"address, or one that the network has no way to): allowed names resolve there, but do not open. Start the containers "
        f"with another resolver, such as this network's gateway: 'dns: [{address}]' in compose.yaml, or 'docker run --dns {address}'"
    )


def _server(pid: int) -> str | None:
    """The first resolver that the container's programs ask."""
    return next(iter(resolvconf.nameservers(pid)), None)


def _ask(pid: int, server: str, name: str) -> bool:
    """Ask in the container's namespace; says whether anything came back."""
    try:
        return netns.call(f"/proc/{pid}/ns/net", _query, server, name)
    except (UserError, OSError):
        # It has ended, or has no way to that server: then it resolves nothing, behind nobody's back.
        return False


def _query(server: str, name: str) -> bool:
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    message = secrets.token_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.settimeout(_PATIENCE)
        own.connect((server, 53))
        own.send(message)
        return own.recv(4096)[:2] == message[:2]
