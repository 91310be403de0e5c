"""Connection tracking over netlink: list entries, delete entries (linux/netfilter/nfnetlink_conntrack.h).

Hand-packed instead of pyroute2's: its parser takes about 40 times as long per entry, and a busy host has 100,000 of them
(benchmarks/apply.py measures both).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from netpolicy.flow import PORTED, Address
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import SUBSYSTEM_CONNTRACK, Message, Netlink

_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a connection."""

    source: bytes
    """The address packed, 4 or 16 bytes."""
    destination: bytes
    protocol: int
    source_port: int
    """0 for protocols without ports."""
    port: int
    """Destination port; 0 for protocols without ports."""

    @property
    def destination_address(self) -> Address:
        """The destination as an address."""
        return ip_address(self.destination)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tracked connection: as it was opened, and as its replies come (after translation)."""

    original: Tuple
    reply: Tuple
    key: bytes
    """The attributes that name it for deletion."""


def entries(link: Netlink) -> Iterator[Entry]:
    """All tracked connections of the namespace, both families.

    Raises:
        netpolicy.kernel.netlink.KernelError: the kernel refused to list.
    """
    for row in link.dump(Message(SUBSYSTEM_CONNTRACK << 8 | _GET, b"", "list connections")):
        fields = a.table(row)
        if _ORIGINAL in fields and _REPLY in fields:
            # The id keeps us from deleting a newer connection with the same ends.
            key = a.attr(_ORIGINAL | a.NESTED, bytes(fields[_ORIGINAL])) + a.attr(_ID, bytes(fields[_ID]))
            if _ZONE in fields:
                key += a.attr(_ZONE, bytes(fields[_ZONE]))
            yield Entry(_tuple(fields[_ORIGINAL]), _tuple(fields[_REPLY]), key)


def delete(link: Netlink, doomed: Iterable[Entry]) -> int:
    """Forget connections: their next packet is judged as a new one's. Those that ended meanwhile are no error.

    Returns:
        How many were asked to be deleted.
    """
    batch = list(doomed)
    for start in range(0, len(batch), 500):
        part = batch[start : start + 500]
        link.request(
            [
                Message(
                    SUBSYSTEM_CONNTRACK << 8 | _DELETE,
                    entry.key,
                    f"delete connection to {entry.original.destination_address}",
                    family=2 if len(entry.original.source) == 4 else 10,
                )
                for entry in part
            ],
            ignore=frozenset({errno.ENOENT}),
        )
    return len(batch)


def _tuple(data: memoryview) -> Tuple:
    outer = a.table(data)
    addresses = a.table(outer[1])
    protocol = a.table(outer[2])
    number = protocol[1][0]
    source, destination = (1, 2) if 1 in addresses else (3, 4)
    ported = number in PORTED
    return Tuple(
        bytes(addresses[source]),
        bytes(addresses[destination]),
        number,
        a.number(protocol[2]) if ported and 2 in protocol else 0,
        a.number(protocol[3]) if ported and 3 in protocol else 0,
    )
