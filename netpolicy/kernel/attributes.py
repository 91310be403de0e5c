"""Netlink attributes: pack and unpack type-length-value records (netlink(7); linux/netlink.h, `struct nlattr`).

Lengths and types are in the machine's byte order; netfilter's numbers inside are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache


class MalformedError(ValueError):
    """What came is not what the kernel writes."""


class Fields(dict[int, memoryview]):
    """Attributes by type. One that is missing raises `MalformedError`; ``get`` asks without."""

    def __missing__(self, kind: int) -> memoryview:
        raise MalformedError(f"netlink: an attribute of type {kind} is missing")


NESTED = 0x8000
#: What an attribute can carry: its 16-bit length counts its own four header bytes.
MAX_PAYLOAD = 0xFFFF - 4

_HEADER = struct.Struct("=HH")
_BE32 = struct.Struct(">I")
_BE64 = struct.Struct(">Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes. The payload holds at most `MAX_PAYLOAD` bytes."""
    length = 4 + len(payload)
    return _HEADER.pack(length, kind) + payload + _PADDING[length & 3]


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute whose payload is attributes."""
    return attr(kind | NESTED, b"".join(parts))


def be32(kind: int, value: int) -> bytes:
    """A 32-bit big-endian number; negative ones as two's complement (verdict codes)."""
    return attr(kind, _BE32.pack(value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    """A 64-bit big-endian number."""
    return attr(kind, _BE64.pack(value))


@lru_cache(maxsize=1024)
def text(kind: int, value: str) -> bytes:
    """A string that ends with a zero byte."""
    return attr(kind, value.encode() + b"\0")


def walk(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in `data`: (type without flag bits, payload). A truncated rest ends the walk."""
    view = memoryview(data)
    offset, end = 0, len(view)
    while offset + 4 <= end:
        length, kind = _HEADER.unpack_from(view, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & 0x3FFF, view[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def table(data: bytes | memoryview) -> Fields:
    """The attributes in `data` by type; of repeated ones the last."""
    return Fields(walk(data))


def number(payload: bytes | memoryview) -> int:
    """A big-endian number of any width."""
    return int.from_bytes(payload, "big")


def string(payload: bytes | memoryview) -> str:
    """A string without its closing zero byte."""
    return bytes(payload).split(b"\0", 1)[0].decode(errors="replace")
