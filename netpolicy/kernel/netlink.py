"""A raw netfilter netlink socket: batches that are transactions, requests that are answered, dumps.

Sources: netlink(7), linux/netfilter/nfnetlink.h, net/netfilter/nfnetlink.c. The kernel works on what is sent before
`sendmsg` returns, so every answer waits in the receive buffer by then.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from netpolicy.errors import Exit, UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace

REQUEST, ACK, EXCL, CREATE, APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
DUMP = 0x300
SUBSYSTEM_CONNTRACK, SUBSYSTEM_NFTABLES = 1, 10

_NETLINK_NETFILTER, _SOL_NETLINK, _CAP_ACK, _EXT_ACK = 12, 270, 10, 11
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLMSG_ERROR, _NLMSG_DONE, _DUMP_INTERRUPTED, _TLVS, _CAPPED = 2, 3, 0x10, 0x200, 0x100
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
_SECONDS = 30
_RECEIVE = 1 << 18

#: Errors that say a facility is not in this kernel, not that our message was wrong.
_MISSING = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class Message:
    """One netfilter netlink message, without its number and sender."""

    kind: int
    """Subsystem in the upper byte, operation in the lower."""
    payload: bytes
    what: str
    """For people, when the kernel refuses it: ``add rule to out_ab12``."""
    flags: int = 0
    family: int = socket.AF_UNSPEC

    def pack(self, sequence: int, extra: int = 0) -> bytes:
        """The bytes on the wire."""
        header = _HEADER.pack(20 + len(self.payload), self.kind, REQUEST | self.flags | extra, sequence, 0)
        return header + _FAMILY.pack(self.family, 0, 0) + self.payload


class KernelError(Exception):
    """The kernel's refusal of one message; internal, becomes a `UserError` at the package's border.

    Args:
        message: What was refused.
        number: errno.
        index: Position in the batch, from 0.
        said: The kernel's own words, where it has any.
    """

    def __init__(self, message: Message, number: int, index: int, said: str = "") -> None:
        words = f" ({said})" if said else ""
        super().__init__(f"{message.what}: {os.strerror(number)}{words}")
        self.message = message
        self.number = number
        self.index = index


class Netlink:
    """A netlink socket of one namespace; usable from any thread, one request at a time."""

    def __init__(self, namespace: Namespace = None, *, made: socket.socket | None = None) -> None:
        """On a socket of the namespace, or on one that was made already."""
        try:
            self._socket = made or netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        except OSError as error:
            raise UserError(
                "kernel-missing", f"this kernel has no netfilter netlink: {error.strerror}", exit_status=Exit.MISSING
            ) from error
        self._socket.bind((0, 0))
        # Not settimeout(): Python would then wait before a read with MSG_DONTWAIT, too.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _SECONDS, 0))
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._buffers = 0
        self._reserve(1 << 20)
        self._sequence = 0
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """The socket's own number (its netlink port)."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def transaction(self, messages: Sequence[Message]) -> None:
        """Send an nf_tables batch: all of it takes effect at once, or nothing does. Returns after the commit.

        Raises:
            KernelError: the first message that was refused.
        """
        if not messages:
            return
        with self._lock:
            first = self._sequence + 1
            self._sequence += len(messages) + 2
            border = _FAMILY.pack(0, 0, SUBSYSTEM_NFTABLES)
            data = bytearray(_HEADER.pack(20, _BATCH_BEGIN, REQUEST, first, 0) + border)
            last = len(messages) - 1
            # Errors are reported without asking; one acknowledgement, for the last message, says that all is done.
            for n, message in enumerate(messages):
                data += message.pack(first + 1 + n, ACK if n == last else 0)
            data += _HEADER.pack(20, _BATCH_END, REQUEST, first + 2 + last, 0) + border
            self._send(data)
            self._outcome(messages, first)

    def request(self, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        """Send messages that are no transaction: each is done or refused on its own.

        Raises:
            KernelError: the first refusal whose errno is not in `ignore`.
        """
        if not messages:
            return
        with self._lock:
            first = self._sequence + 1
            self._sequence += len(messages)
            last = len(messages) - 1
            self._send(b"".join(m.pack(first + n, ACK if n == last else 0) for n, m in enumerate(messages)))
            self._outcome(messages, first - 1, ignore)

    def dump(self, message: Message) -> list[memoryview]:
        """The payloads (after the family header) that answer a listing; repeated where the kernel says it changed meanwhile.

        Raises:
            KernelError: the kernel refused to list.
        """
        with self._lock:
            for _attempt in range(20):
                self._sequence += 1
                self._send(message.pack(self._sequence, DUMP))
                found, whole = self._collect(message, self._sequence)
                if whole:
                    return found
        raise KernelError(message, errno.EINTR, 0, "the listing changed on each of 20 attempts")

    def stream(self, message: Message, mentioning: Sequence[bytes] = ()) -> Iterator[memoryview]:
        """Like `dump`, one by one as they are read, for listings that are large and never at rest.

        Args:
            message: The question.
            mentioning: Payloads with none of these bytes in them may be left out: it saves taking them apart.

        Raises:
            KernelError: the kernel refused to list.
        """
        with self._lock:
            self._sequence += 1
            self._send(message.pack(self._sequence, DUMP))
            for kind, flags, body in self._answers(self._sequence, mentioning):
                if kind == _NLMSG_ERROR and (code := -_signed(body)):
                    raise KernelError(message, code, 0, _words(flags, body))
                if kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                    yield body[4:]

    def get(self, message: Message) -> memoryview | None:
        """The payload that answers a question for one object, None where it does not exist.

        Raises:
            KernelError: any other refusal.
        """
        with self._lock:
            self._sequence += 1
            self._send(message.pack(self._sequence, ACK))
            try:
                found, _ = self._collect(message, self._sequence)
            except KernelError as error:
                if error.number == errno.ENOENT:
                    return None
                raise
        return found[0] if found else None

    def _send(self, data: bytes | bytearray) -> None:
        self._reserve(2 * len(data) + 4096)
        try:
            self._socket.send(data)
        except OSError as error:
            raise UserError("kernel-refused", f"netlink: cannot send {len(data)} bytes: {error.strerror}") from error

    def _reserve(self, size: int) -> None:
        """A batch is one datagram and must fit the send buffer; the answers to it must fit the receive buffer."""
        if size <= self._buffers:
            return
        for forced, plain in ((32, socket.SO_SNDBUF), (33, socket.SO_RCVBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, plain, size)
        self._buffers = size

    def _collect(self, message: Message, sequence: int) -> tuple[list[memoryview], bool]:
        found: list[memoryview] = []
        whole = True
        for kind, flags, body in self._answers(sequence):
            whole = whole and not flags & _DUMP_INTERRUPTED
            if kind == _NLMSG_ERROR and (code := -_signed(body)):
                raise KernelError(message, code, 0, _words(flags, body))
            if kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                found.append(body[4:])
        return found, whole

    def _answers(self, sequence: int, mentioning: Sequence[bytes] = ()) -> Iterator[tuple[int, int, memoryview]]:
        """The answers to one question, up to and with the one that ends them."""
        ended = False
        try:
            while not ended:
                for kind, flags, number, body in self._receive(mentioning=mentioning):
                    ended = ended or (number == sequence and kind in (_NLMSG_ERROR, _NLMSG_DONE))
                    if number == sequence:
                        yield kind, flags, body
        finally:
            while not ended:  # the reader has given up; the kernel refuses another listing before this one's end
                ended = any(n == sequence and kind in (_NLMSG_ERROR, _NLMSG_DONE) for kind, _, n, _ in self._receive())

    def _outcome(self, messages: Sequence[Message], offset: int, ignore: frozenset[int] = frozenset()) -> None:
        """Read all answers; raise the first error that is not ignored. `offset` is the number before the first message's."""
        failure: KernelError | None = None
        done = False
        while answers := self._receive(wait=False):
            for kind, flags, number, body in answers:
                index = number - offset - 1
                if kind != _NLMSG_ERROR or not -1 <= index < len(messages):
                    continue  # what is left of a listing that was given up
                code = -_signed(body)
                done = done or index == len(messages) - 1
                if code and code not in ignore and failure is None:
                    # A refused commit is reported for the batch's first header.
                    failure = KernelError(messages[max(index, 0)], code, max(index, 0), _words(flags, body))
        if failure is not None:
            raise failure
        if not done:
            raise UserError("kernel-refused", f"netlink: the kernel did not answer to '{messages[-1].what}'")

    def _receive(
        self, *, wait: bool = True, mentioning: Sequence[bytes] = ()
    ) -> list[tuple[int, int, int, memoryview]]:
        try:
            data = self._socket.recv(_RECEIVE, 0 if wait else socket.MSG_DONTWAIT)
        except OSError as error:
            if isinstance(error, BlockingIOError) and not wait:
                return []
            # ENOBUFS: answers were lost; EAGAIN: the kernel was silent for `_SECONDS`
            raise UserError("kernel-refused", f"netlink: no answer from the kernel: {error.strerror}") from error
        if mentioning and not any(one in data for one in mentioning):
            return [(row.kind, row.flags, row.number, row.body) for row in received(data, ends_only=True)]
        return [(row.kind, row.flags, row.number, row.body) for row in received(data)]


class Received(NamedTuple):
    """One message from the kernel."""

    kind: int
    flags: int
    number: int
    """Of the question it answers."""
    port: int
    """Of the socket whose request it answers or announces; 0: the kernel's own doing."""
    body: memoryview
    """With its family header, where it has one."""


def received(data: bytes | memoryview, *, ends_only: bool = False) -> list[Received]:
    """The messages in a datagram, or only those that can end a listing. A truncated rest is left out."""
    view = memoryview(data)
    found = []
    offset = 0
    while offset + 16 <= len(view):
        length, kind, flags, number, port = _HEADER.unpack_from(view, offset)
        if length < 16 or offset + length > len(view):
            break
        if not ends_only or kind in (_NLMSG_ERROR, _NLMSG_DONE):
            found.append(Received(kind, flags, number, port, view[offset + 16 : offset + length]))
        offset += (length + 3) & ~3
    return found


def refuse(error: KernelError, doing: str) -> NoReturn:
    """Turn the kernel's refusal into the error for people.

    Raises:
        UserError: ``kernel-refused`` or ``kernel-missing``; always.
    """
    missing = error.number in _MISSING
    hint = "This needs CAP_NET_ADMIN in the network namespace." if error.number in (errno.EPERM, errno.EACCES) else None
    raise UserError(
        "kernel-missing" if missing else "kernel-refused",
        f"{doing}: the kernel refused to {error}",
        hint=hint,
        exit_status=Exit.MISSING if missing else Exit.FAILED,
        details={"message": error.message.what, "index": error.index, "errno": errno.errorcode.get(error.number, "")},
    ) from error


def _signed(body: memoryview) -> int:
    return int.from_bytes(body[:4], sys.byteorder, signed=True)


def _words(flags: int, body: memoryview) -> str:
    """The text of an extended acknowledgement (linux/netlink.h, `enum nlmsgerr_attrs`)."""
    if not flags & _TLVS:
        return ""
    inner = int.from_bytes(body[4:8], sys.byteorder)
    start = 4 + (16 if flags & _CAPPED else (inner + 3) & ~3)
    found = a.table(body[start:]).get(_ERROR_TEXT)
    return a.string(found) if found is not None else ""
