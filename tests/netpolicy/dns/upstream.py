"""A resolver on the loopback that does as it is told: answers, lies, cuts short, stays silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import dns.message
import dns.rdatatype
from dnskit import answer

from netpolicy.dns.servers import Server

#: Gets a query, sends whatever it likes.
Behaviour = Callable[[bytes, "Client"], None]


class Client:
    """Who asked, over UDP."""

    def __init__(self, transport: asyncio.DatagramTransport, address: Any) -> None:
        self.transport, self.address = transport, address

    def send(self, data: bytes) -> None:
        self.transport.sendto(data, self.address)


class FakeUpstream(asyncio.DatagramProtocol):
    """UDP and TCP on one port of 127.0.0.1."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        """By (name, type): the texts that `dnskit.answer` takes."""
        self.behaviour: Behaviour = lambda query, client: client.send(self.answer(query))
        self.asked: list[tuple[str, str]] = []
        self.queries: list[bytes] = []
        self.clients: list[Any] = []
        self.arrived = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        port = self._tcp.sockets[0].getsockname()[1]
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        self.server = Server(ip_address("127.0.0.1"), port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.die()

    async def die(self) -> None:
        """Close the port."""
        assert self._transport is not None
        assert self._tcp is not None
        self._transport.abort()
        self._tcp.close()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next round

    def set(self, name: str, kind: str, *texts: str) -> None:
        self.records[name, kind] = list(texts)

    def answer(self, query: bytes) -> bytes:
        name, kind = _question(query)
        texts = self.records.get((name, kind))
        exists = any(known == name for known, _kind in self.records)
        return answer(query, *(texts or ()), rcode=0 if exists else 3)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        self._note(data, addr)
        self.behaviour(data, Client(self._transport, addr))

    def _note(self, data: bytes, addr: Any) -> None:
        self.asked.append(_question(data))
        self.queries.append(data)
        self.clients.append(addr)
        self.arrived.set()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        self._note(query, "tcp")
        reply = self.answer(query)
        writer.write(len(reply).to_bytes(2) + reply)
        await writer.drain()
        writer.close()


def _question(query: bytes) -> tuple[str, str]:
    question = dns.message.from_wire(query).question[0]
    return str(question.name).rstrip("."), dns.rdatatype.to_text(question.rdtype)
