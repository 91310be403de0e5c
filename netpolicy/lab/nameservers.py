"""The lab's name servers: every address answers on port 53, UDP and TCP, from one `Zone`, and every query is on record."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.rdatatype

from netpolicy.lab import transparent
from netpolicy.lab.transparent import Endpoint
from netpolicy.lab.zone import Zone

PORT = 5300


@dataclass(frozen=True, slots=True)
class Query:
    """One query that arrived at the internet."""

    name: str
    """Lower case, without the trailing dot."""
    kind: str
    """``A``, ``AAAA``, ``TXT``..."""
    server: str
    """The address that was asked."""
    client: str
    transport: str
    """``udp`` or ``tcp``."""


class NameServers:
    """All name servers of the lab. `start` runs in the servers' loop."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.silent = False
        """While set, queries are recorded and none is answered: the resolver is down."""
        self._queries: list[Query] = []
        self._lock = threading.Lock()

    def queries(self, name: str | None = None, *, server: str | None = None) -> list[Query]:
        """The queries so far, optionally only those for a name (or below it) and to a server."""
        with self._lock:
            found = list(self._queries)
        if name is not None:
            found = [q for q in found if q.name == name or q.name.endswith("." + name)]
        return [q for q in found if server in (None, q.server)]

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the sockets in the loop's own namespace."""
        transparent.serve(stack, PORT, self._datagrams, self._converse)

    def _datagrams(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data, sender, asked = transparent.receive(sock)
            except BlockingIOError:
                return
            response = self._answer(data, sender, asked, "udp")
            if response is not None:
                with contextlib.suppress(OSError):
                    transparent.reply(response, asked, sender)

    async def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, asyncio.IncompleteReadError):
            sender, asked = connection.getpeername()[:2], connection.getsockname()[:2]
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                while True:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    response = self._answer(await reader.readexactly(length), sender, asked, "tcp")
                    if response is not None:
                        writer.write(struct.pack("!H", len(response)) + response)
                        await writer.drain()
            finally:
                writer.close()
                # The transport must be done with the file descriptor before the next connection may get its number.
                await writer.wait_closed()

    def _answer(self, data: bytes, sender: Endpoint, asked: Endpoint, transport: str) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return data[:2] + b"\x80\x01" + bytes(8) if len(data) >= 2 else None  # FORMERR
        with self._lock:
            for question in query.question:
                name = question.name.to_text(omit_final_dot=True).lower()
                kind = dns.rdatatype.to_text(question.rdtype)
                self._queries.append(Query(name, kind, asked[0], sender[0], transport))
        response = None if self.silent else self.zone.answer(query, transport)
        if response is None:
            return None
        limit = 65535 if transport == "tcp" else max(512, query.payload)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= 0x0200  # TC
            return response.to_wire()
