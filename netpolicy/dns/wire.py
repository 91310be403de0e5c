"""DNS messages as bytes: the constants, the values that are read and written, and names (RFC 1035, 2308, 6891, 8914).

Names are handled in canonical wire form: lower-cased labels, uncompressed, closed by the root label. They are compared as bytes,
so a dot inside a label is never mistaken for a separator. `reading` and `writing` do the messages.

Written by hand because the gate answers at packet rate: dnspython's full parse costs ten times as much (it is what the tests
compare with, and what `netpolicy.resolve` reads answers by).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

A, CNAME, SOA, AAAA, OPT = 1, 5, 6, 28, 41
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
#: Header bits.
QR, TC, RD, RA, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE = 0x7800

#: Bytes that we accept and send over UDP (DNS flag day 2020): never fragmented.
UDP_PAYLOAD = 1232
#: Bytes that a client without EDNS accepts over UDP.
PLAIN_PAYLOAD = 512

#: Extended DNS error codes, RFC 8914 section 4.
EDE_NOT_READY, EDE_BLOCKED, EDE_NO_REACHABLE_AUTHORITY, EDE_NETWORK_ERROR = 14, 15, 22, 23

#: Identifier, flags and four counts (RFC 1035, 4.1.1); a record's fixed part after its name (4.1.3).
HEADER = struct.Struct("!6H")
RECORD = struct.Struct("!HHIH")
TWO = struct.Struct("!HH")

_HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


class WireError(ValueError):
    """Bytes that are no DNS message we understand; `rcode` is what a query made of them deserves."""

    def __init__(self, message: str, rcode: int = FORMERR) -> None:
        super().__init__(message)
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class Query:
    """One question from a client."""

    id: int
    flags: int
    name: bytes
    """Canonical wire form."""
    type: int
    question: bytes
    """The question section as it came, to be echoed (RFC 5452: with the client's own letter case)."""
    payload: int | None
    """The UDP payload size that the client accepts; None without EDNS."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN that matters to us."""

    name: bytes
    """Canonical wire form."""
    type: int
    ttl: int
    """Seconds."""
    data: bytes
    """A, AAAA: the packed address. CNAME: the target in canonical wire form."""


@dataclass(frozen=True, slots=True)
class Response:
    """An upstream's answer, as far as it matters to us."""

    id: int
    rcode: int
    truncated: bool
    name: bytes
    """The question's name, in canonical wire form."""
    type: int
    answers: tuple[Record, ...]
    """A, AAAA and CNAME records of the answer section, in order."""
    negative_ttl: int | None
    """Seconds that a negative answer may be kept, by the zone's SOA; None without one."""


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """Why an answer is what it is (RFC 8914)."""

    code: int
    text: str


def name_to_wire(name: str) -> bytes:
    """Canonical wire form of a name. Raises WireError where it is not ASCII, or a label is empty or too long."""
    try:
        labels = name.lower().removesuffix(".").encode("ascii").split(b".") if name not in ("", ".") else []
    except UnicodeEncodeError as error:
        raise WireError(f"{name!r} is not ASCII") from error
    if any(not 0 < len(label) < 64 for label in labels):
        raise WireError(f"{name!r} has an empty label or one longer than 63 bytes")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > 255:
        raise WireError(f"{name!r} is longer than 255 bytes")
    return wire


def name_to_text(wire: bytes) -> str:
    """A canonical wire name for people, without the trailing dot; unusual bytes as ``\\DDD`` (RFC 1035, 5.1)."""
    labels, at = [], 0
    while wire[at]:
        label = wire[at + 1 : at + 1 + wire[at]]
        labels.append("".join(chr(b) if b in _HOST_BYTES else f"\\{b:03d}" for b in label))
        at += 1 + wire[at]
    return ".".join(labels) or "."


def skip_name(data: bytes, at: int) -> int:
    """The offset after an uncompressed name."""
    start = at
    while True:
        if at >= len(data):
            raise WireError("a name ends early")
        length = data[at]
        if length == 0:
            return at + 1
        if length > 63:
            raise WireError("a question's name is compressed or of an unknown form")
        at += 1 + length
        if at - start > 254:
            raise WireError("a name is longer than 255 bytes")


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name that may be compressed, in canonical form, and the offset after it. IndexError where the data end early."""
    labels: list[bytes] = []
    after, size, lowest = 0, 1, at
    while length := data[at]:
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | data[at + 1]
            after = after or at + 2
            # Only backwards, each time further: so it ends.
            if target >= lowest:
                raise WireError("a compression pointer does not point backwards")
            at = lowest = target
            continue
        if length > 63:
            raise WireError("a label of an unknown form")
        label = data[at : at + 1 + length]
        size += len(label)
        if len(label) <= length or size > 255:
            raise WireError("a name ends early or is longer than 255 bytes")
        labels.append(label)
        at += 1 + length
    return b"".join(labels).lower() + b"\0", after or at + 1
