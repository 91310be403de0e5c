"""Wakes when an interface or an address comes or goes, by the kernel's own announcements (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from netpolicy.dns.listeners import SocketFactory

_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS = 0x1, 0x10, 0x100


class LinkWatch:
    """Listens for changes of links and addresses in the namespace that the sockets are made in; needs no privilege."""

    def __init__(self, open_socket: SocketFactory) -> None:
        self._changed = asyncio.Event()
        self._socket = open_socket(socket.AF_NETLINK, socket.SOCK_RAW)
        self._socket.setblocking(False)
        self._socket.bind((0, _LINK | _IPV4_ADDRESS | _IPV6_ADDRESS))
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    async def changed(self, seconds: float) -> None:
        """Return after a change, or after so many seconds (an announcement may be lost)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _drain(self) -> None:
        # Only that something changed matters, not what; an overflow (ENOBUFS) is a change as well.
        with suppress(OSError):
            while self._socket.recv(65536):
                pass
        self._changed.set()
