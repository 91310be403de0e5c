"""What the command may not do, in either form of `netpolicy run`: the last steps before it is executed."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import Exit, UserError
from netpolicy.run import syscalls

# linux/capability.h
NET_ADMIN, SYS_ADMIN = 12, 21
_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID, _SETPCAP = range(9)
_NET_BIND_SERVICE, _IPC_LOCK, _SYS_CHROOT, _SYS_NICE, _SYS_RESOURCE = 10, 14, 18, 23, 24
_LEASE, _AUDIT_WRITE, _SETFCAP = 28, 29, 31
#: What a command that runs as root keeps: what changes files and users. None of these reaches a namespace, another process's
#: memory, a device's registers, a raw socket or the kernel's code.
ROOT_KEEPS = frozenset(
    {
        *(_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID, _SETPCAP),
        *(_NET_BIND_SERVICE, _IPC_LOCK, _SYS_CHROOT, _SYS_NICE, _SYS_RESOURCE, _LEASE, _AUDIT_WRITE, _SETFCAP),
    }
)


_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom the command runs."""

    uid: int
    gid: int
    groups: tuple[int, ...] | None
    """Supplementary groups to set; None leaves them as they are."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that go with another user."""


def identity(user: str | None) -> Identity:
    """Look a user up by name or number; None is whoever we are.

    Raises:
        UserError: ``no-user``.
    """
    if user is None:
        return Identity(os.getuid(), os.getgid(), None)
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError as error:
        if user.isdecimal():
            return Identity(int(user), int(user), ())
        raise UserError("no-user", f"there is no user {user!r} on this machine", exit_status=Exit.BAD_INPUT) from error
    variables = (("HOME", entry.pw_dir), ("USER", entry.pw_name), ("LOGNAME", entry.pw_name))
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Identity(entry.pw_uid, entry.pw_gid, groups, variables)


def may_change_networks() -> bool:
    """Whether we have what the root form needs, in the namespaces we are in."""
    have = syscalls.effective_capabilities()
    return all(have >> number & 1 for number in (NET_ADMIN, SYS_ADMIN))


def enter_user_namespace() -> None:
    """Become root of a new user namespace in which only our own user and group exist. Only while single-threaded.

    Raises:
        UserError: ``no-user-namespace`` with the reason as far as it can be known.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        _map(uid, gid, inside=(0, 0))
    except OSError as error:
        raise UserError(
            "no-user-namespace",
            f"this machine does not let an ordinary user make a user namespace: {error.strerror}",
            hint=_user_namespace_hint(),
            exit_status=Exit.MISSING,
        ) from error
    if not may_change_networks():
        raise UserError(
            "no-user-namespace",
            "a user namespace could be made, but without any rights in it",
            hint=_user_namespace_hint(),
            exit_status=Exit.MISSING,
        )


def enter_own_user_namespace(who: Identity) -> None:
    """Put this process into a user namespace below the present one, as `who`: over what the present one owns it has no rights."""
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    _map(uid, gid, inside=(who.uid, who.gid))


def _map(uid: int, gid: int, *, inside: tuple[int, int]) -> None:
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{inside[0]} {uid} 1")
    (own / "gid_map").write_text(f"{inside[1]} {gid} 1")


def _user_namespace_hint() -> str:
    for key, closed in (
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("user.max_user_namespaces", "0"),
    ):
        path = _SYSCTL / key.replace(".", "/")
        if path.exists() and path.read_text().strip() == closed:
            return f"The setting {key} is {closed}. Run as root, or have an administrator change it."
    return "Run as root. Inside a container, give it --security-opt seccomp=unconfined, or run outside of it."


def give_up_privileges(who: Identity, *, nested: bool) -> None:
    """The last step before the command: no capability that reaches beyond it, and no way to gain one."""
    syscalls.bound_capabilities(frozenset() if nested else ROOT_KEEPS)
    syscalls.no_new_privileges()
    if not nested and who.groups is not None:
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    syscalls.limit_capabilities(frozenset() if nested else ROOT_KEEPS)


def needs_root(what: str) -> UserError:
    """The error for something that only root may do."""
    return UserError("not-permitted", f"only root may ask {what}", hint="Run as root.", exit_status=Exit.MISSING)
