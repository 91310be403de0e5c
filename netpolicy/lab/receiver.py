"""What arrived at the internet: every packet on its side of the uplink, whether or not anything answered it.

This is where an enforcement test takes its verdict. A sender's view lies: behind a forwarding filter it sees "sent".
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import ip_address

from netpolicy.errors import UserError

_ETH_IP, _ETH_IPV6, _ETH_ALL = 0x0800, 0x86DD, 3
#: "Local experimental" (IEEE 802): carries our own mark, which no filter of IP packets sees.
_ETH_MARK = 0x88B5
_OUTGOING = 4
_SO_RCVBUFFORCE, _PACKET_STATISTICS, _SOL_PACKET = 33, 6, 263
_DEADLINE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that arrived."""

    source: str
    destination: str
    protocol: int
    """IANA number; for IPv6 the next header."""
    port: int | None
    """Destination port, where the protocol has ports."""
    data: bytes
    """The whole IP packet."""


class Receiver:
    """All packets that have arrived. `start` runs in the servers' loop."""

    def __init__(self) -> None:
        self._packets: list[Packet] = []
        self._changed = threading.Condition()
        self._marks: set[bytes] = set()
        self._sender: socket.socket | None = None
        self._interface = ""
        self._capture: socket.socket | None = None

    def packets(self) -> list[Packet]:
        """Everything that has arrived up to now: whatever was sent before this call is in it.

        Raises:
            UserError: ``capture-lost``: the kernel dropped packets before we read them, so absence proves nothing.
        """
        self._settle()
        with self._changed:
            return list(self._packets)

    def saw(self, nonce: str | bytes) -> list[Packet]:
        """The packets that carry these bytes anywhere."""
        wanted = nonce.encode() if isinstance(nonce, str) else nonce
        return [p for p in self.packets() if wanted in p.data]

    def arrived(self, destination: str, port: int | None = None, protocol: int | None = None) -> list[Packet]:
        """The packets to an address (and port, and protocol)."""
        address = str(ip_address(destination))
        return [
            p
            for p in self.packets()
            if p.destination == address and port in (None, p.port) and protocol in (None, p.protocol)
        ]

    def forget(self) -> None:
        """Drop what has arrived so far."""
        self._settle()
        with self._changed:
            self._packets.clear()

    def _settle(self) -> None:
        """Send a mark down the same wire and wait for it: a veth pair delivers in order."""
        assert self._sender is not None
        assert self._capture is not None
        for _ in range(2):  # the second one follows whatever another processor had still queued
            mark = secrets.token_bytes(16)
            self._sender.sendto(mark, (self._interface, _ETH_MARK, 0, 0, b"\xff" * 6))
            with self._changed:
                if not self._changed.wait_for(lambda mark=mark: mark in self._marks, _DEADLINE_SECONDS):  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                    raise UserError("capture-lost", "the lab's capture does not see its own mark")
                self._marks.discard(mark)
        _, lost = struct.unpack("II", self._capture.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if lost:
            raise UserError("capture-lost", f"the lab's capture lost {lost} packets, so absence proves nothing")

    def start(self, stack: contextlib.AsyncExitStack, interface: str, sender: socket.socket, sender_link: str) -> None:
        """Capture on `interface` of the loop's own namespace; `sender` is a packet socket at the wire's other end."""
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        stack.callback(capture.close)
        capture.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        capture.bind((interface, _ETH_ALL))
        self._capture, self._sender, self._interface = capture, sender, sender_link
        loop = asyncio.get_running_loop()
        loop.add_reader(capture, self._read, capture)
        stack.callback(loop.remove_reader, capture)

    def _read(self, capture: socket.socket) -> None:
        with self._changed:
            for _ in range(256):
                try:
                    data, (_, ethertype, kind, *_) = capture.recvfrom(65535)
                except BlockingIOError:
                    break
                if kind == _OUTGOING:
                    continue
                if ethertype == _ETH_MARK:
                    self._marks.add(data[:16])
                    self._changed.notify_all()
                elif (packet := _parse(ethertype, data)) is not None:
                    self._packets.append(packet)


def _parse(ethertype: int, data: bytes) -> Packet | None:
    if ethertype == _ETH_IP and len(data) >= 20:
        header, protocol = (data[0] & 15) * 4, data[9]
        source, destination = data[12:16], data[16:20]
    elif ethertype == _ETH_IPV6 and len(data) >= 40:
        header, protocol = 40, data[6]
        source, destination = data[8:24], data[24:40]
    else:
        return None
    port = None
    if protocol in (6, 17, 132, 136) and len(data) >= header + 4:
        (port,) = struct.unpack_from("!H", data, header + 2)
    return Packet(str(ip_address(source)), str(ip_address(destination)), protocol, port, data)
