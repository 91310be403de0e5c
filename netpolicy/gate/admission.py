"""Which attachments a gate takes."""

from __future__ import annotations

import socket

from netpolicy.attachment import Attachment
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
    if at_home(keep):
        return "the gate runs in that namespace itself, and could not ask any resolver; run it outside, with --netns"
    return None


def at_home(keep: Keeper) -> bool:
    """Whether the gate runs in the namespace whose traffic it judges; False where the kernel cannot say."""
    cookies: list[bytes] = []
    for make in (keep.open_socket, socket.socket):
        with make(socket.AF_INET, socket.SOCK_DGRAM) as own:
            try:
                cookies.append(own.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
            except OSError:
                return False
    return cookies[0] == cookies[1]
