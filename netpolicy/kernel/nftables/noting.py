"""Which destinations a workload was refused: a set per family that the rules themselves fill, with a counter each.

A set holds at most `LIMIT` destinations, and forgets each ten minutes after it was first refused; while it is full, newer ones
are refused without being noted. Ports are 0 for protocols without.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from netpolicy.attachment import Refusal
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables.expressions import Meta
from netpolicy.kernel.nftables.messages import SetFlag, Table, Type, concat

LIMIT: Final = 4096
SECONDS: Final = 600
#: The shared set of protocols whose packets carry a destination port.
PORTED_SET: Final = "ported"
_PACKETS: Final = 2  # NFTA_COUNTER_PACKETS


def set_of(version: int, attachment_id: str) -> str:
    """The set's name, e.g. ``d4_ab12``."""
    return f"d{version}_{attachment_id}"


def add_sets(table: Table, attachment_id: str) -> Iterator[Message]:
    """The messages that make an attachment's sets."""
    for version, kind, size in ((4, Type.IPV4, 4), (6, Type.IPV6, 16)):
        yield table.add_set(
            set_of(version, attachment_id),
            SetFlag.TIMEOUT | SetFlag.DYNAMIC,
            concat(kind, Type.PROTOCOL, Type.SERVICE),
            size + 8,
            limit=LIMIT,
            seconds=SECONDS,
        )


def rules(attachment_id: str) -> Iterator[tuple[bytes, ...]]:
    """The expressions of the rules that note a packet's destination; each of them lets the packet go on to the next."""
    for version in (4, 6):
        port = e.R + (1 if version == 4 else 4) + 1
        for ported in (True, False):
            yield (
                *e.family_is(version),
                e.meta(Meta.L4PROTO),
                e.lookup(PORTED_SET) if ported else e.lookup_missing(PORTED_SET),
                e.load_destination(version),
                e.meta(Meta.L4PROTO, port - 1),
                e.payload(2, 2, 2, port) if ported else e.load(bytes(2), port),
                e.add_to_set(set_of(version, attachment_id)),
            )


def read(version: int, elements: Iterable[Mapping[int, memoryview]]) -> Iterator[Refusal]:
    """The refusals in a listing of a set."""
    width = 4 if version == 4 else 16
    for one in elements:
        key = bytes(a.table(one[1])[1])
        if len(key) != width + 8:
            raise a.MalformedError(f"netlink: a key of {len(key)} bytes in a set of refusals")
        protocol, port = struct.unpack_from(">BxxxH", key, width)
        # A single expression, or a list of them: the kernel writes whichever the rule was given.
        counter = a.table(one[7]) if 7 in one else a.table(a.table(one[11])[1])
        yield Refusal(ip_address(key[:width]), protocol, port, a.number(a.table(counter[2])[_PACKETS]))
