"""nf_tables messages: make and remove tables, chains, rules, sets, elements and counters (linux/netfilter/nf_tables.h).

All take a `Family`-wide table in the family ``inet`` (IPv4 and IPv6 in one).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import APPEND, CREATE, SUBSYSTEM_NFTABLES, Message

INET: Final = 1  # NFPROTO_INET
#: Set user data of the nft program: the key's byte order is the machine's (names would be listed as "").
_HOST_ORDER: Final = bytes([0, 4]) + struct.pack("=I", 1)
_set_numbers = itertools.count(1)


class Op(IntEnum):
    """`enum nf_tables_msg_types`."""

    NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
    NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
    NEWRULE, GETRULE, DELRULE = 6, 7, 8
    NEWSET, GETSET, DELSET = 9, 10, 11
    NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
    NEWGEN, GETGEN = 15, 16
    NEWOBJ, GETOBJ, DELOBJ = 18, 19, 20


class Hook(IntEnum):
    """`enum nf_inet_hooks`, those we use."""

    PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)


class SetFlag(IntEnum):
    """`enum nft_set_flags`, those we use."""

    INTERVAL = 0x4
    MAP = 0x8
    TIMEOUT = 0x10
    DYNAMIC = 0x20  # NFT_SET_EVAL: rules add to it


class Type(IntEnum):
    """The nft program's numbers for key types (its `enum datatypes`); the kernel only keeps them for listings."""

    VERDICT = 0xFFFFFF00
    IPV4 = 7
    IPV6 = 8
    PROTOCOL = 12
    SERVICE = 13
    IFNAME = 41


def concat(*types: Type) -> int:
    """The number of a key made of several fields: six bits each."""
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


@dataclass(frozen=True, slots=True)
class Table:
    """The one table that is ours; makes the messages about what is in it."""

    name: str

    def _message(self, op: Op, payload: bytes, what: str, flags: int = 0) -> Message:
        return Message(SUBSYSTEM_NFTABLES << 8 | op, payload, f"{what} in table {self.name}", flags, INET)

    def add(self, *, owned: bool = False) -> Message:
        """Make the table; no error where it exists.

        Args:
            owned: Nobody else may change it while our socket is open (not even ``nft flush ruleset``), and it stays afterwards
                (NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST: Linux 6.9). A table that was made without cannot become owned.
        """
        body = a.text(1, self.name) + (a.be32(2, 0x2 | 0x4) if owned else b"")
        return Message(SUBSYSTEM_NFTABLES << 8 | Op.NEWTABLE, body, f"add table {self.name}", CREATE, INET)

    def ask(self) -> Message:
        """Ask for the table itself."""
        return Message(
            SUBSYSTEM_NFTABLES << 8 | Op.GETTABLE, a.text(1, self.name), f"look up table {self.name}", 0, INET
        )

    def delete(self) -> Message:
        """Remove the table with all in it."""
        return Message(
            SUBSYSTEM_NFTABLES << 8 | Op.DELTABLE, a.text(1, self.name), f"delete table {self.name}", 0, INET
        )

    def add_base_chain(self, name: str, hook: Hook, priority: int, kind: str = "filter") -> Message:
        """A chain that packets meet at a hook; what it does not decide passes."""
        body = (
            a.text(1, self.name)
            + a.text(3, name)
            + a.nest(4, a.be32(1, hook), a.be32(2, priority))
            + a.be32(5, 1)
            + a.text(7, kind)
        )
        return self._message(Op.NEWCHAIN, body, f"add chain {name}", CREATE)

    def add_chain(self, name: str) -> Message:
        """A chain that rules go to; no error where it exists."""
        return self._message(Op.NEWCHAIN, a.text(1, self.name) + a.text(3, name), f"add chain {name}", CREATE)

    def delete_chain(self, name: str) -> Message:
        """Remove an empty chain nothing goes to."""
        return self._message(Op.DELCHAIN, a.text(1, self.name) + a.text(3, name), f"delete chain {name}")

    def flush(self, chain: str) -> Message:
        """Remove all rules of a chain."""
        return self._message(Op.DELRULE, a.text(1, self.name) + a.text(2, chain), f"flush chain {chain}")

    def add_rule(self, chain: str, *expressions: bytes | tuple[bytes, ...], comment: str = "") -> Message:
        """Append a rule; the comment (up to 253 bytes) is shown by ``nft list``."""
        parts: list[bytes] = []
        for one in expressions:
            if isinstance(one, bytes):
                parts.append(one)
            else:
                parts += one
        body = a.text(1, self.name) + a.text(2, chain) + a.nest(4, *parts)
        if comment:
            body += a.attr(7, userdata(comment))
        return self._message(Op.NEWRULE, body, f"add rule to {chain}", CREATE | APPEND)

    def add_set(
        self,
        name: str,
        flags: int,
        key: int,
        size: int,
        *,
        limit: int | None = None,
        verdicts: bool = False,
        seconds: int = 0,
    ) -> Message:
        """A set (or a map to verdicts) with keys of `size` bytes, at most `limit` elements; no error where it exists.

        Elements that rules add to it live for `seconds`.
        """
        body = a.text(1, self.name) + a.text(2, name) + a.be32(3, flags) + a.be32(4, key) + a.be32(5, size)
        if verdicts:
            body += a.be32(6, Type.VERDICT) + a.be32(7, 16)
        if limit is not None:
            body += a.nest(9, a.be32(1, limit))
        if seconds:
            body += a.be64(11, seconds * 1000)
        if key == Type.IFNAME:
            body += a.attr(13, _HOST_ORDER)
        # The number only has to be unique among the new sets of one batch; the kernel refuses a set without one.
        body += a.be32(10, next(_set_numbers) & 0xFFFFFFFF)
        return self._message(Op.NEWSET, body, f"add set {name}", CREATE)

    def delete_set(self, name: str) -> Message:
        """Remove a set no rule looks into."""
        return self._message(Op.DELSET, a.text(1, self.name) + a.text(2, name), f"delete set {name}")

    def add_elements(self, name: str, elements: Iterable[bytes]) -> list[Message]:
        """Put elements into a set, in as many messages as it takes."""
        return [self.elements_message(name, part) for part in chunks(elements)]

    def elements_message(self, name: str, packed: bytes) -> Message:
        """Put elements into a set that are packed one behind the other already, and fit one attribute."""
        body = a.text(1, self.name) + a.text(2, name) + a.nest(3, packed)
        return self._message(Op.NEWSETELEM, body, f"fill {name}", CREATE)

    def drain(self, name: str) -> Message:
        """Take all elements out of a set."""
        return self._message(Op.DELSETELEM, a.text(1, self.name) + a.text(2, name), f"drain {name}")

    def look_up(self, name: str, packed: bytes) -> Message:
        """Ask for one element of a set."""
        body = a.text(1, self.name) + a.text(2, name) + a.nest(3, packed)
        return self._message(Op.GETSETELEM, body, f"look into {name}")

    def delete_elements(self, name: str, elements: Iterable[bytes]) -> list[Message]:
        """Take elements out of a set; they must be in it."""
        return [
            self._message(Op.DELSETELEM, a.text(1, self.name) + a.text(2, name) + a.nest(3, part), f"drain {name}")
            for part in chunks(elements)
        ]

    def add_counter(self, name: str) -> Message:
        """A named counter; one that exists goes on counting."""
        body = a.text(1, self.name) + a.text(2, name) + a.be32(3, 1) + a.nest(4, a.be64(1, 0), a.be64(2, 0))
        return self._message(Op.NEWOBJ, body, f"add counter {name}", CREATE)

    def delete_counter(self, name: str) -> Message:
        """Remove a counter no rule counts in."""
        body = a.text(1, self.name) + a.text(2, name) + a.be32(3, 1)
        return self._message(Op.DELOBJ, body, f"delete counter {name}")

    def question(self, op: Op, what: str, *, name: str = "", set_name: str = "") -> Message:
        """Ask for objects of the table: chains, rules (`name`: of one chain), sets, elements (`set_name`), counters."""
        body = a.text(1, self.name)
        if op is Op.GETCHAIN and name:
            body += a.text(3, name)
        elif name or set_name:
            body += a.text(2, name or set_name)
        if op is Op.GETOBJ:
            body += a.be32(3, 1)
        return self._message(op, body, what)


def element(key: bytes, *parts: bytes) -> bytes:
    """One element of a set, by its key."""
    return a.nest(1, a.nest(1, a.attr(1, key)), *parts)


def userdata(comment: str) -> bytes:
    """A comment as the nft program keeps it with rules and elements (libnftnl udata: type, length, bytes)."""
    words = comment.encode()[:252] + b"\0"
    return bytes([0, len(words)]) + words


def comment_of(data: bytes | memoryview | None) -> str:
    """The comment in user data, empty where there is none."""
    raw = bytes(data or b"")
    if len(raw) < 2 or raw[0] != 0:
        return ""
    return a.string(raw[2 : 2 + raw[1]])


def chunks(elements: Iterable[bytes], limit: int = 48 * 1024) -> Iterator[bytes]:
    """Elements joined to pieces that fit one attribute."""
    part: list[bytes] = []
    size = 0
    for one in elements:
        part.append(one)
        size += len(one)
        if size >= limit:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)
