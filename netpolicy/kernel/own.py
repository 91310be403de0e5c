"""The addresses a namespace has itself, over rtnetlink (linux/rtnetlink.h, RTM_GETADDR)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Container, Iterator

from netpolicy.errors import UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel import netns
from netpolicy.kernel.netlink import received
from netpolicy.kernel.netns import Namespace

_ROUTE, _GETADDR, _NEWADDR, _ERROR, _DONE = 0, 22, 20, 2, 3
_REQUEST_DUMP = 0x301
_ADDRESS, _LOCAL = 1, 2


class OwnAddresses(Container[bytes]):
    """The packed addresses of a namespace at this moment, all of its loopback network among them.

    Raises:
        UserError: ``kernel-refused``.
    """

    def __init__(self, namespace: Namespace) -> None:
        try:
            with netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE) as link:
                link.settimeout(30)
                link.send(struct.pack("=IHHIIB7x", 24, _GETADDR, _REQUEST_DUMP, 1, 0, socket.AF_UNSPEC))
                self._found = frozenset(_read(link))
        except OSError as error:
            raise UserError("kernel-refused", f"cannot list the own addresses: {error.strerror}") from error

    def __contains__(self, packed: object) -> bool:
        return packed in self._found or (isinstance(packed, bytes) and len(packed) == 4 and packed[0] == 127)


def _read(link: socket.socket) -> Iterator[bytes]:
    while True:
        for row in received(link.recv(1 << 18)):
            if row.kind in (_ERROR, _DONE):
                return
            if row.kind == _NEWADDR:
                fields = a.table(row.body[8:])
                # Of a wire with two ends the address is the other end's.
                yield bytes(fields.get(_LOCAL) or fields.get(_ADDRESS) or b"")
