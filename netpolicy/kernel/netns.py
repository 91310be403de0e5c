"""Network namespaces: make, remove, and do something inside one.

A thread that has entered a namespace never comes back to other work: it is made for one call and thrown away. (Workers of
a pool that stay behind in a container's namespace run the next, unrelated job there.) Sockets and processes keep the
namespace they were born in, so only they leave the thread. Sources: setns(2), unshare(2), ip-netns(8).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from netpolicy.errors import Exit, UserError

#: Where `ip netns` keeps named namespaces.
DIRECTORY = Path("/run/netns")

#: A name under `DIRECTORY`, a path such as ``/proc/7/ns/net``, an open file descriptor, or None for our own namespace.
Namespace = str | Path | int | None

P = ParamSpec("P")
R = TypeVar("R")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 4096, 16384, 1 << 20, 2
_libc = ctypes.CDLL(None, use_errno=True)


def path_of(namespace: Namespace) -> Path:
    """A path that opens the namespace; for a file descriptor it is valid in this process only."""
    if namespace is None:
        return Path("/proc/thread-self/ns/net")
    if isinstance(namespace, int):
        return Path(f"/proc/self/fd/{namespace}")
    return Path(namespace) if "/" in str(namespace) else DIRECTORY / str(namespace)


def open_namespace(namespace: Namespace) -> int:
    """A new file descriptor of the namespace; the caller closes it.

    Raises:
        UserError: ``no-namespace``.
    """
    if isinstance(namespace, int):
        return os.dup(namespace)
    path = path_of(namespace)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            "no-namespace",
            f"network namespace {namespace} cannot be opened: {error.strerror}",
            exit_status=Exit.MISSING,
        ) from error


def call(namespace: Namespace, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in a throw-away thread inside the namespace and return what it returns.

    Sockets made and processes started by it stay in the namespace. With None it runs here, in this thread.

    Raises:
        UserError: ``no-namespace``, or ``not-permitted`` where we may not enter it; besides, whatever `function` raises.
    """
    if namespace is None:
        return function(*args, **kwargs)
    fd = open_namespace(namespace)

    def enter_and_run() -> R:
        _check(_libc.setns(fd, _CLONE_NEWNET), f"enter network namespace {namespace}")
        return function(*args, **kwargs)

    try:
        return _in_thread(enter_and_run)
    finally:
        os.close(fd)


def enter(namespace: Namespace) -> None:
    """Move the calling thread into the namespace for good: for threads and child processes of one's own only.

    Raises:
        UserError: ``no-namespace`` or ``not-permitted``.
    """
    if namespace is None:
        return
    fd = open_namespace(namespace)
    try:
        _check(_libc.setns(fd, _CLONE_NEWNET), f"enter network namespace {namespace}")
    finally:
        os.close(fd)


def socket_in(namespace: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that belongs to the namespace; it can be used from any thread."""
    return call(namespace, socket.socket, family, kind, protocol)


def create(name: str) -> None:
    """Make a named namespace, as ``ip netns add`` does; its loopback is down.

    Raises:
        UserError: ``namespace-exists`` or ``not-permitted``.
    """
    DIRECTORY.mkdir(exist_ok=True)
    _share_directory()
    path = DIRECTORY / name
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError as error:
        raise UserError(
            "namespace-exists", f"network namespace {name!r} exists already", exit_status=Exit.CONFLICT
        ) from error

    def unshare_and_bind() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), f"make network namespace {name}")
        own = b"/proc/thread-self/ns/net"
        _check(_libc.mount(own, os.fsencode(path), b"none", _MS_BIND, None), f"mount network namespace {name}")

    made = False
    try:
        _in_thread(unshare_and_bind)
        made = True
    finally:
        if not made:
            path.unlink(missing_ok=True)


def anonymous() -> int:
    """Make a namespace without a name: a file descriptor. It vanishes with the last descriptor, socket and process in it.

    Raises:
        UserError: ``not-permitted``.
    """

    def unshare_and_open() -> int:
        _check(_libc.unshare(_CLONE_NEWNET), "make a network namespace")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(unshare_and_open)


def delete(name: str) -> None:
    """Remove a named namespace; one that does not exist is no error. It lives on while a process or socket is inside."""
    path = DIRECTORY / name
    _libc.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


def names() -> list[str]:
    """The named namespaces, sorted."""
    try:
        return sorted(entry.name for entry in DIRECTORY.iterdir())
    except FileNotFoundError:
        return []


def set_sysctl(namespace: Namespace, key: str, value: str | int) -> None:
    """Write e.g. ``net.ipv4.ip_forward`` as the namespace sees it. In interface names write ``/`` between the parts.

    Raises:
        UserError: ``not-permitted`` (``/proc/sys`` is read-only in containers), or ``no-sysctl``.
    """
    path = Path("/proc/sys") / (key if "/" in key else key.replace(".", "/"))
    try:
        call(namespace, path.write_text, str(value))
    except FileNotFoundError as error:
        raise UserError("no-sysctl", f"this kernel has no setting {key}", exit_status=Exit.MISSING) from error
    except OSError as error:
        raise UserError("not-permitted", f"cannot set {key} to {value}: {error.strerror}") from error


def _in_thread(function: Callable[[], R]) -> R:
    from concurrent.futures import ThreadPoolExecutor  # late: a probe, which only enters, starts sooner without

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as thread:
        return thread.submit(function).result()


def _share_directory() -> None:
    """Let mounts and unmounts in it reach other mount namespaces, as ``ip netns`` does."""
    directory = os.fsencode(DIRECTORY)
    if _libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    _check(_libc.mount(directory, directory, b"none", _MS_BIND | _MS_REC, None), f"mount {DIRECTORY}")
    _check(_libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None), f"share {DIRECTORY}")


def _check(result: int, what: str) -> None:
    if result == 0:
        return
    number = ctypes.get_errno()
    hint = "This needs root, or CAP_SYS_ADMIN." if number in (errno.EPERM, errno.EACCES) else None
    raise UserError("not-permitted", f"cannot {what}: {os.strerror(number)}", hint=hint)
