"""The gate's control protocol over a process in its container, so that it works wherever the engine is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from netpolicy.gate.client import GateClient
from sidecars.engine import Engine, Pipe

#: Where the gate listens, inside its container.
SOCKET = "/run/netpolicy/gate.sock"


@contextmanager
def relayed(engine: Engine, container: str, seconds: float) -> Iterator[GateClient]:
    """A conversation with the gate in a container; `seconds` is the longest wait for one answer.

    Raises:
        UserError: ``container-missing``, ``not-running``; later ``gate-unreachable``, ``gate-gone``.
    """
    argv = ["netpolicy", "gate", "relay", "--socket", SOCKET]
    with (
        engine.containers.execs.open(container, argv) as stream,
        closing(_Transport(stream.pipe(), seconds)) as transport,
    ):
        yield GateClient(transport)


class _Transport:
    """`netpolicy.gate.client.Transport` over a process's standard input and output."""

    def __init__(self, pipe: Pipe, seconds: float) -> None:
        self._pipe = pipe
        self._pipe.settimeout(seconds)
        self._ahead = b""

    def exchange(self, line: bytes) -> bytes:
        """See `netpolicy.gate.client.Transport`."""
        self._pipe.write(line)
        parts = [self._ahead]
        while b"\n" not in parts[-1]:
            part = self._pipe.read()
            if not part:
                raise ConnectionError(self._pipe.errors or "the relay in the gate's container ended")
            parts.append(part)
        answer, end, self._ahead = b"".join(parts).partition(b"\n")
        return answer + end

    def close(self) -> None:
        """See `netpolicy.gate.client.Transport`."""
        self._pipe.close()
