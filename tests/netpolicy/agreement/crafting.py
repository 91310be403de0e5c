"""First packets of flows, made by hand, so that every protocol can be sent at once and each packet is known by its nonce."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from netpolicy.flow import Flow

#: Before the eight bytes by which a packet is known.
MAGIC = b"agreement:"
NONCE_BYTES = 8

_TCP, _UDP, _ICMPV6 = 6, 17, 58


def packet(flow: Flow, source: str, number: int, nonce: bytes) -> bytes:
    """A whole IP packet: the first of the flow, with a source port (or echo id) of its own."""
    assert flow.address is not None
    ends = ip_address(source).packed + flow.address.packed
    body = _body(flow, ends, number, MAGIC + nonce)
    if flow.address.version == 4:
        # The kernel fills in length, identification and checksum (raw(7), IP_HDRINCL).
        return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, flow.protocol, 0) + ends + body
    return struct.pack(">IHBB", 6 << 28, len(body), flow.protocol, 64) + ends + body


def nonce_in(data: bytes) -> bytes | None:
    """The nonce of one of our packets, wherever in the data it is."""
    at = data.find(MAGIC)
    return None if at < 0 else data[at + len(MAGIC) : at + len(MAGIC) + NONCE_BYTES]


def _body(flow: Flow, ends: bytes, number: int, data: bytes) -> bytes:
    port = flow.port or 0
    match flow.protocol:
        case 6:
            head = struct.pack(">HHIIBBHHH", number, port, 1, 0, 5 << 4, 0x02, 64240, 0, 0)
            return summed(head + data, 16, ends, _TCP)
        case 17:
            return summed(struct.pack(">HHHH", number, port, 8 + len(data), 0) + data, 6, ends, _UDP)
        case 136:
            # Linux's connection tracking sums the pseudo header as if it were UDP (udplite_error), and holds what real senders
            # write for damaged: forwarded UDP-Lite is lost, whatever a policy says. This is the sum that it wants.
            return summed(struct.pack(">HHHH", number, port, 0, 0) + data, 6, ends, _UDP)
        case 1:
            return summed(struct.pack(">BBHHH", 8, 0, 0, number, 1) + data, 2, b"", None)
        case 58:
            return summed(struct.pack(">BBHHH", 128, 0, 0, number, 1) + data, 2, ends, _ICMPV6)
        case 132:
            return _sctp(number, port, data)
        case _:
            return data


def summed(body: bytes, at: int, ends: bytes, protocol: int | None) -> bytes:
    """The body with the internet checksum (RFC 1071), over the pseudo header too where there is a protocol."""
    pseudo = b"" if protocol is None else ends + struct.pack(">II", len(body), protocol)
    padded = pseudo + body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return body[:at] + struct.pack(">H", total ^ 0xFFFF) + body[at + 2 :]


def _sctp(number: int, port: int, data: bytes) -> bytes:
    """An INIT chunk (RFC 9260, 3.3.2) with our data as a parameter of an unknown type that may be skipped."""
    data += b"\0" * (-len(data) % 4)
    parameter = struct.pack(">HH", 0x8FFF, 4 + len(data)) + data
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20 + len(parameter), 1, 65536, 1, 1, 1) + parameter
    head = struct.pack(">HHI", number, port, 0)
    return head + struct.pack("<I", _crc32c(head + b"\0\0\0\0" + chunk)) + chunk


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return table


_TABLE = _crc32c_table()


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF
