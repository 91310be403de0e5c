"""A command's output, bounded: what fits is answered, the beginning and the end of what does not, and all of it kept aside."""

from __future__ import annotations

import tempfile
from typing import IO

#: Characters of each stream that are answered, beginning and end.
HEAD, TAIL = 2_000, 8_000
#: Bytes of one stream kept in memory; four for each character is the most that UTF-8 takes.
_HEAD_BYTES, _TAIL_BYTES = 4 * HEAD, 4 * TAIL
#: Bytes of the whole output that are kept aside.
KEPT = 16 << 20


class Stream:
    """One of standard output and standard error."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """What came."""
        self._size += len(data)
        room = _HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail = (self._tail + data[room:])[-_TAIL_BYTES:]

    @property
    def text(self) -> str:
        """All of it, or its beginning and end with what is between counted."""
        text = self._whole()
        if text is not None:
            return text
        head = self._head.decode(errors="replace")[:HEAD]
        tail = (self._head + self._tail if self._all_there else self._tail).decode(errors="replace")[-TAIL:]
        out = self._size - len(head.encode()) - len(tail.encode())
        return f"{head}\n[... {out} bytes left out ...]\n{tail}"

    @property
    def truncated(self) -> bool:
        """Whether something is left out."""
        return self._whole() is None

    @property
    def _all_there(self) -> bool:
        return len(self._head) + len(self._tail) == self._size

    def _whole(self) -> str | None:
        if not self._all_there:
            return None
        text = (self._head + self._tail).decode(errors="replace")
        return text if len(text) <= HEAD + TAIL else None


class Capture:
    """Both streams of a command, and the whole output in the order it came in a temporary file. Use as a context manager."""

    def __init__(self) -> None:
        self.stdout, self.stderr = Stream(), Stream()
        self.kept = 0
        """Bytes in the file."""
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=1 << 20)  # noqa: SIM115  # closed by __exit__

    def feed(self, number: int, data: bytes) -> None:
        """Output as it comes: 2 is standard error."""
        (self.stderr if number == 2 else self.stdout).feed(data)
        part = data[: KEPT - self.kept]
        self._file.write(part)
        self.kept += len(part)

    @property
    def truncated(self) -> bool:
        """Whether the texts leave something out."""
        return self.stdout.truncated or self.stderr.truncated

    def whole(self) -> bytes:
        """The whole output, at most `KEPT` bytes of it."""
        self._file.seek(0)
        return self._file.read()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
