"""What others change in our table, as the kernel announces it to everybody who listens (NFNLGRP_NFTABLES).

Each commit is announced by its changes, each with the number of the socket that sent it, and after them by a message that
says which process that was (`NFT_MSG_NEWGEN`). Our own commits are filtered out by the kernel before they reach us.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from netpolicy.errors import UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel import netns
from netpolicy.kernel.netlink import SUBSYSTEM_NFTABLES, KernelError, Message, Netlink, received
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables.messages import INET, Op

_NETLINK_NETFILTER, _SOL_NETLINK, _JOIN, _LEAVE, _GROUP = 12, 270, 1, 2, 7
_ATTACH_FILTER, _RECEIVE_BUFFER_FORCE = 26, 33
_BUFFER: Final = 4 << 20
_READS: Final = 10_000
#: So many changes are named; of more it is said how many.
_NAMED: Final = 20
_SAMPLE: Final = 3

#: Where the kinds of objects keep their name, and how people call them.
_OBJECTS: Final = {
    Op.NEWTABLE: (1, "the table"),
    Op.NEWCHAIN: (3, "chain"),
    Op.NEWRULE: (2, "chain"),
    Op.NEWSET: (2, "set"),
    Op.NEWSETELEM: (2, "set"),
    Op.NEWOBJ: (2, "counter"),
}
_DELETIONS: Final = {
    Op.DELTABLE: Op.NEWTABLE,
    Op.DELCHAIN: Op.NEWCHAIN,
    Op.DELRULE: Op.NEWRULE,
    Op.DELSET: Op.NEWSET,
    Op.DELSETELEM: Op.NEWSETELEM,
    Op.DELOBJ: Op.NEWOBJ,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change that another program made to our table."""

    op: Op
    """What was made or changed (`NEW...`), also where it was deleted."""
    deleted: bool
    name: str
    """Of the chain, set or counter; empty for the table."""
    detail: str
    """The elements, or the rule's number, for a person."""
    port: int
    """The netlink socket that did it."""
    who: str = ""

    @property
    def what(self) -> str:
        """The change in words, without who made it and which rules or elements it was."""
        gone = "deleted"
        kind = _OBJECTS[self.op][1]
        match self.op:
            case Op.NEWTABLE:
                return f"{kind} was {gone if self.deleted else 'made or changed'}"
            case Op.NEWRULE:
                return f"rules of chain {self.name} were {gone}" if self.deleted else f"rules were added to {self.name}"
            case Op.NEWSETELEM:
                verb = f"{gone} from" if self.deleted else "added to"
                return f"elements were {verb} set {self.name}"
            case _:
                return f"{kind} {self.name} was {gone if self.deleted else 'made or changed'}"


@dataclass
class Watch:
    """Listens for changes of one table in one namespace that come from any socket but our own.

    Raises:
        UserError: ``kernel-refused``, where the kernel does not let us listen.
    """

    table: str
    link: Netlink
    namespace: Namespace
    doubt: bool = False
    """Whether announcements were lost; only reading back tells what is there."""
    _socket: socket.socket | None = None
    _made: socket.socket | None = None

    def __post_init__(self) -> None:
        # It must be born in the namespace, which takes a thread: not when the first rules are to be written.
        self._made = netns.socket_in(self.namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)

    @property
    def listening(self) -> bool:
        """Whether it was started."""
        return self._socket is not None

    def start(self) -> None:
        """Listen from now on; again: no effect."""
        if self._socket is not None:
            return
        made = self._made or netns.socket_in(self.namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._made = None
        try:
            made.bind((0, 0))
            _ignore(made, self.link.number)
            try:
                made.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _BUFFER)
            except PermissionError:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            made.setsockopt(_SOL_NETLINK, _JOIN, _GROUP)
        except OSError as error:
            made.close()
            raise UserError("kernel-refused", f"cannot listen for changes of the rules: {error.strerror}") from error
        self._socket = made

    def close(self) -> None:
        """Stop listening."""
        for one in (self._socket, self._made):
            if one is not None:
                one.close()
        self._socket = self._made = None

    def changes(self) -> list[Change]:
        """What others changed since we were asked last, without waiting."""
        found: list[Change] = []
        for data in self._datagrams():
            for row in received(data):
                if row.kind >> 8 == SUBSYSTEM_NFTABLES and len(row.body) >= 4:
                    self._note(row.kind & 0xFF, row.body[0], row.port, row.body[4:], found)
        return found

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """While we write a lot: let the kernel not announce it, and tell by its count of commits whether others wrote as well."""
        if self._socket is None:
            yield
            return
        before = self._generation()
        self._socket.setsockopt(_SOL_NETLINK, _LEAVE, _GROUP)
        done = False
        try:
            yield
            done = True
        finally:
            self._socket.setsockopt(_SOL_NETLINK, _JOIN, _GROUP)
            if (self._generation() - before) & 0xFFFFFFFF != done:
                self.doubt = True

    def _generation(self) -> int:
        try:
            row = self.link.get(Message(SUBSYSTEM_NFTABLES << 8 | Op.GETGEN, b"", "ask for the count of commits"))
        except KernelError:
            self.doubt = True
            return 0
        return a.number(a.table(row or b"").get(1, b""))

    def _datagrams(self) -> Iterator[memoryview]:
        for _ in range(_READS if self._socket is not None else 0):
            try:
                assert self._socket is not None
                yield memoryview(self._socket.recv(1 << 17, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise UserError("kernel-refused", f"cannot read what changed: {error.strerror}") from error
                self.doubt = True

    def _note(self, number: int, family: int, port: int, body: memoryview, found: list[Change]) -> None:
        fields = a.table(body)
        if number == Op.NEWGEN:
            who = _process(fields)
            found[:] = [replace(one, who=who) if one.port == port and not one.who else one for one in found]
        elif port and family == INET and a.string(fields.get(1, b"")) == self.table:
            change = read(number, port, fields)
            if change is not None:
                found.append(change)


def read(number: int, port: int, fields: Mapping[int, memoryview]) -> Change | None:
    """An announced change; None for a kind of object that we do not have."""
    deleted = number in _DELETIONS
    op = _DELETIONS[Op(number)] if deleted else number
    if op not in _OBJECTS:
        return None
    made = Op(op)
    name = "" if made is Op.NEWTABLE else a.string(fields.get(_OBJECTS[made][0], b""))
    detail = ""
    if made is Op.NEWRULE and 3 in fields:
        detail = f"rule {a.number(fields[3])}"
    elif made is Op.NEWSETELEM:
        keys = [_key(name, a.table(one)) for _, one in a.walk(fields.get(3, b""))]
        detail = ", ".join(key for key in keys[:_SAMPLE] if key)
    return Change(made, deleted, name, detail, port)


def sentences(changes: list[Change]) -> list[str]:
    """The changes for a person, those that are alike as one."""
    gone = [one for one in changes if one.op is Op.NEWTABLE and one.deleted]
    if gone:  # with all in it, each of which was announced as well
        changes = [*gone, *changes[changes.index(gone[-1]) + 1 :]]
    alike = Counter((one.what, one.who) for one in changes)
    details: dict[tuple[str, str], list[str]] = {}
    for one in changes:
        if one.detail and len(known := details.setdefault((one.what, one.who), [])) < _SAMPLE:
            known.append(one.detail)
    found = []
    for key, times in alike.items():
        what, who = key
        which = f" ({', '.join(details[key])}{', ...' if times > _SAMPLE else ''})" if key in details else ""
        found.append(f"{what}{which}, by {who or 'a process that is not known'}")
    more = len(found) - _NAMED
    return [*found[:_NAMED], f"and {more} more changes"] if more > 0 else found


def _key(name: str, fields: Mapping[int, memoryview]) -> str:
    """An element's key: an address with the port, where it has one, or an interface's name."""
    key = bytes(a.table(fields.get(1, b"")).get(1, b""))
    width = {"4_": 4, "6_": 16}.get(name[1:3], 0)
    if not width or len(key) < width:
        return a.string(key)
    if a.number(fields.get(3, b"")) & 1:  # the end of an interval
        return ""
    address = str(ip_address(key[:width]))
    return f"{address} port {a.number(key[width + 4 : width + 6])}" if len(key) >= width + 6 else address


def _process(fields: Mapping[int, memoryview]) -> str:
    name, number = a.string(fields.get(3, b"")), a.number(fields.get(2, b""))
    return f"{name or 'a process'} (process {number})" if number else name


class _Instruction(ctypes.Structure):
    """`struct sock_filter` (linux/filter.h)."""

    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def _ignore(listener: socket.socket, port: int) -> None:
    """Let the kernel drop messages with this sender (`nlmsg_pid`, in the machine's byte order; a filter loads big-endian)."""
    load, equal, end = 0x20, 0x15, 0x06
    sender = int.from_bytes(struct.pack("=I", port), "big")
    rows = ((load, 0, 0, 12), (equal, 0, 1, sender), (end, 0, 0, 0), (end, 0, 0, 0xFFFFFFFF))
    program = (_Instruction * len(rows))(*(_Instruction(*row) for row in rows))  # the kernel copies it during the call
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, bytes(_Program(len(rows), program)))
