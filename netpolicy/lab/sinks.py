"""Receivers for everything that is not DNS: every address answers on every TCP and UDP port.

A TCP client that speaks TLS gets TLS, one that speaks HTTP gets a page, any other gets a line that names the destination it
asked for and then its own bytes back. A datagram is answered with that line and its own bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from netpolicy.lab import transparent
from netpolicy.lab.authority import Authority
from netpolicy.lab.web import METHODS, Web

PORT = 4000
_TLS_HANDSHAKE = 0x16
#: A client that says nothing for so long is one that waits for a banner.
_BANNER_SECONDS = 0.1
#: Where the client always speaks first (web, DNS over TLS), a slow one must not be taken for one that waits.
_CLIENT_FIRST = frozenset({80, 443, 853})
_CLIENT_SECONDS = 3.0


class Sinks:
    """`start` runs in the servers' loop."""

    def __init__(self, authority: Authority, web: Web) -> None:
        self._authority = authority
        self._web = web

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the sockets in the loop's own namespace."""
        transparent.serve(stack, PORT, self._datagrams, self._converse)

    def _datagrams(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data, sender, asked = transparent.receive(sock)
            except BlockingIOError:
                return
            with contextlib.suppress(OSError):
                transparent.reply(_line("udp", asked) + data, asked, sender)

    async def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            asked = connection.getsockname()[:2]
            tls = await _speaks_tls(connection, _patience(asked))
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            context = self._authority.context("lab.invalid") if tls else None
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=context)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await self._answer(reader, writer, asked)
            finally:
                writer.close()
                # The transport must be done with the file descriptor before the next connection may get its number.
                await writer.wait_closed()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: transparent.Endpoint
    ) -> None:
        try:
            data = await asyncio.wait_for(reader.read(4096), _patience(asked))
        except TimeoutError:
            data = b""
        else:
            if not data:
                return
        if data.startswith(METHODS):
            await self._web.serve(reader, writer, data, _endpoint(asked))
            return
        writer.write(_line("tcp", asked) + data)
        await writer.drain()
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def _patience(asked: transparent.Endpoint) -> float:
    return _CLIENT_SECONDS if asked[1] in _CLIENT_FIRST else _BANNER_SECONDS


async def _speaks_tls(connection: socket.socket, seconds: float) -> bool:
    """Look at the first byte without taking it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), seconds)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(connection)
    first = connection.recv(1, socket.MSG_PEEK)
    return first == bytes([_TLS_HANDSHAKE])


def _endpoint(asked: transparent.Endpoint) -> str:
    return f"[{asked[0]}]:{asked[1]}" if ":" in asked[0] else f"{asked[0]}:{asked[1]}"


def _line(protocol: str, asked: transparent.Endpoint) -> bytes:
    return f"netpolicy-lab {protocol} {_endpoint(asked)}\n".encode()
