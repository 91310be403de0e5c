"""Which attachments a gate takes."""

from __future__ import annotations

import socket

from netpolicy.attachment import Attachment
from netpolicy.dns.listeners import SocketFactory
from netpolicy.errors import Exit, UserError
from netpolicy.gate.keeper import Keeper

#: linux/socket.h, since Linux 5.14: the same for two sockets of one network namespace.
_SO_NETNS_COOKIE = 71


def admit(attachment: Attachment, keep: Keeper) -> None:
    """Raises UserError ``bad-attachment`` for what would leave something open, or work on nobody."""
    problem = _own_processes(attachment, keep) if attachment.hook == "output" else _interface(attachment, keep)
    if problem is not None:
        raise UserError("bad-attachment", f"cannot attach {attachment.name!r}: {problem}", exit_status=Exit.BAD_INPUT)


def _interface(attachment: Attachment, keep: Keeper) -> str | None:
    if not attachment.networks or not attachment.gateways:
        return "it needs at least one network and one gateway address"
    if not attachment.interface:
        return "it needs an interface"
    if keep.prefix is not None and not attachment.interface.startswith(keep.prefix):
        # Detaching must never open: only the base lock makes sure of it.
        return (
            f"the name of its interface {attachment.interface} does not begin with {keep.prefix!r}, the locked prefix"
        )
    return None


def _own_processes(attachment: Attachment, keep: Keeper) -> str | None:
    """Networks and gateways may be missing, and no prefix locks a namespace's own processes."""
    if attachment.interface:
        return (
            f"it is for the processes of the namespace itself, so it has no interface, not even {attachment.interface}"
        )
    for held in keep.held.values():
        if held.record.attachment.hook == "output" and held.id != attachment.id:
            return f"the processes of this namespace are attached already, as {held.id}"
    if _same_namespace(keep.open_socket, socket.socket):
        return "the gate runs in that namespace itself, and could not ask any resolver; run it outside, with --netns"
    return None


def _same_namespace(one: SocketFactory, other: SocketFactory) -> bool:
    """Whether both make sockets of one namespace, as far as the kernel can say."""
    cookies: list[int] = []
    for make in (one, other):
        with make(socket.AF_INET, socket.SOCK_DGRAM) as own:
            try:
                cookies.append(int.from_bytes(own.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little"))
            except OSError:
                return False
    return cookies[0] == cookies[1]
