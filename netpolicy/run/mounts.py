"""The command's view of the file system: as it is, but with the gate as its resolver and only its own processes in /proc."""

from __future__ import annotations

from pathlib import Path

from netpolicy.run import syscalls

RESOLV_CONF = Path("/etc/resolv.conf")
#: Sockets in here would let the C library ask another resolver behind our back (nss-resolve, nscd), outside of the namespace.
_OTHER_RESOLVERS = (Path("/run/systemd/resolve"), Path("/run/nscd"), Path("/var/run/nscd"))
#: Files by which root, without any capability, would have the kernel do things outside (core_pattern, sysrq).
_KERNEL_CONTROLS = ("sys", "sysrq-trigger", "irq", "bus", "fs")
_SCRATCH = "/proc"


def isolate() -> None:
    """From now on our mounts are ours; those that the host makes later still arrive. Only in a new mount namespace."""
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)


def use_resolver(text: str) -> None:
    """Let /etc/resolv.conf say `text`, and hide the sockets of other resolvers."""
    target = RESOLV_CONF.resolve()
    # A tmpfs for as long as it takes to make the file in it; /proc is covered for good just after.
    syscalls.mount("tmpfs", _SCRATCH, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    content = Path(_SCRATCH) / "resolv.conf"
    content.write_text(text)
    content.chmod(0o644)
    hidden = [path for path in _OTHER_RESOLVERS if path.is_dir() and not path.is_symlink()]
    for directory in hidden:
        syscalls.mount("tmpfs", str(directory), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
        if target.parent == directory:
            target.touch()
    if target.exists():
        syscalls.mount(str(content), str(target), flags=syscalls.MS_BIND)
    syscalls.unmount(_SCRATCH)


def own_processes(*, protect_kernel: bool) -> None:
    """Mount a /proc of the process namespace we are in.

    Args:
        protect_kernel: Make the kernel's settings read-only in it, which root could write without any capability.
    """
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)
    for name in _KERNEL_CONTROLS if protect_kernel else ():
        path = f"/proc/{name}"
        if Path(path).exists():
            syscalls.mount(path, path, flags=syscalls.MS_BIND | syscalls.MS_REC)
            read_only = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
            syscalls.mount("none", path, flags=read_only | flags)
