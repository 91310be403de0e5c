"""Read DNS messages. Raises `WireError` and nothing else, whatever the bytes."""

from __future__ import annotations

import struct

from netpolicy.dns import wire
from netpolicy.dns.wire import Query, Record, Response, WireError

_LONG = struct.Struct("!I")


def read_query(data: bytes) -> Query | None:
    """Read what a client sent; None for what must not be answered at all (too short to have a header, or a response).

    Raises:
        WireError: it is to be answered with the error's `rcode`.
    """
    if len(data) < 12:
        return None
    ident, flags, questions, answers, authority, additional = wire.HEADER.unpack_from(data)
    if flags & wire.QR:
        return None
    if flags & wire.OPCODE:
        raise WireError("only the opcode QUERY is served", wire.NOTIMP)
    if questions != 1 or answers or authority:
        raise WireError("a query carries one question and nothing else")
    end = wire.skip_name(data, 12)
    try:
        kind, cls = wire.TWO.unpack_from(data, end)
    except struct.error as error:
        raise WireError("the question ends early") from error
    payload = _read_edns(data, end + 4, additional)
    if cls != wire.IN:
        raise WireError("only the class IN is served", wire.REFUSED)
    # Length bytes are below 64 and letters above, so lower() changes letters only.
    return Query(ident, flags, data[12:end].lower(), kind, data[12 : end + 4], payload)


def read_response(data: bytes) -> Response:
    """Read what an upstream sent.

    Raises:
        WireError: it is no well-formed response to one question of class IN.
    """
    try:
        return _read_response(data)
    except (struct.error, IndexError) as error:
        raise WireError("the response ends early") from error


def _read_edns(data: bytes, at: int, additional: int) -> int | None:
    """The client's payload size from its OPT record."""
    found: int | None = None
    try:
        for _ in range(additional):
            name, at = wire.read_name(data, at)
            kind, size, extended, length = wire.RECORD.unpack_from(data, at)
            at += 10 + length
            if at > len(data):
                raise WireError("a record ends early")
            if kind != wire.OPT:
                continue
            if found is not None or name != b"\0":
                raise WireError("more than one OPT record, or one that is not the root's")
            if extended >> 16 & 0xFF:
                raise WireError("EDNS of an unknown version", wire.BADVERS)
            found = size
    except (struct.error, IndexError) as error:
        raise WireError("a record ends early") from error
    return found


def _read_response(data: bytes) -> Response:
    ident, flags, questions, answers, authority, _additional = wire.HEADER.unpack_from(data)
    if not flags & wire.QR or flags & wire.OPCODE or questions != 1:
        raise WireError("not a response to one question")
    name, at = wire.read_name(data, 12)
    kind, cls = wire.TWO.unpack_from(data, at)
    if cls != wire.IN:
        raise WireError("a response of another class")
    at += 4
    truncated = bool(flags & wire.TC)
    records: list[Record] = []
    negative: int | None = None
    # What follows in a truncated response is not needed, and may end anywhere.
    for number in range(0 if truncated else answers + authority):
        owner, at = wire.read_name(data, at)
        type_, cls, ttl, length = wire.RECORD.unpack_from(data, at)
        at += 10
        end = at + length
        if end > len(data):
            raise WireError("a record ends early")
        if cls == wire.IN:
            ttl = 0 if ttl > 0x7FFFFFFF else ttl  # RFC 2181, section 8
            if number >= answers:
                if type_ == wire.SOA and length >= 22:
                    negative = min(ttl, _LONG.unpack_from(data, end - 4)[0])
            elif type_ == wire.CNAME:
                target, after = wire.read_name(data, at)
                if after != end:
                    raise WireError("a CNAME record's name and length disagree")
                records.append(Record(owner, type_, ttl, target))
            elif (type_, length) in ((wire.A, 4), (wire.AAAA, 16)):
                records.append(Record(owner, type_, ttl, data[at:end]))
        at = end
    return Response(ident, flags & 0xF, truncated, name, kind, tuple(records), negative)
