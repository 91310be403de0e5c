"""The control socket: requests of `protocol` in, calls of `core.Gate` out. A unix socket for its owner only."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.gate import forms, protocol
from netpolicy.gate.core import Gate
from netpolicy.ruleset import Ruleset

_log = logging.getLogger("netpolicy.gate")

#: Seconds that requests under way are given to end when the gate is stopped.
_LAST_SECONDS = 3.0

Json = dict[str, Any]
Operation = Callable[[Gate, Json], Awaitable[Any]]


class ControlServer:
    """Serves a gate on a unix socket.

    Args:
        gate: What is called.
        path: The socket's place; a socket that nobody serves any more is replaced.

    Raises:
        UserError: ``gate-running``: somebody answers there already; ``bad-socket``: it cannot be made there.
    """

    def __init__(self, gate: Gate, path: Path) -> None:
        self._gate = gate
        self._path = path
        self._socket = _bind(path)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._requests: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_unix_server(self._serve, sock=self._socket, limit=protocol.MAX_LINE)

    async def close(self) -> None:
        """Finish the requests under way, hang up, remove the socket."""
        self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        if self._requests:
            _, late = await asyncio.wait(self._requests, timeout=_LAST_SECONDS)
            for request in late:
                request.cancel()
        for writer in list(self._connections):
            writer.close()
        self._socket.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while line := await reader.readline():
                writer.write(await self._answer(line))
                await writer.drain()
        except (OSError, ValueError) as error:
            # ValueError: a line beyond the limit. Nothing sensible can follow it.
            _log.warning("a client of the control socket was hung up on: %s", error)
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        """The response to a request; a defect of ours is answered and logged, and ends neither connection nor gate.

        The request ends even if whoever asked has gone meanwhile: half an apply helps nobody.
        """
        request = asyncio.create_task(perform(self._gate, line))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        await asyncio.wait([request])
        if request.cancelled():
            return protocol.encode_error(UserError("gate-stopping", "the gate is being stopped"))
        error = request.exception()
        if error is None:
            return await asyncio.to_thread(protocol.encode_result, request.result())
        if isinstance(error, UserError):
            return protocol.encode_error(error)
        _log.error("a request failed by a defect of the gate", exc_info=error)
        return protocol.encode_error(UserError("internal", f"a defect in the gate: {error!r}"))


async def perform(gate: Gate, line: bytes) -> Any:
    """One request line; its result as JSON. Raises UserError: the operation's own, or ``bad-request``.

    Big documents are read and written in threads, so that no workload waits for its DNS meanwhile.
    """
    try:
        document = await asyncio.to_thread(json.loads, line)
        op, args = document["op"], document.get("args", {})
        operation = _OPERATIONS.get(op)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad(f"not a request of the gate's protocol: {line[:200]!r}") from error
    if operation is None or not isinstance(args, dict):
        known = ", ".join(_OPERATIONS)
        raise (
            _bad(f"unknown operation {op!r}", f"There are: {known}.")
            if operation is None
            else _bad("args is no object")
        )
    return await operation(gate, args)


async def _hello(gate: Gate, _args: Json) -> Json:
    return gate.hello().to_json()


async def _attach(gate: Gate, args: Json) -> Json:
    return (await gate.attach(_read(Attachment.from_json, args, "attachment"))).to_json()


async def _apply(gate: Gate, args: Json) -> Json:
    state = await gate.apply(
        _read(str, args, "id"),
        await asyncio.to_thread(_read, Ruleset.from_json, args, "ruleset"),
        upstreams=_read(_texts, args, "upstreams", None),
        resolve_seconds=_read(float, args, "resolve_seconds", 3.0),
        confirm_seconds=_read(float, args, "confirm_seconds", None),
    )
    return state.to_json()


async def _confirm(gate: Gate, args: Json) -> Json:
    return (await gate.confirm(_read(str, args, "id"))).to_json()


async def _detach(gate: Gate, args: Json) -> None:
    await gate.detach(_read(str, args, "id"))


async def _status(gate: Gate, args: Json) -> Json:
    return (await gate.status(_read(str, args, "id", None))).to_json()


async def _show(gate: Gate, args: Json) -> Json:
    return await asyncio.to_thread((await gate.show(_read(str, args, "id"))).to_json)


async def _check(gate: Gate, args: Json) -> Json:
    flow = _read(forms.flow_from_json, args, "flow")
    return forms.verdict_to_json(await gate.check(_read(str, args, "id"), flow))


async def _verified(gate: Gate, args: Json) -> Json:
    report = _read(dict, args, "report")
    return (await gate.verified(_read(str, args, "id"), _read(str, args, "ruleset"), report)).to_json()


_OPERATIONS: dict[str, Operation] = {
    "hello": _hello,
    "attach": _attach,
    "apply": _apply,
    "confirm": _confirm,
    "detach": _detach,
    "status": _status,
    "show": _show,
    "check": _check,
    "verified": _verified,
}

_REQUIRED = object()


def _read(read: Callable[[Any], Any], args: Json, key: str, default: Any = _REQUIRED) -> Any:
    """One argument, in its type."""
    value = args.get(key, default)
    if value is _REQUIRED:
        raise _bad(f"the argument {key!r} is missing")
    if value is default:
        return value
    try:
        return read(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad(f"the argument {key!r} is malformed: {error!r}") from error


def _texts(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("it must be a list of texts")
    return tuple(value)


def _bad(message: str, hint: str | None = None) -> UserError:
    return UserError("bad-request", message, hint=hint, exit_status=Exit.BAD_INPUT)


def _bind(path: Path) -> socket.socket:
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own.setblocking(False)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(path)
        before = os.umask(0o177)
        try:
            own.bind(str(path))
        finally:
            os.umask(before)
    except OSError as error:
        own.close()
        raise UserError(
            "bad-socket",
            f"the control socket {path} cannot be made: {error.strerror or error}",
            hint="Name another place with --socket.",
            exit_status=Exit.BAD_INPUT,
        ) from error
    return own


def _clear(path: Path) -> None:
    """Remove a socket that a killed gate left behind."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise UserError("gate-running", f"another gate answers at {path}", exit_status=Exit.CONFLICT)
