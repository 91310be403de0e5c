"""Ask upstream resolvers: UDP, TCP where the answer was cut, the next server where one is silent.

What makes an answer ours (RFC 5452): it comes from the address and port that we asked (the socket is connected), to the random
port that we asked from (each attempt has a socket of its own), with our random identifier and our question. Anything else is
passed over and waiting goes on.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netpolicy.dns import wire
from netpolicy.dns.reading import read_response
from netpolicy.dns.servers import Server, ServerList
from netpolicy.dns.wire import Response, WireError
from netpolicy.dns.writing import write_query

#: Seconds that one server is given, in the first round and in the second.
PATIENCE = (1.0, 2.5)
#: Seconds for a question altogether: less than the five after which a stub resolver repeats it.
DEADLINE = 4.5
#: Seconds that a server which was silent is asked last.
_SIDELINED = 10.0


class UpstreamError(Exception):
    """No upstream answered the question.

    Args:
        code: Extended DNS error that fits, RFC 8914.
        text: What each of them did.
        wire: An answer that says it failed (SERVFAIL, REFUSED), where there was one.
    """

    def __init__(self, code: int, text: str, wire: bytes | None = None) -> None:
        super().__init__(text)
        self.code, self.text, self.wire = code, text, wire


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answer, and where it is from."""

    wire: bytes
    response: Response
    server: Server


class Upstreams:
    """The resolvers behind one DNS gate, with a memory of which ones were silent.

    Args:
        servers: Who they are, in the order in which they are preferred.
        patience: Seconds that a server is given in each round; a later round asks only those that were silent.
    """

    def __init__(self, servers: ServerList, *, patience: Sequence[float] = PATIENCE) -> None:
        self.servers = servers
        self._patience = patience
        self._silent_until: dict[Server, float] = {}

    async def ask(self, name: bytes, kind: int, *, seconds: float = DEADLINE) -> Exchange:
        """Put a question of our own; nothing but the name (in canonical wire form) and the type leaves.

        Raises:
            UpstreamError: nobody answered, or all say that they failed.
        """
        return await self._ask(lambda ident, edns: write_query(ident, name, kind, edns=edns), name, kind, seconds)

    async def forward(self, query: bytes, name: bytes, kind: int) -> Exchange:
        """Put a client's question as it is, under an identifier of our own. Raises like `ask`."""
        return await self._ask(lambda ident, _edns: ident.to_bytes(2) + query[2:], name, kind, DEADLINE)

    async def _ask(self, write: Callable[[int, bool], bytes], name: bytes, kind: int, seconds: float) -> Exchange:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        said: dict[Server, str] = {}
        code, failed = wire.EDE_NO_REACHABLE_AUTHORITY, None
        waiting = self._in_order(loop.time())
        for patience in self._patience:
            silent: list[Server] = []
            for server in waiting:
                left = min(patience, deadline - loop.time())
                if left <= 0:
                    break
                try:
                    async with asyncio.timeout(left):
                        exchange = await _exchange(server, write, name, kind)
                except TimeoutError:
                    said[server] = "no answer"
                    silent.append(server)
                    self._silent_until[server] = loop.time() + _SIDELINED
                except (OSError, EOFError) as error:
                    said[server] = getattr(error, "strerror", None) or str(error)
                    code = wire.EDE_NETWORK_ERROR
                    self._silent_until[server] = loop.time() + _SIDELINED
                else:
                    self._silent_until.pop(server, None)
                    if exchange.response.rcode in (wire.NOERROR, wire.NXDOMAIN):
                        return exchange
                    said[server] = f"response code {exchange.response.rcode}"
                    failed = exchange.wire
            waiting = silent
        text = "; ".join(f"{server}: {what}" for server, what in said.items()) or "no upstream resolver is configured"
        raise UpstreamError(code, text, failed)

    def _in_order(self, now: float) -> list[Server]:
        """As configured, the silent ones last."""
        return sorted(self.servers(), key=lambda server: self._silent_until.get(server, 0.0) > now)


async def _exchange(server: Server, write: Callable[[int, bool], bytes], name: bytes, kind: int) -> Exchange:
    """One question to one server, without a limit of time."""
    ident = secrets.randbits(16)
    data, response = await _udp(server, write(ident, True), ident, name, kind)
    if response.rcode in (wire.FORMERR, wire.NOTIMP):
        # RFC 6891, section 6.2.2: it may not know EDNS.
        ident = secrets.randbits(16)
        data, response = await _udp(server, write(ident, False), ident, name, kind)
    if response.truncated:
        ident = secrets.randbits(16)
        data, response = await _tcp(server, write(ident, True), ident, name, kind)
    return Exchange(data, response, server)


async def _udp(server: Server, query: bytes, ident: int, name: bytes, kind: int) -> tuple[bytes, Response]:
    loop = asyncio.get_running_loop()
    family, target = server.target()
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        own.setblocking(False)
        own.connect(target)
        await loop.sock_sendall(own, query)
        while True:
            data = await loop.sock_recv(own, 65535)
            response = _ours(data, ident, name, kind)
            if response is not None:
                return data, response


async def _tcp(server: Server, query: bytes, ident: int, name: bytes, kind: int) -> tuple[bytes, Response]:
    loop = asyncio.get_running_loop()
    family, target = server.target()
    with socket.socket(family, socket.SOCK_STREAM) as own:
        own.setblocking(False)
        await loop.sock_connect(own, target)
        await loop.sock_sendall(own, len(query).to_bytes(2) + query)
        while True:
            size = int.from_bytes(await _exactly(own, 2))
            data = await _exactly(own, size)
            response = _ours(data, ident, name, kind)
            if response is not None:
                return data, response


async def _exactly(own: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    while size:
        part = await loop.sock_recv(own, size)
        if not part:
            raise EOFError("the connection was closed early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _ours(data: bytes, ident: int, name: bytes, kind: int) -> Response | None:
    """The response, if it is one to our question."""
    try:
        response = read_response(data)
    except WireError:
        return None
    return response if (response.id, response.name, response.type) == (ident, name, kind) else None
