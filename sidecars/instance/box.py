"""A running container as a `sidecars.workspace.Box`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netpolicy.errors import UserError
from sidecars.engine import STDOUT, Engine
from sidecars.workspace import Ended

#: Longest silence, in seconds, of a program that works on a repository.
_SILENCE = 1800.0


class ContainerBox:
    """Runs programs in a container as the workspace's owner.

    Args:
        engine: Where it is.
        container: Name or id; it must run.
        user: Who runs the programs.
    """

    def __init__(self, engine: Engine, container: str, user: str = "dev") -> None:
        self._engine, self._container, self._user = engine, container, user

    def run(self, argv: Sequence[str], stdin: Iterable[bytes] = ()) -> Ended:
        """See `sidecars.workspace.Box`. The input is drawn from in this thread, so it may report progress or cancel."""
        out, err = bytearray(), bytearray()
        try:
            with self._engine.containers.execs.open(self._container, argv, user=self._user) as stream:
                stream.raw.settimeout(_SILENCE)
                try:
                    for part in stdin:
                        stream.write(part)
                    stream.end_input()
                except (BrokenPipeError, ConnectionResetError):
                    # It has ended without reading all; its status says whether that was right.
                    pass
                for source, part in stream.frames():
                    (out if source == STDOUT else err).extend(part)
                status = stream.status()
        except OSError as error:
            raise UserError(
                "engine-unreachable", f"running {argv[0]} in the container {self._container}: {error}"
            ) from error
        return Ended(1 if status is None else status, bytes(out), bytes(err))
