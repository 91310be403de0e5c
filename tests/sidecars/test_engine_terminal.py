from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
import threading
import time

import pytest

from sidecars.engine import terminal
from sidecars.engine.streams import ExecStream, RawStream


def stream_on(connection: socket.socket, sizes: list[tuple[int, int]], *, tty: bool = True) -> ExecStream:
    return ExecStream(
        RawStream(connection, b""), tty=tty, resize=lambda c, r: sizes.append((c, r)), status=lambda: 7
    )  # fmt: skip


def type_when_raw(master: int, slave: int, typed: bytes) -> None:
    """Type as a person would: not before the session has begun (what is typed earlier is the line discipline's)."""
    deadline = time.monotonic() + 10
    while termios.tcgetattr(slave)[3] & termios.ICANON:
        assert time.monotonic() < deadline, "the terminal was never put into raw mode"
        select.select([], [], [], 0.005)
    os.write(master, typed)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10", b""], b"\x10", False),
    ],
)
def test_detach_keys(typed: list[bytes], passed: bytes, detached: bool) -> None:
    watch = terminal._Watch(terminal.DETACH_KEYS)
    fed = [watch.feed(part) for part in typed]
    assert b"".join(part for part, _ in fed) == passed
    assert fed[-1][1] is detached


def test_a_session_is_raw_follows_the_size_and_leaves_the_terminal_as_it_was() -> None:
    ours, theirs = socket.socketpair()
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    sizes: list[tuple[int, int]] = []
    seen: dict[str, object] = {}
    read, write = os.pipe()

    def container() -> None:
        type_when_raw(master, slave, b"ls\x03\r")
        seen["typed"] = theirs.recv(100)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)
        theirs.sendall(b"bye\r\n")
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=container)
    thread.start()
    status = terminal.join(stream_on(ours, sizes), stdin=slave, stdout=write, stderr=write)
    thread.join(10)
    assert status == 7
    # Ctrl-C is the container's to handle, and carriage return stays one.
    assert seen == {"typed": b"ls\x03\r"}
    assert sizes == [(99, 33)]
    assert os.read(read, 100) == b"bye\r\n"
    assert termios.tcgetattr(slave) == before
    for descriptor in (master, slave, read, write):
        os.close(descriptor)
    ours.close()
    theirs.close()


def test_detaching_leaves_the_process_alone() -> None:
    ours, theirs = socket.socketpair()
    master, slave = pty.openpty()
    thread = threading.Thread(target=type_when_raw, args=(master, slave, b"x\x10\x11"))
    thread.start()
    with ours, theirs:
        assert terminal.join(stream_on(ours, []), stdin=slave, stdout=1, stderr=2) is None
        assert theirs.recv(10) == b"x"
    thread.join(10)
    os.close(master)
    os.close(slave)


def test_without_a_terminal_streams_are_copied_and_kept_apart() -> None:
    ours, theirs = socket.socketpair()
    (inner, typed), (out_read, out), (err_read, err) = os.pipe(), os.pipe(), os.pipe()
    os.write(typed, b"input \x10\x11")
    os.close(typed)

    received = bytearray()

    def container() -> None:
        while part := theirs.recv(100):
            received.extend(part)
        theirs.sendall(struct.pack(">BxxxL", 1, 3) + b"out" + struct.pack(">BxxxL", 2, 3) + b"err")
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=container)
    thread.start()
    assert terminal.join(stream_on(ours, [], tty=False), stdin=inner, stdout=out, stderr=err) == 7
    thread.join(10)
    assert bytes(received) == b"input \x10\x11"
    assert (os.read(out_read, 10), os.read(err_read, 10)) == (b"out", b"err")
    for descriptor in (inner, out_read, out, err_read, err):
        os.close(descriptor)
    ours.close()
    theirs.close()


def test_size_of_what_is_no_terminal() -> None:
    read, write = os.pipe()
    assert terminal.size(read) == (80, 24)
    os.close(read)
    os.close(write)
