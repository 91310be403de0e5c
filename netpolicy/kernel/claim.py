"""The right to look after something in a network namespace, as the name of a socket there: it goes with the process that has it.

Any user may take a name. So one that neither root nor we ourselves have says nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace

_CREDENTIALS = struct.Struct("=iII")


@dataclass
class Claim:
    """One name (unix(7), abstract addresses) in one namespace."""

    name: str
    namespace: Namespace
    _socket: socket.socket | None = None

    def take(self) -> bool:
        """Take it, and keep it until `release`; again: no effect. False: a process of root or of ours has it."""
        if self._socket is not None:
            return True
        made = netns.socket_in(self.namespace, socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.bind(f"\0{self.name}")
            made.listen(1)
        except OSError:
            made.close()
            return self._holder() not in (0, os.geteuid())
        self._socket = made
        return True

    def release(self) -> None:
        """Give it back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _holder(self) -> int | None:
        """The user whose process has the name; None where that is not to be found out."""
        with netns.socket_in(self.namespace, socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            try:
                asking.setblocking(False)
                asking.connect(f"\0{self.name}")
            except BlockingIOError:
                pass  # it has more callers than it answers: it is there
            except OSError:
                return None
            try:
                known = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            except OSError:
                return None
        uid: int = _CREDENTIALS.unpack(known)[1]
        return uid
