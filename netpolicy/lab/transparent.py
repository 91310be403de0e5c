"""Sockets that receive for every address and answer from the one that was asked (tproxy, ip(7) IP_TRANSPARENT).

They are made by a thread that is inside the namespace of the internet, which has the capability for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from ipaddress import ip_address

Endpoint = tuple[str, int]

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_RECVORIGDSTADDR, _IPV6_RECVORIGDSTADDR = 20, 74
#: Connections accepted before the loop gets another turn.
_AT_ONCE = 64
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    return sock


def listener(family: socket.AddressFamily, port: int) -> socket.socket:
    """A TCP listener; what it accepts has the asked address as its own."""
    sock = _socket(family, socket.SOCK_STREAM)
    sock.bind(("", port))
    sock.listen(512)
    return sock


def receiver(family: socket.AddressFamily, port: int) -> socket.socket:
    """A UDP socket for `receive`."""
    sock = _socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
    sock.bind(("", port))
    return sock


def serve(
    stack: contextlib.AsyncExitStack,
    port: int,
    datagrams: Callable[[socket.socket], None],
    converse: Callable[[socket.socket], Coroutine[None, None, None]],
) -> None:
    """Serve a port in both families, UDP and TCP, until `stack` is left; to be called in the loop.

    Args:
        stack: Closes everything.
        port: Of the sockets.
        datagrams: Called where there is something for `receive`.
        converse: Run as a task for each connection that was accepted (not blocking), which it closes.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def accept(sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            connection.setblocking(False)
            task = loop.create_task(converse(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    for family in FAMILIES:
        for sock, act in ((receiver(family, port), datagrams), (listener(family, port), accept)):
            stack.callback(sock.close)
            loop.add_reader(sock, act, sock)
            stack.callback(loop.remove_reader, sock)
    stack.push_async_callback(stop)


def receive(sock: socket.socket) -> tuple[bytes, Endpoint, Endpoint]:
    """One datagram: data, who sent it, where it was sent to. Raises BlockingIOError where there is none."""
    data, messages, _, sender = sock.recvmsg(65535, 256)
    asked: Endpoint = ("", 0)
    for level, kind, raw in messages:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVORIGDSTADDR):
            asked = (str(ip_address(raw[4:8])), struct.unpack("!H", raw[2:4])[0])
        elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR):
            asked = (str(ip_address(raw[8:24])), struct.unpack("!H", raw[2:4])[0])
    return data, (sender[0], sender[1]), asked


def reply(data: bytes, asked: Endpoint, sender: Endpoint) -> None:
    """Send a datagram back, from the endpoint that was asked."""
    family = socket.AF_INET6 if ":" in asked[0] else socket.AF_INET
    with _socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(asked)
        sock.sendto(data, sender)
