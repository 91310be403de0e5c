"""Networks of a policy as static, content-addressed sets.

A set's name is the hash of what is in it, so equal content is sent once, is shared by all attachments and never changes.
It is filled in transactions of their own, before any rule looks into it: elements of a set that was made in the same
transaction as the rules act a moment later than the rules, and allowed packets would be refused meanwhile. A kill can leave
it half full; so a process fills what it finds anew, in one transaction, before its first rule looks into it.

Ranges of rules that end are in sets whose elements the kernel itself forgets at that moment, also when no gate is there. The
end is part of the name, so such a set is never filled twice, which would lengthen its life.
"""

from __future__ import annotations

import hashlib
import re
import sys
from array import array
from collections.abc import Iterator
from typing import Final

from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables.messages import SetFlag, Table, Type
from netpolicy.ruleset import RangeGroup
from netpolicy.spans import Spans

#: What the name of such a set looks like.
RANGE_SET = re.compile(rb"r[46]_[0-9a-f]{20}")
_END: Final = a.be32(3, 1)  # NFTA_SET_ELEM_FLAGS: NFT_SET_ELEM_INTERVAL_END
#: A hundred years, in milliseconds: the kernel refuses lifetimes that its clock's ticks cannot count.
_LONGEST: Final = 100 * 365 * 86400 * 1000
_CHUNK: Final = 48 * 1024
_HASH = slice(0, 20)


def name_of(group: RangeGroup) -> str:
    """The set's name: ``r4_`` or ``r6_`` and 20 hexadecimal digits of the hash of its content and end."""
    digest = group.spans.digest
    if group.until is not None:
        digest = hashlib.sha256(f"{digest} until {group.until!r}".encode()).hexdigest()
    return f"r{group.version}_{digest[_HASH]}"


def is_range_set(name: str) -> bool:
    """Whether a set of our table is one of these."""
    return RANGE_SET.fullmatch(name.encode()) is not None


def make(group: RangeGroup, table: Table) -> Message:
    """The message that makes the set, empty."""
    kind, size = (Type.IPV4, 4) if group.version == 4 else (Type.IPV6, 16)
    flags = SetFlag.INTERVAL if group.until is None else SetFlag.INTERVAL | SetFlag.TIMEOUT
    return table.add_set(name_of(group), flags, kind, size)


def fill(group: RangeGroup, table: Table, moment: float) -> Iterator[Message]:
    """The messages that fill the set, which is empty, at this moment (seconds since 1970)."""
    lifetime = b""
    if group.until is not None:
        left = int((group.until - moment) * 1000)
        if left <= 0:
            return
        lifetime = a.be64(4, min(left, _LONGEST))
    name = name_of(group)
    for part in _packed(group.spans, lifetime):
        yield table.elements_message(name, part)


def _packed(spans: Spans, lifetime: bytes) -> Iterator[bytes]:
    """Elements as `messages.element` makes them, in pieces that fit a message.

    The constant words of the elements are laid out at once and the addresses put between them in strides: the same bytes one by
    one would take most of the time of an apply.
    """
    size = 4 if spans.version == 4 else 16
    opening = _words(a.nest(1, a.nest(1, a.attr(1, bytes(size))), lifetime))
    closing = _words(a.nest(1, a.nest(1, a.attr(1, bytes(size))), _END))
    stride = len(opening) + len(closing)
    final = (1 << size * 8) - 1
    step = _CHUNK // (stride * 4)
    for start in range(0, len(spans.pairs), step):
        pairs = spans.pairs[start : start + step]
        words = (opening + closing) * len(pairs)
        firsts = _addresses([first for first, _ in pairs], size)
        ends = _addresses([(last + 1) & final for _, last in pairs], size)
        for word in range(size // 4):
            words[3 + word :: stride] = firsts[word :: size // 4]
            words[len(opening) + 3 + word :: stride] = ends[word :: size // 4]
        if pairs[-1][1] == final:  # an element without an end reaches to the end of the address space
            del words[len(words) - len(closing) :]
        yield words.tobytes()


def _words(data: bytes) -> array[int]:
    return array("I", data)


def _addresses(numbers: list[int], size: int) -> array[int]:
    if size == 4:
        found = array("I", numbers)
        if sys.byteorder == "little":
            found.byteswap()
        return found
    return array("I", b"".join([number.to_bytes(16, "big") for number in numbers]))
