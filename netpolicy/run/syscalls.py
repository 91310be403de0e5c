"""System calls that Python 3.11 does not offer: namespaces, mounts, capabilities, process control (man pages in section 2)."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_SLAVE = 16384, 1 << 19
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 1, 4, 23, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Raises OSError naming the target."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None), target
    )


def unmount(target: str) -> None:
    """Detach a mount now; what still uses it goes on. Raises OSError."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), target)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; ends it now if that has happened already.

    Args:
        parent: The parent's process id as seen from here, 0 where it is outside of our process namespace.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def set_dumpable(yes: bool) -> None:
    """Whether processes of the same user may look into this one (ptrace, /proc/PID/ns, core dumps)."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0), "prctl")


def no_new_privileges() -> None:
    """From now on no program gains anything by being executed (set-user-ID, file capabilities). Cannot be undone."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def bound_capabilities(keep: frozenset[int]) -> None:
    """Let this process and all that come from it never have other capabilities than `keep` again."""
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in keep:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl")
        number += 1
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")


def limit_capabilities(keep: frozenset[int]) -> None:
    """Give up all capabilities but `keep` of those that this process has now; none is inherited by programs as such."""
    effective = effective_capabilities() & sum(1 << number for number in keep)
    low, high = effective & 0xFFFFFFFF, effective >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")


def effective_capabilities() -> int:
    """A bit for each capability number (linux/capability.h)."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
