"""Write DNS messages."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from netpolicy.dns import wire
from netpolicy.dns.wire import ExtendedError, Query, Record

_EDE_OPTION = 15
#: Bytes of explanation at most, so that a reply with it stays one small datagram.
_EDE_TEXT = 240


def write_query(ident: int, name: bytes, kind: int, *, edns: bool = True) -> bytes:
    """A recursive question for an upstream; nothing of the client's query but name and type crosses."""
    head = wire.HEADER.pack(ident, wire.RD, 1, 0, 0, int(edns))
    return head + name + wire.TWO.pack(kind, wire.IN) + (_opt(wire.UDP_PAYLOAD, b"") if edns else b"")


def write_reply(
    query: Query,
    rcode: int,
    *,
    answers: Sequence[Record] = (),
    negative_ttl: int | None = None,
    error: ExtendedError | None = None,
    limit: int = 65535,
) -> bytes:
    """The reply to a query.

    Args:
        query: What is answered.
        rcode: Response code.
        answers: Records of the answer section.
        negative_ttl: Add an SOA record so that the client keeps the negative answer for so many seconds.
        error: Why; sent to clients that speak EDNS.
        limit: Bytes the client takes. A longer reply is cut down to its header and question, with TC set.
    """
    flags = wire.QR | wire.RA | (query.flags & (wire.RD | wire.CD)) | (rcode & 0xF)
    offsets = {query.name: 12}
    body = bytearray(query.question)
    for record in answers:
        name = record.data if record.type == wire.CNAME else None
        _append(body, record.name, record.type, record.ttl, record.data, offsets, points_to=name)
    authority = b"" if negative_ttl is None else _soa(query, rcode, negative_ttl)
    plain = b"" if query.payload is None else _opt(wire.UDP_PAYLOAD, b"", rcode >> 4)
    full = plain if not plain or error is None else _opt(wire.UDP_PAYLOAD, _ede(error), rcode >> 4)
    head = wire.HEADER.pack(query.id, flags, 1, len(answers), bool(authority), bool(plain))
    # The reason goes first where there is no room for it, then the records.
    for additional in (full, plain):
        if len(head) + len(body) + len(authority) + len(additional) <= limit:
            return b"".join((head, body, authority, additional))
    return wire.HEADER.pack(query.id, flags | wire.TC, 1, 0, 0, bool(plain)) + query.question + plain


def write_error(data: bytes, rcode: int) -> bytes:
    """The reply to a query that could not be read: its header alone, with an error."""
    ident, flags = wire.TWO.unpack_from(data)
    extended = rcode >> 4
    head = wire.HEADER.pack(
        ident, wire.QR | wire.RA | (flags & (wire.OPCODE | wire.RD)) | (rcode & 0xF), 0, 0, 0, bool(extended)
    )
    return head + (_opt(wire.UDP_PAYLOAD, b"", extended) if extended else b"")


def truncate(reply: bytes, limit: int) -> bytes:
    """A whole reply, or where it is longer than `limit` its header and question with TC set."""
    if len(reply) <= limit:
        return reply
    end = wire.skip_name(reply, 12) + 4
    ident, flags = wire.TWO.unpack_from(reply)
    return wire.HEADER.pack(ident, flags | wire.TC, 1, 0, 0, 0) + reply[12:end]


def _append(
    body: bytearray,
    owner: bytes,
    kind: int,
    ttl: int,
    data: bytes,
    offsets: dict[bytes, int],
    *,
    points_to: bytes | None,
) -> None:
    """One record; owners that were written before become pointers (offsets count from the header)."""
    at = 12 + len(body)
    if owner in offsets:
        body += struct.pack("!H", 0xC000 | offsets[owner])
    else:
        if at < 0x4000:
            offsets[owner] = at
        body += owner
    body += wire.RECORD.pack(kind, wire.IN, ttl, len(data))
    if points_to is not None and points_to not in offsets and 12 + len(body) < 0x4000:
        offsets[points_to] = 12 + len(body)
    body += data


def _soa(query: Query, rcode: int, ttl: int) -> bytes:
    """An SOA record that exists only to carry a negative TTL: of the name's parent for NXDOMAIN, of the name for no data."""
    first = query.name[0]
    owner = 12 + (1 + first if rcode == wire.NXDOMAIN and first else 0)
    # Primary and mailbox are the root: the record names nobody.
    data = b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, ttl)
    return struct.pack("!H", 0xC000 | owner) + wire.RECORD.pack(wire.SOA, wire.IN, ttl, len(data)) + data


def _ede(error: ExtendedError) -> bytes:
    text = error.text.encode()[:_EDE_TEXT].decode(errors="ignore").encode()
    return wire.TWO.pack(_EDE_OPTION, 2 + len(text)) + struct.pack("!H", error.code) + text


def _opt(payload: int, options: bytes, extended_rcode: int = 0) -> bytes:
    return b"\0" + wire.RECORD.pack(wire.OPT, payload, extended_rcode << 24, len(options)) + options
