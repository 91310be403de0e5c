"""Raw streams against a server that says exactly what an engine could say, byte by byte."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecars.engine.address import Address
from sidecars.engine.errors import Refusal
from sidecars.engine.streams import STDERR, STDOUT, ExecStream, RawStream, upgrade

HEAD = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n\r\n"


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


@contextmanager
def served(tmp_path: Path, script: Callable[[socket.socket], None]) -> Iterator[Address]:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(10)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(10)
                request = b""
                while b"}" not in request:
                    request += connection.recv(4096)
                script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Address(f"unix://{path}", "test")
        thread.join(10)
        assert not thread.is_alive()


def opened(address: Address, *, tty: bool = False) -> ExecStream:
    raw = upgrade(address, "/v1.41/exec/x/start", {"Tty": tty}, 10)
    return ExecStream(raw, tty=tty, resize=lambda _columns, _rows: None, status=lambda: 0)


def test_bytes_that_come_with_the_head_are_not_lost(tmp_path: Path) -> None:
    with served(tmp_path, lambda c: c.sendall(HEAD + frame(1, b"early"))) as address, opened(address) as stream:
        assert list(stream.frames()) == [(STDOUT, b"early")]


def test_a_head_and_a_frame_may_come_in_pieces(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        for byte in HEAD + frame(1, b"ab") + frame(2, b"c"):
            connection.sendall(bytes([byte]))

    with served(tmp_path, script) as address, opened(address) as stream:
        found = list(stream.frames())
    assert b"".join(data for kind, data in found if kind == STDOUT) == b"ab"
    assert b"".join(data for kind, data in found if kind == STDERR) == b"c"


def test_a_stream_cut_in_the_middle_of_a_frame_ends(tmp_path: Path) -> None:
    with served(tmp_path, lambda c: c.sendall(HEAD + frame(1, b"whole")[:-2])) as address, opened(address) as stream:
        assert list(stream.frames()) == [(STDOUT, b"who")]


def test_a_terminal_has_no_frames(tmp_path: Path) -> None:
    with served(tmp_path, lambda c: c.sendall(HEAD + b"\x01raw")) as address, opened(address, tty=True) as stream:
        assert b"".join(data for _, data in stream.frames()) == b"\x01raw"


def test_half_close_lets_the_answer_through(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        received = b""
        while part := connection.recv(4096):
            received += part
        connection.sendall(frame(1, received.upper()))

    with served(tmp_path, script) as address, opened(address) as stream:
        stream.write(b"abc")
        stream.end_input()
        assert list(stream.frames()) == [(STDOUT, b"ABC")]


def test_a_pipe_keeps_errors_aside_and_gives_small_reads(tmp_path: Path) -> None:
    sent = HEAD + frame(2, b"careful\n") + frame(1, b"hello") + frame(1, b"!")
    with served(tmp_path, lambda c: c.sendall(sent)) as address, opened(address) as stream:
        pipe = stream.pipe()
        assert [pipe.read(2), pipe.read(2), pipe.read(), pipe.read(), pipe.read()] == [b"he", b"ll", b"o", b"!", b""]
        assert pipe.errors == "careful"


def test_reading_past_the_time_given_raises(tmp_path: Path) -> None:
    waiting = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        waiting.wait(10)

    with served(tmp_path, script) as address, opened(address) as stream:
        pipe = stream.pipe()
        pipe.settimeout(0.05)
        with pytest.raises(TimeoutError):
            pipe.read()
        waiting.set()


@pytest.mark.parametrize("body", [b'{"message":"No such exec instance: x"}', b"No such exec instance: x"])
def test_a_refusal_carries_the_engines_words(tmp_path: Path, body: bytes) -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        served(tmp_path, lambda c: c.sendall(head + body)) as address,
        pytest.raises(Refusal, match="No such exec instance: x") as caught,
    ):
        opened(address)
    assert caught.value.http_status == 404


def test_an_engine_that_hangs_up_is_an_error_of_the_system(tmp_path: Path) -> None:
    with served(tmp_path, lambda _connection: None) as address, pytest.raises(ConnectionError):
        opened(address)


def test_pending_counts_what_select_does_not_see() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        raw = RawStream(ours, b"ab")
        assert raw.pending
        assert raw.read(1) + raw.read(1) == b"ab"
        assert not raw.pending
