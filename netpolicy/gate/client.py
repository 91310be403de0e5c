"""The other end of the gate's control protocol: synchronous, typed, over a unix socket or any pair of byte streams."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Flow, Verdict
from netpolicy.gate import forms, protocol
from netpolicy.gate.forms import Json
from netpolicy.gate.protocol import FORMAT, Hello, Shown, State, Status
from netpolicy.ruleset import Ruleset

T = TypeVar("T")


class Reader(Protocol):
    """A blocking stream of bytes from the gate, e.g. a file object or a wrapped ``docker exec`` socket."""

    def readline(self) -> bytes:
        """The next line with its line break; empty at the end of the stream."""


class Writer(Protocol):
    """A blocking stream of bytes to the gate."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""

    def flush(self) -> object:
        """Send what was written."""


class Transport(Protocol):
    """One request line in, one response line out."""

    def exchange(self, line: bytes) -> bytes:
        """Send a request, return its response. Raises OSError when the gate has gone; b"" at the end of the stream."""

    def close(self) -> None:
        """Hang up."""


class StreamTransport:
    """Over a pair of byte streams; closing them is their owner's business."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader, self._writer = reader, writer

    def exchange(self, line: bytes) -> bytes:
        """See `Transport`."""
        self._writer.write(line)
        self._writer.flush()
        return self._reader.readline()

    def close(self) -> None:
        """Nothing: the streams are not ours."""


class UnixTransport:
    """Over the gate's unix socket.

    Args:
        path: Where the gate listens.
        seconds: How long to wait for one response.

    Raises:
        UserError: ``gate-unreachable``: nobody listens there, or we may not connect.
    """

    def __init__(self, path: Path, *, seconds: float = 120.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise unreachable(str(path), error) from error
        self._stream = self._socket.makefile("rwb")

    def exchange(self, line: bytes) -> bytes:
        """See `Transport`."""
        self._stream.write(line)
        self._stream.flush()
        return self._stream.readline()

    def close(self) -> None:
        """See `Transport`."""
        with suppress(OSError):
            self._stream.close()
        self._socket.close()


class GateClient:
    """A conversation with a gate. Not for several threads at once.

    Every method raises `UserError`: what the gate answered, ``gate-gone`` when it hung up, ``gate-protocol`` when its answers are
    not understood.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    def connect(cls, path: Path, *, seconds: float = 120.0) -> Self:
        """Connect to the socket of ``netpolicy gate serve`` and check that it speaks our version of the protocol."""
        client = cls(UnixTransport(path, seconds=seconds))
        try:
            client.handshake()
        except UserError:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the gate goes on."""
        self._transport.close()

    def call(self, op: str, args: Json | None = None) -> Any:
        """One operation, untyped: its result as JSON."""
        try:
            line = self._transport.exchange(protocol.encode_request(op, args or {}))
        except OSError as error:
            raise UserError("gate-gone", f"the gate did not answer {op!r}: {error}") from error
        if not line:
            raise UserError("gate-gone", f"the gate hung up before it answered {op!r}")
        return protocol.decode_response(line)

    def hello(self) -> Hello:
        """Who answers."""
        return _understood(Hello.from_json, self.call("hello"))

    def handshake(self) -> Hello:
        """`hello`, refusing a gate that speaks another version of the protocol (``gate-version``)."""
        hello = self.hello()
        if hello.format != FORMAT:
            raise UserError(
                "gate-version",
                f"the gate (version {hello.version}) speaks protocol {hello.format}, this program speaks {FORMAT}",
                hint="Restart the gate with the version installed here.",
                exit_status=Exit.CONFLICT,
            )
        return hello

    def attach(self, attachment: Attachment) -> State:
        """Lock an interface: from now on nothing passes until a ruleset is applied."""
        return _understood(State.from_json, self.call("attach", {"attachment": attachment.to_json()}))

    def apply(
        self,
        attachment_id: str,
        ruleset: Ruleset,
        *,
        upstreams: Sequence[str] | None = None,
        resolve_seconds: float = 3.0,
        confirm_seconds: float | None = None,
    ) -> State:
        """Put a ruleset in force.

        Args:
            attachment_id: A locked or enforced attachment.
            ruleset: What its workload may reach.
            upstreams: Resolvers to ask for this workload, ``address`` or ``address:port``; None for the gate's own.
            resolve_seconds: How long to wait for the names to resolve first; what does not is listed as unresolved.
            confirm_seconds: Unless `confirm` comes within so many seconds, the gate goes back to what was in force before.
        """
        args: Json = {"id": attachment_id, "ruleset": ruleset.to_json(), "resolve_seconds": resolve_seconds}
        if upstreams is not None:
            args["upstreams"] = list(upstreams)
        if confirm_seconds is not None:
            args["confirm_seconds"] = confirm_seconds
        return _understood(State.from_json, self.call("apply", args))

    def confirm(self, attachment_id: str) -> State:
        """Keep what was applied with `confirm_seconds` (``nothing-to-confirm`` where that is not, or no longer, awaited)."""
        return _understood(State.from_json, self.call("confirm", {"id": attachment_id}))

    def detach(self, attachment_id: str) -> None:
        """Forget an attachment; an interface with the gate's prefix falls back to being locked. Unknown ids are no error."""
        self.call("detach", {"id": attachment_id})

    def status(self, attachment_id: str | None = None) -> Status:
        """The gate, and all its attachments or one of them."""
        return _understood(
            Status.from_json, self.call("status", {} if attachment_id is None else {"id": attachment_id})
        )

    def show(self, attachment_id: str) -> Shown:
        """One attachment with its ruleset and learned addresses."""
        return _understood(Shown.from_json, self.call("show", {"id": attachment_id}))

    def check(self, attachment_id: str, flow: Flow) -> Verdict:
        """What would happen to a flow now, by the ruleset in force and what has been learned."""
        args = {"id": attachment_id, "flow": forms.flow_to_json(flow)}
        return _understood(forms.verdict_from_json, self.call("check", args))

    def verified(self, attachment_id: str, ruleset_id: str, report: Json) -> State:
        """Store a verification report, if `ruleset_id` is still in force (else ``stale-verification``)."""
        return _understood(
            State.from_json, self.call("verified", {"id": attachment_id, "ruleset": ruleset_id, "report": report})
        )


def unreachable(where: str, error: OSError) -> UserError:
    """The error for a gate that nobody can connect to."""
    return UserError(
        "gate-unreachable",
        f"no gate is listening at {where}: {error.strerror or error}",
        hint="Start one with 'netpolicy gate serve', or name its socket with --socket.",
        exit_status=Exit.MISSING,
    )


def _understood(read: Callable[[Json], T], document: Json) -> T:
    try:
        return read(document)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("gate-protocol", f"the gate's answer is not understood: {error!r}") from error
