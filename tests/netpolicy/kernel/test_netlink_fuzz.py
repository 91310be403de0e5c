"""Whatever bytes come, the decoders end, and say what is wrong by errors of ours alone. No privileges are needed."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netpolicy.errors import UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel import conntrack
from netpolicy.kernel.netlink import KernelError, Message, Netlink, received
from netpolicy.kernel.nftables import barring, drift, learning, messages, noting
from netpolicy.kernel.nftables.messages import Op, Table
from netpolicy.kernel.nftables.reading import Reader

#: Hypothesis's own bound on one example is a deadline, too: nothing may hang.
QUICK = settings(max_examples=150, deadline=2000)
OURS = (KernelError, UserError, ValueError)


class Wire:
    """A socket on which the kernel says what it is told to, and then nothing more."""

    def __init__(self, *datagrams: bytes) -> None:
        self._datagrams = list(datagrams)

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self._datagrams:
            raise BlockingIOError(errno.EAGAIN, "nothing to read")
        return self._datagrams.pop(0)[:size]

    def bind(self, address: tuple[int, int]) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass


def link(*datagrams: bytes) -> Netlink:
    """The transport over such a socket."""
    return Netlink(made=cast(socket.socket, Wire(*datagrams)))


def answer(kind: int, payload: bytes, *, flags: int = 0, sequence: int = 1, port: int = 7) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, port) + payload


def body(*parts: bytes) -> bytes:
    return b"\1\0\0\0" + b"".join(parts)


DONE = answer(3, bytes(4))
#: What the kernel really says, to be damaged.
GOOD = (
    answer(10 << 8 | Op.NEWGEN, body(a.be32(1, 7), a.be32(2, 4711), a.text(3, "nft"))),
    answer(
        10 << 8 | Op.NEWRULE, body(a.text(1, "t"), a.text(2, "out_x"), a.be64(3, 9), a.nest(4), a.attr(7, b"\0\2x\0"))
    ),
    answer(
        10 << 8 | Op.NEWSETELEM,
        body(
            a.text(1, "t"),
            a.text(2, "n4_x"),
            a.nest(3, messages.element(bytes(12), a.be64(5, 9), a.attr(6, b"\0\1\0"))),
        ),
    ),
    answer(10 << 8 | Op.NEWCHAIN, body(a.text(1, "t"), a.text(3, "out_x"), a.nest(4, a.be32(1, 2)))),
    answer(10 << 8 | Op.NEWOBJ, body(a.text(1, "t"), a.text(2, "refused_x"), a.nest(4, a.be64(1, 1), a.be64(2, 2)))),
    answer(
        1 << 8,
        body(a.nest(1, a.nest(1, a.attr(1, bytes(4)), a.attr(2, bytes(4))), a.nest(2, a.attr(1, b"\6"))), a.nest(2)),
    ),
    answer(2, struct.pack("=i", -errno.ENOENT) + bytes(16) + a.text(1, "no such thing"), flags=0x300),
    DONE,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Good messages in any order, with some bytes changed, put in or cut out."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=5))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(("change", "length", "insert", "cut"))):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "length" if len(data) >= 2:
                struct.pack_into(
                    "=H", data, min(at & ~3, len(data) - 2), draw(st.sampled_from((0, 1, 3, 4, 5, 20, 0xFFFF)))
                )
            case "insert":
                data[at:at] = draw(st.binary(max_size=9))
            case _:
                del data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


anything = st.one_of(st.binary(max_size=300), damaged())


def survives(function: Callable[[], object]) -> None:
    with contextlib.suppress(*OURS):
        function()


@QUICK
@given(anything)
@example(b"")
@example(struct.pack("=IHHII", 16, 0, 0, 0, 0) * 3)
@example(struct.pack("=IHHII", 0xFFFFFFFF, 0, 0, 0, 0))
def test_messages_and_attributes(data: bytes) -> None:
    rows = received(data)
    assert sum(16 + len(row.body) for row in rows) <= len(data) + 3
    for row in rows:
        for kind, payload in a.walk(row.body):
            assert 0 <= kind < 0x4000
            assert len(payload) <= len(row.body)
            a.number(payload)
            a.string(payload)
        messages.comment_of(row.body)


@QUICK
@given(anything)
def test_answers_of_the_kernel(data: bytes) -> None:
    question = Message(10 << 8 | Op.GETRULE, b"", "list rules")
    survives(lambda: link(data, DONE).dump(question))
    survives(lambda: list(link(data, DONE).stream(question)))
    survives(lambda: link(data).get(question))
    survives(lambda: link(data).transaction([question, question]))
    survives(lambda: link(data).request([question]))


READINGS: dict[str, Callable[[Reader], object]] = {
    "owner": Reader.owner,
    "chains": Reader.chains,
    "sets": Reader.sets,
    "comments": lambda reader: reader.comments("out_x"),
    "ranges": Reader.ranges_in_use,
    "slots": lambda reader: reader.slots("x"),
    "learned": lambda reader: reader.learned("x", [learning.Slot(4, None), learning.Slot(6, None)]),
    "refusals": lambda reader: reader.refusals("x"),
    "dispatched": lambda reader: reader.dispatched("outbound"),
    "counters": Reader.counters,
    "digests": Reader.digests,
}


@pytest.mark.parametrize("what", READINGS)
@QUICK
@given(data=anything)
def test_readings_of_our_table(what: str, data: bytes) -> None:
    datagrams = [part for n in range(1, 12) for part in (_numbered(data, n), answer(3, bytes(4), sequence=n))]
    survives(lambda: READINGS[what](Reader(link(*datagrams), Table("t"))))


def _numbered(data: bytes, number: int) -> bytes:
    """The same bytes as an answer to the nth question, where they are one."""
    return data[:8] + struct.pack("=I", number) + data[12:] if len(data) >= 12 else data


@QUICK
@given(anything)
def test_announced_changes(data: bytes) -> None:
    for row in received(data):
        if len(row.body) >= 4:
            change = drift.read(row.kind & 0xFF, row.port, a.table(row.body[4:]))
            assert change is None or drift.sentences([change])


@QUICK
@given(anything)
def test_connections(data: bytes) -> None:
    survives(lambda: conntrack.entries(link(data, DONE), lambda entry: bool(entry.key)))
    survives(lambda: conntrack.count(link(data)))


@QUICK
@given(st.text(max_size=40))
def test_names_of_sets(name: str) -> None:
    for prefix in ("", "n4_x", "w4_x_", "w6_x_6_"):
        learning.Slot.parse(prefix + name, "x")


def test_names_of_sets_are_told_apart() -> None:
    """Control: what is to be read is read."""
    assert received(GOOD[0])[0].port == 7
    assert link(GOOD[1], DONE).dump(Message(0, b"", ""))
    assert {noting.set_of(4, "x"), barring.set_of(4, "x"), learning.Slot(4, None).name("x")} == {"d4_x", "c4_x", "n4_x"}
