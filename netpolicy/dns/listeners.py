"""The sockets of one DNS gate: UDP and TCP on each of its addresses, on one port, reachable from one interface only.

The interface and its addresses may not exist yet (Docker makes a bridge when it needs it; a fresh IPv6 address is tentative for
a second). Addresses need not: the sockets are bound freely (IP_FREEBIND, ip(7); IPV6_FREEBIND). The interface must, for
SO_BINDTODEVICE (socket(7)); until it does, `open` says no and is tried again, and so it is when the interface was replaced by
another of the same name. For the processes of the namespace itself there is no interface: the addresses are loopback ones.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from netpolicy.dns.core import Ready
from netpolicy.dns.service import DnsService
from netpolicy.errors import UserError
from netpolicy.flow import Address

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_ATTEMPTS = 16
#: TCP connections of one workload at once, and seconds without a query after which one is closed.
_MOST_CONNECTIONS = 64
_IDLE = 10.0

#: Makes a socket of (family, kind); a gate in another namespace than its process brings its own.
SocketFactory = Callable[[int, int], socket.socket]


@dataclass(slots=True)
class Listeners:
    """Open or not, the sockets of one attachment's DNS gate."""

    service: DnsService
    interface: str
    """Empty for the loopback addresses."""
    addresses: Sequence[Address]
    open_socket: SocketFactory
    port: int | None = None
    """Kept once chosen, also while nothing is open; chosen anew where another program has taken it meanwhile."""
    _sockets: list[socket.socket] = field(default_factory=list)
    _transports: list[asyncio.DatagramTransport] = field(default_factory=list)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def listening(self) -> bool:
        """Whether the sockets are open, on the interface as it is now."""
        return bool(self._sockets) and all(_device(own) in (self.interface, None) for own in self._sockets)

    async def open(self) -> bool:
        """Listen, unless we do already; False while the interface is not there.

        Raises:
            UserError: ``dns-listen``: the sockets cannot be opened for another reason.
        """
        if self.listening:
            return True
        self.close()
        try:
            self._sockets = self._bind()
        except UserError as error:
            if error.details.get("errno") == errno.ENODEV:
                return False
            raise
        loop = asyncio.get_running_loop()
        for own in self._sockets:
            if own.type == socket.SOCK_DGRAM:
                transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.service), sock=own)
                self._transports.append(transport)
            else:
                self._servers.append(await asyncio.start_server(self._serve, sock=own, backlog=64))
        return True

    def choose_port(self) -> int:
        """The port, chosen now if it was not before: rules that name it may come before the interface.

        Raises:
            UserError: ``dns-listen``: no port is free.
        """
        if self.port is None:
            for own in self._bind(device=False):
                own.close()
        assert self.port is not None
        return self.port

    def close(self) -> None:
        """Stop listening and hang up."""
        for transport in self._transports:
            transport.abort()
        for server in self._servers:
            server.close()
        for writer in self._connections:
            writer.transport.abort()
        for own in self._sockets:
            own.close()
        self._transports, self._servers, self._sockets = [], [], []

    def _bind(self, *, device: bool = True) -> list[socket.socket]:
        """All sockets, on one port: the one we had, or one that the kernel picks."""
        try:
            for attempt in range(_ATTEMPTS):
                sockets = self._bind_once(self.port or 0 if attempt == 0 else 0, device=device)
                if sockets:
                    return sockets
            raise OSError(errno.EADDRINUSE, "no port is free for both UDP and TCP on every address")
        except OSError as error:
            where = ", ".join(str(address) for address in self.addresses)
            whose = f"the DNS gate of {self.interface}" if self.interface else "the DNS gate"
            raise UserError(
                "dns-listen",
                f"{whose} cannot listen on {where}: {error.strerror}",
                details={"errno": error.errno},
            ) from error

    def _bind_once(self, port: int, *, device: bool) -> list[socket.socket]:
        """All sockets on this port (0: any); none where somebody else has it on one of the addresses."""
        sockets: list[socket.socket] = []
        try:
            for address in self.addresses:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    try:
                        own = self._socket(address, kind, device=device and bool(self.interface))
                    except OSError as error:
                        if error.errno == errno.EAFNOSUPPORT and not self.interface:
                            continue  # a machine without IPv6: no question can come that way
                        raise
                    sockets.append(own)
                    own.bind((str(address), port))
                    port = own.getsockname()[1]
        except OSError as error:
            for own in sockets:
                own.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return []
        self.port = port
        return sockets

    def _socket(self, address: Address, kind: int, *, device: bool) -> socket.socket:
        six = address.version == 6
        own = self.open_socket(socket.AF_INET6 if six else socket.AF_INET, kind)
        try:
            own.setblocking(False)
            if six:
                own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                own.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                own.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if kind == socket.SOCK_STREAM:
                # A restarted gate takes its port again while old connections are in TIME_WAIT.
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if device:
                with suppress(PermissionError):  # before Linux 5.7 it takes CAP_NET_RAW, which the gate has not
                    own.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode() + b"\0")
        except OSError:
            own.close()
            raise
        return own

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection (RFC 7766): each message after its length in two bytes."""
        if len(self._connections) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                reply = await self.service.answer(data, udp=False)
                if reply is None:
                    return
                async with asyncio.timeout(_IDLE):
                    writer.write(len(reply).to_bytes(2) + reply)
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            return
        finally:
            self._connections.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Denied and known questions are answered on the spot, the others by a task each."""

    def __init__(self, service: DnsService) -> None:
        self._service = service
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        step = self._service.core.ask(data, udp=True)
        if isinstance(step, Ready):
            self._send(step.wire, addr)
            return
        task = asyncio.create_task(self._finish(step, data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, step: Any, data: bytes, addr: Any) -> None:
        self._send(await self._service.finish(step, data), addr)

    def _send(self, reply: bytes | None, addr: Any) -> None:
        if reply is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


def _device(own: socket.socket) -> str | None:
    """The interface that a socket is bound to: None for none, an empty text where it is gone."""
    try:
        name = own.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
    except OSError:
        return ""
    return name.rstrip(b"\0").decode() or None
