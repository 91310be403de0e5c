"""The kernel's ipset over netlink (linux/netfilter/ipset/ip_set.h): messages that make and fill sets, and their listings.

Hand-packed: pyroute2 adds one element at a time in 0.2 ms, and opens its sockets in whatever namespace a thread is in.
Many elements go in one message, as ``ipset restore`` sends them. None of this is a transaction: fill a set nobody looks into.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from netpolicy.errors import Exit, UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import KernelError, Message, Netlink

_SUBSYSTEM, _PROTOCOL, _NET_ORDER = 6, 6, 0x4000
_NAME, _TYPE, _REVISION, _FAMILY, _FLAGS, _DATA, _ADT, _LINE = 2, 3, 4, 5, 6, 7, 8, 9
_IP, _CIDR, _PORT, _TIMEOUT, _PROTO, _CADT_FLAGS = 1, 3, 4, 6, 7, 8
_HASH_SIZE, _MAX_ELEMENTS, _ELEMENTS, _REFERENCES = 18, 19, 24, 25
_BYTES, _PACKETS, _COMMENT = 24, 25, 26
_LIST_HEADERS: Final = 4
_WITH_COUNTERS, _WITH_COMMENTS = 8, 16
#: What of one message elements may take: its list's length is a 16-bit number.
_ROOM: Final = 60_000
#: The longest lifetime the kernel takes, in seconds; 0 would be for ever.
LONGEST: Final = 2_147_483
#: Where the address begins in a packed element: behind three headers.
ADDRESS_OFFSET: Final = 12
#: The longest comment, in bytes.
COMMENT_SIZE: Final = 255


class _Op(IntEnum):
    PROTOCOL = 1
    CREATE = 2
    DESTROY = 3
    FLUSH = 4
    RENAME = 5
    SWAP = 6
    LIST = 7
    ADD = 9
    DELETE = 10


class Type(StrEnum):
    """The kinds of sets that we use."""

    IP = "hash:ip"
    IP_PORT = "hash:ip,port"
    NET = "hash:net"
    NET_PORT = "hash:net,port"


#: The revision of each that has counters and comments (Linux 3.17).
_REVISIONS: Final = {Type.IP: 3, Type.IP_PORT: 4, Type.NET: 5, Type.NET_PORT: 6}

#: What the kernel's own error numbers mean.
_WORDS: Final = {
    4097: "this kernel does not understand the message",
    4098: "this kernel does not have the type of set",
    4099: "there are too many sets",
    4100: "the set is in use",
    4103: "it exists already, or is missing",
    4104: "a prefix length is out of range",
    4107: "the set has no lifetimes",
    4108: "rules look into the set",
    4111: "the set has no counters",
    4112: "the set has no comments",
    4352: "the set is full",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the kernel says of a set."""

    elements: int
    references: int
    """How many rules look into it."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element in a listing."""

    address: bytes
    protocol: int = 0
    port: int = 0
    seconds: int = 0
    packets: int = 0
    bytes: int = 0
    comment: str = ""


def create(
    name: str,
    kind: Type,
    version: int,
    *,
    limit: int,
    seconds: int | None = None,
    comments: bool = False,
    counters: bool = False,
) -> Message:
    """Make a set.

    Args:
        name: At most 31 bytes.
        kind: Its type.
        version: 4 or 6.
        limit: The most elements it takes.
        seconds: The lifetime of elements that have none of their own (0: for ever); None: elements have no lifetimes.
        comments: Whether elements have comments.
        counters: Whether elements count the packets that matched them.
    """
    flags = _WITH_COUNTERS * counters | _WITH_COMMENTS * comments
    size = 64
    while size * 2 < limit and size < 1 << 16:
        size *= 2
    data = [_number(_HASH_SIZE, size), _number(_MAX_ELEMENTS, limit), _number(_CADT_FLAGS, flags)]
    if seconds is not None:
        data.append(_number(_TIMEOUT, seconds))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    parts = (
        a.text(_TYPE, kind),
        a.attr(_REVISION, bytes([_REVISIONS[kind]])),
        a.attr(_FAMILY, bytes([family])),
        a.nest(_DATA, *data),
    )
    return _message(_Op.CREATE, f"make set {name}", name, *parts)


def destroy(name: str) -> Message:
    """Remove a set that no rule looks into."""
    return _message(_Op.DESTROY, f"remove set {name}", name)


def flush(name: str) -> Message:
    """Empty a set."""
    return _message(_Op.FLUSH, f"empty set {name}", name)


def rename(name: str, new: str) -> Message:
    """Give a set that no rule looks into a name that no other has."""
    return _message(_Op.RENAME, f"name set {new}", name, a.text(_TYPE, new))


def swap(name: str, other: str) -> Message:
    """Exchange the content of two sets of one type, at once."""
    return _message(_Op.SWAP, f"swap set {name}", name, a.text(_TYPE, other))


def add(name: str, elements: Iterable[bytes]) -> Iterator[Message]:
    """Add elements, or give those that exist a new lifetime and comment."""
    return _bulk(_Op.ADD, f"fill set {name}", name, elements)


def delete(name: str, elements: Iterable[bytes]) -> Iterator[Message]:
    """Delete elements."""
    return _bulk(_Op.DELETE, f"delete from set {name}", name, elements)


def element(
    address: bytes,
    *,
    length: int | None = None,
    service: tuple[int, int] | None = None,
    seconds: float | None = None,
    comment: str = "",
) -> bytes:
    """One element: an address, or a network of this prefix length; with a protocol and port; with a lifetime and a comment."""
    parts = [a.nest(_IP, a.attr((1 if len(address) == 4 else 2) | _NET_ORDER, address))]
    if length is not None:
        parts.append(a.attr(_CIDR, bytes([length])))
    if service is not None:
        parts += [a.attr(_PORT | _NET_ORDER, struct.pack(">H", service[1])), a.attr(_PROTO, bytes([service[0]]))]
    if seconds is not None:
        parts.append(_number(_TIMEOUT, min(max(int(seconds), 1), LONGEST)))
    if comment:
        parts.append(a.text(_COMMENT, comment))
    return a.nest(_DATA, *parts)


@dataclass(frozen=True, slots=True)
class Sets:
    """The sets of one namespace."""

    link: Netlink

    def check(self) -> None:
        """See whether the kernel has ipset at all.

        Raises:
            UserError: ``kernel-missing``.
        """
        question = Message(_SUBSYSTEM << 8 | _Op.PROTOCOL, a.attr(1, bytes([_PROTOCOL])), "ask for ipset")
        try:
            self.link.get(question)
        except KernelError as error:
            raise UserError("kernel-missing", f"this kernel has no ipset: {error}", exit_status=Exit.MISSING) from error

    def send(self, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        """Send messages, each of which is done or refused on its own.

        Raises:
            KernelError: the first refusal whose number is not in `ignore`.
        """
        for message in messages:  # one by one: the kernel reports a refused list of elements in a way of its own
            try:
                self.link.request([message], ignore=ignore)
            except KernelError as error:
                raise self._explained(error) from error

    def headers(self) -> dict[str, Header]:
        """What is known of every set of the namespace, by name."""
        return self._headers(None)

    def some(self, names: Iterable[str]) -> dict[str, Header]:
        """The same of some sets, of those that exist."""
        found: dict[str, Header] = {}
        for name in names:
            try:
                found |= self._headers(name)
            except KernelError as error:
                if error.number != errno.ENOENT:
                    raise
        return found

    def _headers(self, name: str | None) -> dict[str, Header]:
        rows = self.link.dump(_message(_Op.LIST, "list sets", name, _number(_FLAGS, _LIST_HEADERS)))
        found: dict[str, Header] = {}
        for row in rows:
            fields = a.table(row)
            if _DATA in fields:
                data = a.table(fields[_DATA])
                known = Header(a.number(data.get(_ELEMENTS, b"")), a.number(data.get(_REFERENCES, b"")))
                found[a.string(fields[_NAME])] = known
        return found

    def elements(self, name: str) -> list[Element]:
        """The elements of a set; nothing where it does not exist."""
        found: list[Element] = []
        try:
            rows = self.link.dump(_message(_Op.LIST, f"list set {name}", name))
        except KernelError as error:
            if error.number == errno.ENOENT:
                return []
            raise self._explained(error) from error
        for row in rows:
            found += [_read(a.table(one)) for kind, one in a.walk(a.table(row).get(_ADT, b"")) if kind == _DATA]
        return found

    @staticmethod
    def _explained(error: KernelError) -> KernelError:
        words = _WORDS.get(error.number)
        return error if words is None else KernelError(error.message, error.number, error.index, words)


def _bulk(op: _Op, what: str, name: str, elements: Iterable[bytes]) -> Iterator[Message]:
    batch: list[bytes] = []
    size = 0
    for one in elements:
        if size + len(one) > _ROOM:
            yield _message(op, what, name, a.nest(_ADT, *batch), a.be32(_LINE, 0))
            batch, size = [], 0
        batch.append(one)
        size += len(one)
    if batch:
        yield _message(op, what, name, a.nest(_ADT, *batch), a.be32(_LINE, 0))


def _message(op: _Op, what: str, name: str | None, *parts: bytes) -> Message:
    head = a.attr(1, bytes([_PROTOCOL])) + (a.text(_NAME, name) if name is not None else b"")
    return Message(_SUBSYSTEM << 8 | op, head + b"".join(parts), what)


def _number(kind: int, value: int) -> bytes:
    return a.be32(kind | _NET_ORDER, value)


def _read(fields: Mapping[int, memoryview]) -> Element:
    address = a.table(fields[_IP])
    return Element(
        bytes(next(iter(address.values()))),
        a.number(fields.get(_PROTO, b"")),
        a.number(fields.get(_PORT, b"")),
        a.number(fields.get(_TIMEOUT, b"")),
        a.number(fields.get(_PACKETS, b"")),
        a.number(fields.get(_BYTES, b"")),
        a.string(fields.get(_COMMENT, b"")),
    )
