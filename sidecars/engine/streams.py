"""Streams to a process in a container (``docker exec``): framed output, raw terminals, a pipe both ways.

The request is made on a socket of our own, because the SDK's raw socket loses what its reader has already buffered. Frames:
https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType

from sidecars.engine.address import Address
from sidecars.engine.errors import Refusal
from sidecars.engine.transport import connect

STDOUT = 1
STDERR = 2
_HEAD = struct.Struct(">BxxxL")
_HEAD_LIMIT = 65536
#: Seconds without progress after which a writer looks whether there is still somebody who reads.
_LOOK = 0.5


class RawStream:
    """The hijacked connection: bytes in, bytes out, half-closable. Not for several readers at once."""

    def __init__(self, connection: socket.socket, early: bytes) -> None:
        self._connection = connection
        self._early = early

    def fileno(self) -> int:
        """For select and poll; ask `pending` first, and for TLS connections only `read` is sure."""
        return self._connection.fileno()

    @property
    def pending(self) -> bool:
        """Whether bytes lie ready that select does not see."""
        inner = self._connection.pending() if isinstance(self._connection, ssl.SSLSocket) else 0
        return bool(self._early or inner)

    def read(self, size: int = 65536) -> bytes:
        """At least one byte, at most `size`; empty at the end. Raises OSError (TimeoutError past `settimeout`)."""
        if self._early:
            found, self._early = self._early[:size], self._early[size:]
            return found
        while True:
            try:
                return self._connection.recv(size)
            except ConnectionResetError:
                return b""
            except ssl.SSLWantReadError:
                # Another thread ends the input just now, and does not block meanwhile.
                readable = select.poll()
                readable.register(self._connection, select.POLLIN)
                readable.poll(_LOOK * 1000)

    def read_exactly(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        found = bytearray()
        while len(found) < size and (part := self.read(size - len(found))):
            found += part
        return bytes(found)

    def write(self, data: bytes, *, ended: Callable[[], bool] = lambda: False) -> None:
        """Send everything.

        Args:
            data: What to send.
            ended: Whether the process has ended; asked while nothing can be sent, for the engine goes on holding the connection
                (not over TLS).

        Raises:
            OSError: the process has closed its input, or has ended; TimeoutError past `settimeout`.
        """
        if isinstance(self._connection, ssl.SSLSocket):
            self._connection.sendall(data)
            return
        # Somebody else may be reading meanwhile, with the connection's one timeout: it is left as it is.
        left, patience, waited = memoryview(data), self._connection.gettimeout(), 0.0
        writable = select.poll()
        writable.register(self._connection, select.POLLOUT)
        while left:
            if writable.poll(_LOOK * 1000):
                with suppress(BlockingIOError):
                    left = left[self._connection.send(left, socket.MSG_DONTWAIT) :]
                waited = 0.0
                continue
            waited += _LOOK
            if ended():
                raise BrokenPipeError("the process has ended")
            if patience is not None and waited >= patience:
                raise TimeoutError("timed out")

    def end_input(self) -> None:
        """The process reads end-of-file; its output still arrives."""
        if not isinstance(self._connection, ssl.SSLSocket):
            self._connection.shutdown(socket.SHUT_WR)
            return
        # The engine takes TLS's close-notify alert for it. To wait for the engine's own, as `unwrap` would, is to lose the output
        # that it still sends; without blocking, `unwrap` sends ours and complains that there is nothing more to read yet.
        before = self._connection.gettimeout()
        self._connection.settimeout(0)
        with suppress(ssl.SSLError):
            self._connection = self._connection.unwrap()
        self._connection.settimeout(before)

    def settimeout(self, seconds: float | None) -> None:
        """For each following read and write."""
        self._connection.settimeout(seconds)

    def close(self) -> None:
        """Let go of the process; the engine closes its input."""
        self._connection.close()


class ExecStream:
    """A process in a container, with its streams attached. Use as a context manager."""

    def __init__(
        self,
        raw: RawStream,
        *,
        tty: bool,
        resize: Callable[[int, int], None],
        status: Callable[[], int | None],
    ) -> None:
        self.raw = raw
        self.tty = tty
        self._resize = resize
        self._status = status

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Output as it comes: (STDOUT or STDERR, bytes). With a terminal all of it is STDOUT."""
        while True:
            if self.tty:
                part = self.raw.read()
                if not part:
                    return
                yield STDOUT, part
                continue
            head = self.raw.read_exactly(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            stream, left = _HEAD.unpack(head)
            while left:
                part = self.raw.read(min(left, 65536))
                if not part:
                    return
                left -= len(part)
                yield stream, part

    def write(self, data: bytes) -> None:
        """To the process's standard input. Raises OSError as `RawStream.write`."""
        self.raw.write(data, ended=lambda: self._status() is not None)

    def end_input(self) -> None:
        """End-of-file on the process's standard input."""
        self.raw.end_input()

    def resize(self, columns: int, rows: int) -> None:
        """Tell the process's terminal its size, in characters."""
        self._resize(columns, rows)

    def status(self) -> int | None:
        """The exit status, None while the process runs."""
        return self._status()

    def pipe(self) -> Pipe:
        """The process as a pair of byte streams, for protocols that speak over its standard input and output."""
        return Pipe(self)

    def close(self) -> None:
        """Let go of the connection. The process is not killed; it reads end-of-file and may end by itself."""
        self.raw.close()

    def __enter__(self) -> ExecStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Pipe:
    """Standard input and output of a process without a terminal, as one duplex byte stream; errors are kept aside."""

    def __init__(self, stream: ExecStream) -> None:
        self._stream = stream
        self._frames = stream.frames()
        self._ready = b""
        self._errors = bytearray()

    @property
    def errors(self) -> str:
        """What the process has printed on standard error so far (the last 8 kB)."""
        return self._errors.decode(errors="replace").strip()

    def read(self, size: int = 65536) -> bytes:
        """At least one byte of standard output, at most `size`; empty at the end."""
        while not self._ready:
            stream, part = next(self._frames, (STDOUT, b""))
            if stream == STDERR:
                self._errors = (self._errors + part)[-8192:]
                continue
            if not part:
                return b""
            self._ready = part
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def write(self, data: bytes) -> None:
        """All of it, to standard input."""
        self._stream.write(data)

    def settimeout(self, seconds: float | None) -> None:
        """For each following read and write; past it they raise TimeoutError."""
        self._stream.raw.settimeout(seconds)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


def upgrade(address: Address, path: str, body: dict[str, object], seconds: float) -> RawStream:
    """POST a request whose answer turns the connection into a raw stream.

    Raises:
        Refusal: the engine answered with an error.
        OSError: nobody answers.
    """
    with ExitStack() as undo:
        connection = undo.enter_context(connect(address, seconds))
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        connection.settimeout(seconds)
        connection.sendall(head.encode() + data)
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(65536)
            if not part or len(received) > _HEAD_LIMIT:
                raise ConnectionError("the engine ended the connection instead of answering")
            received += part
        answer, _, early = received.partition(b"\r\n\r\n")
        status = int(answer.split(None, 2)[1])
        # 101 as asked; 200 is what old engines and some proxies answer, and the stream follows all the same.
        if status not in (101, 200):
            raise Refusal(status, _words(connection, answer, early))
        connection.settimeout(None)
        undo.pop_all()
        return RawStream(connection, early)


def _words(connection: socket.socket, head: bytes, body: bytes) -> str:
    length = next(
        (int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length and (part := connection.recv(65536)):
        body += part
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip() or head.decode(errors="replace").splitlines()[0]
