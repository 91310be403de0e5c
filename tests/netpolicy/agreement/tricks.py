"""Packets that somebody makes who wants out: each trick is a list of IP packets that carry a nonce to an address and port."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import crafting

from netpolicy.flow import Flow

_UDP, _TCP = 17, 6
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS = 0, 43, 44, 51, 60


@dataclass(frozen=True)
class Aim:
    """Where a trick tries to bring its nonce."""

    source: str
    target: str
    port: int
    number: int
    nonce: bytes

    @property
    def version(self) -> int:
        return ip_address(self.target).version

    def flow(self, protocol: int) -> Flow:
        return Flow(protocol, self.port, None, ip_address(self.target))

    def body(self, protocol: int) -> bytes:
        """The transport header and the nonce, without an IP header."""
        whole = crafting.packet(self.flow(protocol), self.source, self.number, self.nonce)
        return whole[20 if self.version == 4 else 40 :]

    def ip(self, body: bytes, protocol: int, *, fragment: int = 0, number: int = 0, options: bytes = b"") -> bytes:
        """An IP header before the body; `fragment` is the word with flags and offset (IPv4)."""
        ends = ip_address(self.source).packed + ip_address(self.target).packed
        if self.version == 6:
            return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + ends + body
        words = 5 + len(options) // 4
        total = words * 4 + len(body)
        return (
            struct.pack(">BBHHHBBH", 0x40 | words, 0, total, number, fragment, 64, protocol, 0) + ends + options + body
        )


Trick = Callable[[Aim], Iterator[bytes]]


def plain_udp(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(aim.body(_UDP), _UDP)


def in_fragments(aim: Aim) -> Iterator[bytes]:
    """The port is in the first piece, the data in the second."""
    yield from _pieces(aim, (0, 1))


def in_fragments_backwards(aim: Aim) -> Iterator[bytes]:
    yield from _pieces(aim, (1, 0))


def a_fragment_without_its_beginning(aim: Aim) -> Iterator[bytes]:
    yield from _pieces(aim, (1,))


def a_whole_packet_as_a_fragment(aim: Aim) -> Iterator[bytes]:
    """RFC 6946 calls it atomic; in IPv4, a last piece that begins at zero."""
    body = aim.body(_UDP)
    if aim.version == 4:
        yield aim.ip(body, _UDP, number=aim.number)
    else:
        yield aim.ip(struct.pack(">BBHI", _UDP, 0, 0, aim.number) + body, _FRAGMENT)


def an_acknowledgement(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(_tcp(aim, 0x10), _TCP)


def data_in_the_middle(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(_tcp(aim, 0x18), _TCP)


def an_answer_to_no_question(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(_tcp(aim, 0x12), _TCP)


def an_end_of_no_connection(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(_tcp(aim, 0x11), _TCP)


def a_reset_of_no_connection(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(_tcp(aim, 0x04), _TCP)


def no_flags_at_all(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(_tcp(aim, 0), _TCP)


def a_wrong_checksum(aim: Aim) -> Iterator[bytes]:
    body = bytearray(aim.body(_UDP))
    body[6] ^= 0x55
    yield aim.ip(bytes(body), _UDP)


def an_error_about_nothing(aim: Aim) -> Iterator[bytes]:
    """An ICMP error that quotes a packet which never was."""
    ghost = Aim(aim.target, aim.source, aim.number, aim.port, aim.nonce)
    quoted = ghost.ip(ghost.body(_UDP), _UDP)
    yield _error(aim, quoted)


def an_echo_reply(aim: Aim) -> Iterator[bytes]:
    yield _icmp(aim, 0 if aim.version == 4 else 129, crafting.MAGIC + aim.nonce)


def an_unusual_query(aim: Aim) -> Iterator[bytes]:
    """Timestamp request; node information query."""
    yield _icmp(aim, 13 if aim.version == 4 else 139, crafting.MAGIC + aim.nonce)


def a_tunnel(aim: Aim) -> Iterator[bytes]:
    """A whole packet inside another one (RFC 2003, RFC 2473)."""
    yield aim.ip(aim.ip(aim.body(_UDP), _UDP), 4 if aim.version == 4 else 41)


def loose_source_route(aim: Aim) -> Iterator[bytes]:
    """By the target, on to somewhere else (RFC 791)."""
    option = struct.pack(">BBB4sB", 131, 7, 4, ip_address("203.0.113.200").packed, 0)
    yield aim.ip(aim.body(_UDP), _UDP, options=option)


def record_route(aim: Aim) -> Iterator[bytes]:
    yield aim.ip(aim.body(_UDP), _UDP, options=struct.pack(">BBB4sB", 7, 7, 4, bytes(4), 0))


def _extension(kind: int, data: bytes) -> Trick:
    def trick(aim: Aim) -> Iterator[bytes]:
        yield aim.ip(bytes([_UDP]) + data + aim.body(_UDP), kind)

    return trick


_PADDING = bytes([0, 1, 4, 0, 0, 0, 0])
hop_by_hop_options = _extension(_HOP_BY_HOP, _PADDING)
destination_options = _extension(_OPTIONS, _PADDING)
a_routing_header = _extension(_ROUTING, bytes([0, 4, 0, 0, 0, 0, 0]))
an_authentication_header = _extension(_AUTHENTICATION, bytes([1]) + bytes(10))


def many_headers(aim: Aim) -> Iterator[bytes]:
    """Destination options, then an atomic fragment, then destination options again."""
    fragment = bytes([_OPTIONS]) + struct.pack(">BHI", 0, 0, aim.number)
    last = bytes([_UDP]) + _PADDING
    yield aim.ip(bytes([_FRAGMENT]) + _PADDING + fragment + last + aim.body(_UDP), _OPTIONS)


def options_in_fragments(aim: Aim) -> Iterator[bytes]:
    """The port is in the second piece, behind options that fill the first."""
    body = bytes([_UDP]) + bytes([1, 1, 12]) + bytes(12) + aim.body(_UDP)
    for piece, word in ((body[:16], 1), (body[16:], 16)):
        yield aim.ip(struct.pack(">BBHI", _OPTIONS, 0, word, aim.number) + piece, _FRAGMENT)


BOTH: tuple[Trick, ...] = (
    plain_udp,
    in_fragments,
    in_fragments_backwards,
    a_fragment_without_its_beginning,
    a_whole_packet_as_a_fragment,
    an_acknowledgement,
    data_in_the_middle,
    an_answer_to_no_question,
    an_end_of_no_connection,
    a_reset_of_no_connection,
    no_flags_at_all,
    a_wrong_checksum,
    an_error_about_nothing,
    an_echo_reply,
    an_unusual_query,
    a_tunnel,
)
V4: tuple[Trick, ...] = (loose_source_route, record_route)
V6_NAMED: dict[str, Trick] = {
    "hop_by_hop_options": hop_by_hop_options,
    "destination_options": destination_options,
    "a_routing_header": a_routing_header,
    "an_authentication_header": an_authentication_header,
    "many_headers": many_headers,
    "options_in_fragments": options_in_fragments,
}


def tricks(version: int) -> dict[str, Trick]:
    """All tricks of a family, by name."""
    own = {t.__name__: t for t in (*BOTH, *(V4 if version == 4 else ()))}
    return own if version == 4 else {**own, **V6_NAMED}


def _tcp(aim: Aim, flags: int) -> bytes:
    """A segment with these flags and the nonce."""
    body = bytearray(aim.body(_TCP))
    body[13], body[16:18] = flags, b"\0\0"
    ends = ip_address(aim.source).packed + ip_address(aim.target).packed
    return crafting.summed(bytes(body), 16, ends, _TCP)


def _pieces(aim: Aim, order: tuple[int, ...]) -> Iterator[bytes]:
    body = aim.body(_UDP)
    both = (_piece(aim, body[:8], 1, 0), _piece(aim, body[8:], 0, 1))
    for index in order:
        yield both[index]


def _piece(aim: Aim, data: bytes, more: int, offset: int) -> bytes:
    """One fragment; the offset is in units of eight bytes."""
    if aim.version == 4:
        return aim.ip(data, _UDP, fragment=more << 13 | offset, number=aim.number)
    return aim.ip(struct.pack(">BBHI", _UDP, 0, offset << 3 | more, aim.number) + data, _FRAGMENT)


def _icmp(aim: Aim, kind: int, data: bytes) -> bytes:
    ends = ip_address(aim.source).packed + ip_address(aim.target).packed
    v4 = aim.version == 4
    head = struct.pack(">BBHHH", kind, 0, 0, aim.number, 1)
    return aim.ip(crafting.summed(head + data, 2, b"" if v4 else ends, None if v4 else 58), 1 if v4 else 58)


def _error(aim: Aim, quoted: bytes) -> bytes:
    """Destination unreachable, port."""
    ends = ip_address(aim.source).packed + ip_address(aim.target).packed
    v4 = aim.version == 4
    head = struct.pack(">BBHI", 3 if v4 else 1, 3 if v4 else 4, 0, 0)
    return aim.ip(crafting.summed(head + quoted, 2, b"" if v4 else ends, None if v4 else 58), 1 if v4 else 58)
