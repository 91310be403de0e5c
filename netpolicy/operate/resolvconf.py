"""Which resolvers a process asks, by the resolv.conf of its own root directory: a file that a hostile workload may have written.

It may be a link: an absolute one leads out of the process's root when it is followed from here, to any file or device of this
machine. It may be a pipe that nobody writes to, a device, or endless. So it is looked up as the process itself would (openat2(2)),
opened only where it is a file, and read up to a limit.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from ipaddress import ip_address
from pathlib import Path

_LARGEST_BYTES = 1 << 16
_OPENAT2 = 437
_NO_MAGIC_LINKS, _IN_ROOT = 0x02, 0x10

_libc = ctypes.CDLL(None, use_errno=True)


def nameservers(pid: int) -> tuple[str, ...]:
    """The addresses that its ``nameserver`` lines have; none where there is no such file, or what stands there is no file."""
    try:
        text = _read(pid)
    except OSError:
        return ()
    lines = map(str.split, text.splitlines())
    return tuple(words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1 and _address(words[1]))


def _read(pid: int) -> str:
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _find(root, b"etc/resolv.conf")
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return ""
        with Path(f"/proc/self/fd/{found}").open("rb") as stream:
            return stream.read(_LARGEST_BYTES).decode(errors="replace")
    finally:
        os.close(found)


def _find(root: int, path: bytes) -> int:
    """What stands at a path below a root directory, without opening it: a pipe does not wait, and a device does nothing."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGIC_LINKS)
    found = int(_libc.syscall(_OPENAT2, root, path, how, len(how)))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def _address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
