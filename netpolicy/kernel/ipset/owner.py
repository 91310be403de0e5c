"""One gate for each namespace: iptables has no owner, so a socket's name says that somebody looks after the rules.

The name is in the namespace and goes with the process that has it. A name that another user's process has says nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from netpolicy.errors import Exit, UserError
from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace

_CREDENTIALS = struct.Struct("=iII")


@dataclass
class Owner:
    """The right to look after the rules of this name."""

    name: str
    namespace: Namespace
    _socket: socket.socket | None = None

    def claim(self) -> None:
        """Take it, and keep it until `release`; again: no effect.

        Raises:
            UserError: ``table-owned``, where a process of root or of ours has it.
        """
        if self._socket is not None:
            return
        address = f"\0netpolicy/ipset/{self.name}"
        made = netns.socket_in(self.namespace, socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.bind(address)
            made.listen(1)
        except OSError as error:
            made.close()
            if self._holder(address) in (0, os.geteuid()):
                raise UserError(
                    "table-owned",
                    f"the iptables rules {self.name} belong to another process that is running",
                    hint="There is one gate for each host. Stop the other one, or use another table.",
                    exit_status=Exit.CONFLICT,
                ) from error
            return
        self._socket = made

    def release(self) -> None:
        """Give it back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _holder(self, address: str) -> int | None:
        with netns.socket_in(self.namespace, socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            try:
                asking.setblocking(False)
                asking.connect(address)
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
