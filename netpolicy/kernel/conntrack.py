"""Connection tracking over netlink: list entries, delete entries (linux/netfilter/nfnetlink_conntrack.h).

Hand-packed instead of pyroute2's, whose parser takes many times as long per entry, and a busy host has 100,000 of them
(benchmarks/apply.py measures both).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from netpolicy.flow import PORTED, Address
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import SUBSYSTEM_CONNTRACK, KernelError, Message, Netlink

_GET, _DELETE, _STATISTICS = 1, 2, 5
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_LENGTH = struct.Struct("=H")


class Tuple(NamedTuple):
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


class Entry(NamedTuple):
    """A tracked connection: as it was opened, and as its replies come (after translation)."""

    original: Tuple
    reply: Tuple
    row: memoryview
    """The whole entry as the kernel told it."""

    @property
    def key(self) -> bytes:
        """The attributes that name it for deletion."""
        fields = a.table(self.row)
        key = a.attr(_ORIGINAL | a.NESTED, bytes(fields[_ORIGINAL])) + a.attr(_ID, bytes(fields[_ID]))
        return key + a.attr(_ZONE, bytes(fields[_ZONE])) if _ZONE in fields else key


def entries(link: Netlink, wanted: Callable[[Entry], bool], mentioning: Sequence[bytes] = ()) -> list[Entry]:
    """The tracked connections of the namespace, of both families, that are wanted.

    Args:
        link: A socket of the namespace.
        wanted: Says which.
        mentioning: Each that is wanted has an address that begins with one of these bytes. None: they may have any address.

    Raises:
        netpolicy.kernel.netlink.KernelError: the kernel refused to list.
    """
    rows = link.stream(Message(SUBSYSTEM_CONNTRACK << 8 | _GET, b"", "list connections"), mentioning)
    return [entry for entry in _read(rows) if wanted(entry)]


def count(link: Netlink) -> int | None:
    """How many connections the namespace tracks; None where the kernel does not tell."""
    try:
        row = link.get(Message(SUBSYSTEM_CONNTRACK << 8 | _STATISTICS, b"", "count connections"))
    except KernelError:
        return None
    found = a.table(row or b"").get(1)  # CTA_STATS_GLOBAL_ENTRIES
    return None if found is None else a.number(found)


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


def _read(rows: Iterable[memoryview]) -> Iterator[Entry]:
    for row in rows:
        original = _quick(row, 0, _ORIGINAL)
        reply = _quick(row, (_LENGTH.unpack_from(row)[0] + 3) & ~3, _REPLY) if original is not None else None
        if original is None or reply is None:
            fields = a.table(row)
            if _ORIGINAL not in fields or _REPLY not in fields:
                continue
            original, reply = _thorough(fields[_ORIGINAL]), _thorough(fields[_REPLY])
        yield Entry(original, reply, row)


# A tuple as every kernel so far has written it: the nest, in it the addresses (nest, source, destination) and the protocol
# (nest, number, and for ported ones source and destination port), each field behind its own header of four bytes.
_HEADS = struct.Struct("=2xH2xH2xH")
_BODIES = {
    1: struct.Struct(">12x4s4x4s8xB7xH6xH"),  # CTA_IP_V4_SRC
    3: struct.Struct(">12x16s4x16s8xB7xH6xH"),  # CTA_IP_V6_SRC
}


def _quick(row: memoryview, offset: int, kind: int) -> Tuple | None:
    """The tuple at its usual place in its usual form, or None: twelve times as fast as to walk the attributes."""
    if len(row) < offset + _HEADS.size:
        return None
    outer, addresses, first = _HEADS.unpack_from(row, offset)
    body = _BODIES.get(first)
    if outer & 0x3FFF != kind or addresses & 0x3FFF != 1 or body is None or len(row) < offset + body.size:
        return None
    found = Tuple(*body.unpack_from(row, offset))
    return found if found.protocol in PORTED else None


def _thorough(data: memoryview) -> Tuple:
    outer = a.table(data)
    addresses = a.table(outer[1])
    protocol = a.table(outer[2])
    number = a.number(protocol[1])
    source, destination = (1, 2) if 1 in addresses else (3, 4)
    ported = number in PORTED
    return Tuple(
        bytes(addresses[source]),
        bytes(addresses[destination]),
        number,
        a.number(protocol[2]) if ported and 2 in protocol else 0,
        a.number(protocol[3]) if ported and 3 in protocol else 0,
    )
