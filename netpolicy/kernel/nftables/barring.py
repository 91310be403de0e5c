"""Connections of a namespace that were cut: their far ends stay out for a while.

A datagram of the far end would make the connection look like one that came in, to which answers are free. So the ends of every
connection that is cut are kept in a set for ten minutes, and what begins between them from outside is dropped. What the workload
opens again, and may open, is not touched by that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from netpolicy.kernel.conntrack import Entry
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables.expressions import Meta
from netpolicy.kernel.nftables.messages import SetFlag, Table, Type, concat, element
from netpolicy.kernel.nftables.noting import PORTED_SET

LIMIT: Final = 16384
SECONDS: Final = 600


def set_of(version: int, attachment_id: str) -> str:
    """The set's name, e.g. ``c4_ab12``."""
    return f"c{version}_{attachment_id}"


def add_sets(table: Table, attachment_id: str) -> Iterator[Message]:
    """The messages that make an attachment's sets."""
    for version, kind, size in ((4, Type.IPV4, 4), (6, Type.IPV6, 16)):
        key = concat(kind, Type.PROTOCOL, Type.SERVICE, Type.SERVICE)
        name = set_of(version, attachment_id)
        yield table.add_set(name, SetFlag.TIMEOUT, key, size + 12, limit=LIMIT, seconds=SECONDS)


def rules(attachment_id: str) -> Iterator[tuple[bytes, ...]]:
    """Conditions, one of which holds for a packet between the ends of a connection that was cut."""
    for version in (4, 6):
        next_register = e.R + (1 if version == 4 else 4)
        yield (
            *e.family_is(version),
            e.meta(Meta.L4PROTO),
            e.lookup(PORTED_SET),
            e.load_source(version),
            e.meta(Meta.L4PROTO, next_register),
            e.payload(2, 0, 2, next_register + 1),
            e.payload(2, 2, 2, next_register + 2),
            e.lookup(set_of(version, attachment_id)),
        )


def bar(table: Table, attachment_id: str, doomed: Iterable[Entry]) -> Iterator[Message]:
    """The messages that put the ends of connections into the sets, at most as many as there is room for."""
    keys: dict[int, dict[bytes, None]] = {4: {}, 6: {}}
    for entry in doomed:
        ends, version = entry.reply, 4 if len(entry.reply.source) == 4 else 6
        if ends.port and len(keys[version]) < LIMIT // 2:
            keys[version][ends.source + struct.pack(">BxxxHxxHxx", ends.protocol, ends.source_port, ends.port)] = None
    for version, found in keys.items():
        yield from table.add_elements(set_of(version, attachment_id), [element(key) for key in found])
